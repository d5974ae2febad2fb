"""The stock backend's classes, as ours see them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.backends.postgresql.creation import DatabaseCreation

    class StockCreation(DatabaseCreation):
        """Django's making of test databases, with what its type stubs leave out."""

        def _execute_create_test_db(
            self, cursor: Any, parameters: dict[str, str], keepdb: bool = False
        ) -> None: ...
        def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None: ...
        def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None: ...

    class StockWrapper(DatabaseWrapper):
        """Django's PostgreSQL wrapper, with what its type stubs leave out."""

        _thread_ident: int
        health_check_enabled: bool

        def _set_autocommit(self, autocommit: bool) -> None: ...
        def _close(self) -> None: ...
        def _prepare_cursor(self, cursor: Any) -> Any: ...
        def _cursor(self, name: str | None = None) -> Any: ...
        def _commit(self) -> None: ...
        def _rollback(self) -> None: ...
        def _configure_connection(self, connection: Any) -> bool: ...
        def _configure_timezone(self, connection: Any) -> bool: ...

else:
    # Mixed in before the stock wrapper or GeoDjango's, so it must not derive from one of them.
    from django.db.backends.base.base import BaseDatabaseWrapper as StockWrapper
    from django.db.backends.postgresql.creation import DatabaseCreation as StockCreation

__all__ = ["StockCreation", "StockWrapper"]
