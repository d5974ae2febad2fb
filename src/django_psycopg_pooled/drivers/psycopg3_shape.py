"""What a borrower can change on a connection of psycopg 3, and how that is noticed.

To compare everything at each return takes 1 us. So what can say itself that it was changed does.
"""

from copy import copy
from functools import cache
from operator import attrgetter
from typing import Any, Self

from psycopg.adapt import AdaptersMap
from psycopg.types import TypeInfo, TypesRegistry

# Those behind public properties by the attribute, since reading a property would cost a request
# more. No tidy connection is in a pipeline. `_begin_statement` is made from MODES, and emptied when
# one of them is set. A test changes each of all in turn.
COMPARED = (
    "_autocommit",
    "row_factory",
    "cursor_factory",
    "server_cursor_factory",
    "_pipeline",
    "_tpc",
    "_begin_statement",
)
MODES = ("isolation_level", "read_only", "deferrable")
FACTORIES = ("cursor_factory", "server_cursor_factory")
RESTORED = (*FACTORIES, "row_factory", *MODES)
PREPARING = ("prepare_threshold", "prepared_max")
HANDLERS = ("_notice_handlers", "_notify_handlers")
compared = attrgetter(*COMPARED)
factories = attrgetter(*FACTORIES)
_attributes, _preparing = attrgetter(*RESTORED), attrgetter(*PREPARING)
_handlers = attrgetter(*HANDLERS)


class Shape:
    """What a connection looked like before anybody had it; lives as long as it."""

    __slots__ = (
        "adapters",
        "attributes",
        "bare",
        "compared",
        "greeter",
        "handlers",
        "preparing",
        "touched",
    )

    def __init__(self, connection: Any) -> None:
        self.attributes = _attributes(connection)
        self.preparing = _preparing(connection._prepared)
        self.handlers = tuple(map(tuple, _handlers(connection)))
        self.adapters: AdaptersMap = connection.adapters
        self.watch_changes(connection)
        self.compared = compared(connection)
        self.touched = False  # something that is not compared was changed, perhaps
        self.bare: Self | None = None  # this one, before receivers of connection_created registered
        self.greeter: object = None  # the request that sent them the signal; None for any

    @property
    def factories(self) -> tuple[Any, ...]:
        """The classes of cursors that watch what they execute."""
        return self.attributes[: len(FACTORIES)]

    def restore(self, connection: Any) -> None:
        """Make the connection, outside a transaction, look so again. No round trip."""
        for name, value in zip(RESTORED, self.attributes, strict=True):
            setattr(connection, name, value)
        for name, value in zip(PREPARING, self.preparing, strict=True):
            setattr(connection._prepared, name, value)
        self.watch_changes(connection)
        self.touched = False

    def grown(self, connection: Any) -> Self:
        """This shape with the types and handlers registered since; itself if there are none."""
        if not self.touched:
            return self
        grown = copy(self)
        grown.bare = self
        # What they said of preparing is neither: it is noted still, and so taken back.
        grown.touched = _preparing(connection._prepared) != self.preparing
        grown.handlers = tuple(map(tuple, _handlers(connection)))
        grown.adapters = connection.adapters
        grown.watch_changes(connection)
        return grown

    def shrunk(self, connection: Any) -> Self:
        """Take back what grown() has found. No round trip."""
        if self.bare is None:
            return self
        self.bare.watch_changes(connection)
        self.bare.touched = False
        return self.bare

    def watch_changes(self, connection: Any) -> None:
        """Give the connection handlers and adapters that tell this shape of changes."""
        for name, handlers in zip(HANDLERS, self.handlers, strict=True):
            setattr(connection, name, NotingList(self, handlers))
        connection._prepared = _noting(connection._prepared, self)
        # A map of its own over what there was: what is registered in it can be taken back.
        connection._adapters = NotingAdapters(self)
        connection._get_tx_start_command()


class NotingList(list[Any]):
    """A connection's handlers; notes that one was added or removed."""

    __slots__ = ("_shape",)

    def __init__(self, shape: Shape, handlers: tuple[Any, ...]) -> None:
        super().__init__(handlers)
        self._shape = shape

    def append(self, handler: Any) -> None:
        self._shape.touched = True
        super().append(handler)

    def remove(self, handler: Any) -> None:
        self._shape.touched = True
        super().remove(handler)


def _noting(manager: Any, shape: Shape) -> Any:
    """psycopg's keeper of prepared statements, which notes that its limits were changed."""
    noting = copy(manager)
    vars(noting)["_shape"] = shape
    kind: Any = type(manager)
    noting.__class__ = _noting_class(kind)
    return noting


@cache
def _noting_class(kind: Any) -> Any:
    if "__setattr__" in vars(kind):
        return kind

    def note(self: Any, name: str, value: Any) -> None:
        if name in PREPARING:
            self._shape.touched = True
        kind.__setattr__(self, name, value)

    return type(kind.__name__, (kind,), {"__setattr__": note, "__module__": kind.__module__})


class NotingTypes(TypesRegistry):
    """The names of types that a connection knows; notes that one was added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.adapters.types)
        self._shape = shape

    def add(self, info: TypeInfo) -> None:
        self._shape.touched = True
        super().add(info)


class NotingAdapters(AdaptersMap):
    """A connection's adapters; notes that some were registered."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.adapters)
        self.types = NotingTypes(shape)
        self._shape = shape

    def register_dumper(self, *args: Any, **kwargs: Any) -> None:
        self._shape.touched = True
        super().register_dumper(*args, **kwargs)

    def register_loader(self, *args: Any, **kwargs: Any) -> None:
        self._shape.touched = True
        super().register_loader(*args, **kwargs)
