"""The stock backend's wrapper, as the mixin sees it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper

    class StockWrapper(DatabaseWrapper):
        """Django's PostgreSQL wrapper, with what its type stubs leave out."""

        def _set_autocommit(self, autocommit: bool) -> None: ...
        def _close(self) -> None: ...
        def _configure_timezone(self, connection: Any) -> bool: ...

else:
    # Mixed in before the stock wrapper or GeoDjango's, so it must not derive from one of them.
    from django.db.backends.base.base import BaseDatabaseWrapper as StockWrapper

__all__ = ["StockWrapper"]
