"""A project's backend that sets up what it has just connected to."""

from django_psycopg_pooled.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Sets something on each connection that it gets."""

    def init_connection_state(self) -> None:
        super().init_connection_state()
        with self.cursor() as cursor:
            cursor.execute("SET cpu_tuple_cost = 7")
