"""A project's own subclass of the backend, as an ENGINE."""

from typing import Any

from django_psycopg_pooled.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Gives each new connection a parameter and a setting."""

    def get_connection_params(self) -> dict[str, Any]:
        return {**super().get_connection_params(), "options": "-c work_mem=9MB"}
