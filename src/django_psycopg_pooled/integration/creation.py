"""Making test databases while pools keep connections open."""

from typing import Any

from django_psycopg_pooled.integration.registry import REGISTRY
from django_psycopg_pooled.integration.stock import StockCreation


class PooledCreation(StockCreation):
    """The stock backend's, which closes the pools of a database that it clones or drops itself."""

    def _execute_create_test_db(
        self, cursor: Any, parameters: dict[str, str], keepdb: bool = False
    ) -> None:
        settings = self.connection.settings_dict
        template = settings["TEST"].get("TEMPLATE")
        if template:
            # PostgreSQL does not copy a database that somebody is connected to, not even idly.
            REGISTRY.close({**settings, "NAME": template})
        super()._execute_create_test_db(cursor, parameters, keepdb)
