"""What a psycopg2 cursor shows of a statement that went to the server as an EXECUTE."""

from typing import Any


class ShowsStatements:
    """Mixed in before psycopg2's cursor class, whose subclass has room for `_pool_query`.

    That is set before an EXECUTE, and holds until something else is executed.
    """

    __slots__ = ()

    @property
    def query(self: Any) -> Any:
        """What was executed; for an EXECUTE the statement that it stands for, with literals."""
        executed = super().query  # type: ignore[misc]
        shown = getattr(self, "_pool_query", None)
        return executed if shown is None or shown.executed is not executed else shown.text(self)
