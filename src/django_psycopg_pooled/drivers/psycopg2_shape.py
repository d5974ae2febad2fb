"""What a borrower can change on a connection of psycopg2."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Self

SENT = ("isolation_level", "readonly", "deferrable", "encoding")
TYPES = ("string_types", "binary_types")  # registered for this connection only
ATTRIBUTES = ("autocommit", "cursor_factory", *SENT, *TYPES)
shape_of = attrgetter(*ATTRIBUTES)
_types_of = attrgetter(*TYPES)


class Shape(tuple[Any, ...]):
    """A connection's ATTRIBUTES before anybody had it; lives as long as it."""

    typed: bool  # some types were registered for it
    bare: Self | None = None  # this one, before receivers of connection_created registered types
    greeter: object = None  # the request that sent them the signal; None for any

    def __new__(cls, values: Iterable[Any]) -> Self:
        shape = super().__new__(cls, values)
        shape.typed = any(shape[-len(TYPES) :])
        return shape

    def has_types_of(self, connection: Any) -> bool:
        """Whether the same are registered now: to psycopg2 all types of one OID are equal."""
        return all(
            now.keys() == then.keys() and all(now[oid] is then[oid] for oid in then)
            for now, then in zip(_types_of(connection), self[-len(TYPES) :], strict=True)
        )

    def put_types(self, connection: Any) -> None:
        """Have none but this shape's types registered on the connection."""
        for now, then in zip(_types_of(connection), self[-len(TYPES) :], strict=True):
            now.clear()
            now.update(then)

    def grown(self, connection: Any) -> Self:
        """This shape with the types registered since; itself if there are none."""
        if self.has_types_of(connection):
            return self
        grown = type(self)((*self[: -len(TYPES)], *(t.copy() for t in _types_of(connection))))
        grown.bare = self
        return grown

    def shrunk(self, connection: Any) -> Self:
        """Take back what grown() has found. No round trip."""
        if self.bare is None:
            return self
        self.bare.put_types(connection)
        return self.bare
