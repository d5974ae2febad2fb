"""What a borrower can change on a connection of psycopg2."""

from operator import attrgetter
from typing import Any, Self

# In autocommit psycopg2 sends these as SETs.
SENT = ("isolation_level", "readonly", "deferrable", "encoding")
# What the connection tells by itself that it was set: to compare it all takes 0.2 us more.
NOTED = frozenset({"cursor_factory", "notices", "notifies", *SENT})
TYPES = ("string_types", "binary_types")  # registered for this connection only
compared = attrgetter("autocommit", "notices", *TYPES)
_types_of = attrgetter(*TYPES)


class Shape:
    """What a connection looked like before anybody had it; lives as long as it."""

    __slots__ = ("bare", "compared", "cursor_factory", "greeter", "notices", "sent", "typed")

    def __init__(self, cursor_factory: Any, notices: Any, sent: dict[str, Any], types: Any) -> None:
        self.cursor_factory = cursor_factory
        self.notices = notices  # None for a list, which is to be empty; or a factory's own
        self.sent = sent
        quiet = [] if notices is None else notices
        self.compared = (True, quiet, *(registered.copy() for registered in types))
        self.typed = any(types)  # some types were registered for it
        # This one, before receivers of connection_created registered types.
        self.bare: Self | None = None
        self.greeter: object = None  # the request that sent them the signal; None for any

    @classmethod
    def of(cls, connection: Any) -> Self:
        """Of a connection in autocommit."""
        sent = {name: getattr(connection, name) for name in SENT}
        notices = connection.notices
        if isinstance(notices, list):
            notices = None
            connection.notices.clear()
        return cls(connection.cursor_factory, notices, sent, _types_of(connection))

    def changed(self, connection: Any) -> str:
        """Which one of those that are sent differs; empty if none does."""
        return next((n for n, sent in self.sent.items() if getattr(connection, n) != sent), "")

    def restore(self, connection: Any) -> None:
        """Make the connection, outside a transaction, look so again, but for what was sent."""
        connection.autocommit = True
        connection.cursor_factory = self.cursor_factory
        connection.notices = [] if self.notices is None else self.notices
        connection.notifies = []
        self.put_types(connection)

    def has_types_of(self, connection: Any) -> bool:
        """Whether the same are registered now: to psycopg2 all types of one OID are equal."""
        return all(
            now.keys() == then.keys() and all(now[oid] is then[oid] for oid in then)
            for now, then in zip(_types_of(connection), self.compared[2:], strict=True)
        )

    def put_types(self, connection: Any) -> None:
        """Have none but this shape's types registered on the connection."""
        for now, then in zip(_types_of(connection), self.compared[2:], strict=True):
            now.clear()
            now.update(then)

    def grown(self, connection: Any) -> Self:
        """This shape with the types registered since; itself if there are none."""
        if self.has_types_of(connection):
            return self
        grown = type(self)(self.cursor_factory, self.notices, self.sent, _types_of(connection))
        grown.bare = self
        return grown

    def shrunk(self, connection: Any) -> Self:
        """Take back what grown() has found. No round trip."""
        if self.bare is None:
            return self
        self.bare.put_types(connection)
        return self.bare
