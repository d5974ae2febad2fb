"""A project's backend that sets its connections up while it makes them."""

from typing import Any

from django_psycopg_pooled.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Sets the search path of each connection that it makes."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = shop, public")
        connection.commit()
        return connection
