"""Cursors that note what each statement does to the session, and what the server answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from django_psycopg_pooled.drivers.showing import ShowsStatements
from django_psycopg_pooled.execution.watched import WatchedSession, now
from django_psycopg_pooled.preparing.preparer import PREPARED
from django_psycopg_pooled.tracking.stacks import capture


class WatchedCursor:
    """Mixed in before a driver's cursor class. Lives as long as the cursor; its thread only.

    Nothing in here changes what a statement does, returns or raises.
    """

    __slots__ = ()

    def execute(self: Any, query: Any, params: Any = None, **kwargs: Any) -> Any:
        session: WatchedSession = self.connection._pool_session
        stack = capture()
        if session.last is None:
            session.unit = object()  # a new loan
        session.last = stack
        record = session.book.look_up(query if type(query) is str else text_of(query, self))
        if record.effects or session.dirt:
            session.before(self.connection, record.effects)
        failure, prepared = None, False
        session.doing = record
        session.began = began = now()
        try:
            if record.plan is None or kwargs:
                if session.commenter is not None:
                    query = session.commenter.commented(query, params)
                if kwargs:
                    return super().execute(query, params, **kwargs)  # type: ignore[misc]
                return super().execute(query, params)  # type: ignore[misc]
            plain = super().execute  # type: ignore[misc]
            if session.commenter is not None:
                plain = session.commenter.before(plain)
            way = session.preparer.execute(self, plain, record.plan, query, params)
            prepared = way == PREPARED
            return self._executed()
        except BaseException as error:
            failure = session.failed(self.connection, error)
            raise
        finally:
            session.ended = ended = now()
            if session.journal is not None:
                session.ran(record, params, ended - began, self.rowcount, failure, prepared)

    def _fetching(self: Any, fetch: Callable[[], Any]) -> Any:
        """A fetch from a cursor on the server, which keeps its transaction busy."""
        session: WatchedSession = self.connection._pool_session
        session.began = now()
        try:
            return fetch()
        finally:
            session.ended = now()

    def executemany(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        with self._watching(query):
            return super().executemany(query, *args, **kwargs)  # type: ignore[misc]

    @contextmanager
    def _watching(self: Any, query: Any) -> Iterator[None]:
        """Around what runs one statement in any other way than execute()."""
        session: WatchedSession = self.connection._pool_session
        if session.last is None:
            session.unit = object()
        session.last = capture()
        record = session.book.look_up(text_of(query, self))
        session.before(self.connection, record.effects)
        failure = None
        session.doing = record
        session.began = began = now()
        try:
            yield
        except BaseException as error:
            failure = session.failed(self.connection, error)
            raise
        finally:
            session.ended = ended = now()
            if session.journal is not None:
                session.ran(record, None, ended - began, self.rowcount, failure, False)


class WatchedPsycopgCursor(WatchedCursor):
    """What psycopg 3's cursors have beside that."""

    __slots__ = ()

    def _executed(self) -> Any:
        return self

    def stream(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        with self._watching(query):
            yield from super().stream(query, *args, **kwargs)  # type: ignore[misc]

    @contextmanager
    def copy(self: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
        with (
            self._watching(statement),
            super().copy(statement, *args, **kwargs) as copy,  # type: ignore[misc]
        ):
            yield copy


class WatchedServerCursor(WatchedPsycopgCursor):
    """psycopg 3's named cursors."""

    __slots__ = ()

    def abandon(self: Any) -> None:
        """The loan has ended. If it is closed after that, it must not tell the next borrower's
        session, whose transaction would fail for a cursor that is not there.
        """
        self._closed = True

    def close(self: Any) -> None:
        if self._query is None:  # nothing was executed, or another has declared it by SQL
            super().close()  # type: ignore[misc]
            return
        session: WatchedSession = self.connection._pool_session
        if not session.holds(self):
            self.abandon()  # it was not at hand when its loan ended
        super().close()  # type: ignore[misc]
        session.let_go(self)

    def execute(self: Any, query: Any, params: Any = None, **kwargs: Any) -> Any:
        self.connection._pool_session.hold(self)
        return super().execute(query, params, **kwargs)

    def fetchone(self: Any) -> Any:
        return self._fetching(super().fetchone)  # type: ignore[misc]

    def fetchmany(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._fetching(partial(super().fetchmany, *args, **kwargs))  # type: ignore[misc]

    def fetchall(self: Any) -> Any:
        return self._fetching(super().fetchall)  # type: ignore[misc]


class WatchedPsycopg2Cursor(ShowsStatements, WatchedCursor):
    """What psycopg2's cursors have beside that. COPY by copy_from() and copy_to() does no harm."""

    __slots__ = ()

    def abandon(self) -> None:
        """The loan has ended; see close()."""

    def close(self: Any) -> None:
        if self.name is not None and self.query is not None:
            session: WatchedSession = self.connection._pool_session
            if not session.holds(self):
                return  # abandoned: the next borrower's session knows no such cursor
            super().close()  # type: ignore[misc]
            session.let_go(self)
            return
        super().close()  # type: ignore[misc]

    def _executed(self) -> None:
        """execute() returns nothing."""

    # With the argument named as psycopg2 names it.
    def execute(self: Any, query: Any, vars: Any = None) -> Any:  # type: ignore[override]
        if self.name is not None:
            self.connection._pool_session.hold(self)
        return super().execute(query, vars)

    def fetchmany(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name is None:
            return super().fetchmany(*args, **kwargs)  # type: ignore[misc]
        return self._fetching(partial(super().fetchmany, *args, **kwargs))  # type: ignore[misc]

    def callproc(self: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        with self._watching(f"SELECT * FROM {name}()"):
            return super().callproc(name, *args, **kwargs)  # type: ignore[misc]

    def copy_expert(self: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
        with self._watching(sql):
            return super().copy_expert(sql, *args, **kwargs)  # type: ignore[misc]


@cache
def watched(cursor_class: type[Any]) -> type[Any]:
    """A subclass of a driver's *cursor_class*, made once, that watches; itself if it does so."""
    if issubclass(cursor_class, WatchedCursor):
        return cursor_class
    slots: tuple[str, ...] = ()
    if hasattr(cursor_class, "copy_expert"):
        mixin: type[WatchedCursor] = WatchedPsycopg2Cursor
        slots = ("_pool_query",)  # for ShowsStatements; no mixin can have any
    else:
        named = hasattr(cursor_class, "withhold")
        mixin = WatchedServerCursor if named else WatchedPsycopgCursor
    return type(
        cursor_class.__name__,
        (mixin, cursor_class),
        {"__slots__": slots, "__module__": cursor_class.__module__},
    )


def watch_named(cursor: Any) -> None:
    """Watch a named cursor that its connection's factory did not make: Django's for psycopg 3."""
    if not isinstance(cursor, WatchedCursor):
        watched_class: Any = watched(cursor.__class__)
        cursor.__class__ = watched_class


def text_of(query: Any, cursor: Any) -> str:
    """The text of anything that a driver executes."""
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    as_string = getattr(query, "as_string", None)  # composed by one of the drivers' `sql` modules
    if as_string is None:
        # A way to write statements that we cannot read: judged as whatever it may do.
        return "CALL anything()"
    return str(as_string(cursor))
