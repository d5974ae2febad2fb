"""Making test databases while pools keep connections open."""

from typing import Any

from django_psycopg_pooled.integration.registry import REGISTRY
from django_psycopg_pooled.integration.stock import StockCreation


class PooledCreation(StockCreation):
    """The stock backend's, which closes the pools of a database that it clones or drops itself."""

    def _execute_create_test_db(
        self, cursor: Any, parameters: dict[str, str], keepdb: bool = False
    ) -> None:
        template = self.connection.settings_dict["TEST"].get("TEMPLATE")
        if template:
            # PostgreSQL does not copy a database that somebody is connected to, not even idly.
            REGISTRY.close_everywhere(template)
        super()._execute_create_test_db(cursor, parameters, keepdb)

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        REGISTRY.close_everywhere(self.connection.settings_dict["NAME"])
        super()._clone_test_db(suffix, verbosity, keepdb)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        REGISTRY.close_everywhere(test_database_name)
        super()._destroy_test_db(test_database_name, verbosity)
