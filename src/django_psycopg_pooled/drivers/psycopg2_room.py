"""Connections of psycopg2 that can have a Session, and tell of what a borrower changes on them."""

from functools import cache
from typing import Any

from psycopg2 import extensions

from django_psycopg_pooled.drivers.psycopg2_cancel import Key
from django_psycopg_pooled.drivers.psycopg2_shape import NOTED
from django_psycopg_pooled.session import ANYTHING, Effect, Session


class Room:
    """Mixed in before a connection class of psycopg2's: room for a Session, which hears all.

    Notes changes of what is not compared at each return: see psycopg2_shape.
    """

    _pool_touched = False
    _pool_session: Session | None = None
    _pool_key: Key | None = None
    _pool_waits = False  # a wait callback waits for the server, which works

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if extensions.get_wait_callback() is not None:
            self._pool_key = Key.of(self)

    def poll(self) -> int:
        """Asked by a wait callback before each wait, and once more when there is an answer."""
        self._pool_waits = False  # also if this raises: nobody works for a broken connection
        state: int = super().poll()  # type: ignore[misc]
        self._pool_waits = state != extensions.POLL_OK
        return state

    def __setattr__(self, name: str, value: object) -> None:
        if name in NOTED:
            vars(self)["_pool_touched"] = True
        super().__setattr__(name, value)

    def set_session(self, *args: Any, **kwargs: Any) -> None:
        self._pool_touched = True
        super().set_session(*args, **kwargs)  # type: ignore[misc]

    def set_isolation_level(self, level: Any) -> None:
        self._pool_touched = True
        super().set_isolation_level(level)  # type: ignore[misc]

    def set_client_encoding(self, encoding: str) -> None:
        self._pool_touched = True
        super().set_client_encoding(encoding)  # type: ignore[misc]

    def cursor(
        self: Any, name: Any = None, cursor_factory: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        # Also a class that the borrower names, as many do to get dictionaries for rows.
        factory = cursor_factory or self.cursor_factory
        if self._pool_session is not None:
            if isinstance(factory, type):
                factory = self._pool_session.watching(factory)
            elif factory is not None:  # what its cursors execute is not noted
                self._pool_session.note(int(ANYTHING), in_transaction=False)
        if args:
            return super().cursor(name, factory, *args, **kwargs)  # type: ignore[misc]
        if factory is not None:
            # By its name, as connection classes in psycopg2.extras add theirs where there is none.
            kwargs["cursor_factory"] = factory
        return super().cursor(name, **kwargs)  # type: ignore[misc]

    def commit(self) -> None:
        super().commit()  # type: ignore[misc]
        if self._pool_session is not None:
            # The next transaction may begin without a statement of ours: copy_from(), lobject().
            self._pool_session.settle()

    def tpc_commit(self, *args: Any) -> None:
        super().tpc_commit(*args)  # type: ignore[misc]
        if self._pool_session is not None:
            self._pool_session.settle()

    def reset(self) -> None:
        self._pool_touched = True
        super().reset()  # type: ignore[misc]
        if self._pool_session is not None:
            effects = int(Effect.SETTINGS | Effect.ROLE)
            self._pool_session.note(effects, in_transaction=False)


@cache
def with_room(factory: Any) -> Any:
    """A subclass of psycopg2's connection class whose objects can have a Session.

    _pool_cursor() is cursor() without arguments while nothing has been touched.
    """
    plain = factory.cursor is extensions.connection.cursor
    return type(factory.__name__, (Room, factory), {
        "__module__": factory.__module__,
        "_pool_cursor": factory.cursor if plain else Room.cursor,
    })  # fmt: skip
