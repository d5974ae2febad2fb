"""Prepared statements by the protocol, with psycopg 3's own pieces; see drivers.preparing.

psycopg prepares by itself too, but never for the client-side binding that Django uses, with other
types than a literal has, and under names that mean another statement in another session.
"""

import secrets
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg import abc, capabilities, errors, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format

from django_psycopg_pooled.drivers.preparing import (
    NAME_PREFIX,
    Plain,
    Types,
    is_outdated,
    is_refusal,
    numbered,
)

# What is used of psycopg beside its public interface.
_CURSOR_HOOKS = (
    *("_reset", "_check_results", "_set_results", "_query_cls"),
    *("_conn", "_closed", "_tx", "_query", "_last_query"),
)
_CONNECTION_HOOKS = ("_start_query", "_exec_command", "_deallocate")
# If a subclass has one of these, running past it would leave out what it does.
_PASSED_BY = ("execute", "_execute_gen", "_maybe_prepare_gen", "_convert_query", "_execute_send")
_OURS = "django_psycopg_pooled."

_NO_TRACEBACK = getattr(errors, "_NO_TRACEBACK", (psycopg.Error,))

# Types of which a value is written as a bare number, by their oids. The parser gives that a type
# by its size and its point.
_INTEGERS = frozenset({20, 21, 23, 26})
_FLOATS = frozenset({700, 701})
_INT4, _INT8, _NUMERIC, _FLOAT8 = 23, 20, 1700, 701
_TEXT, _UNKNOWN = 25, 0
_BY_VALUE = _INTEGERS | _FLOATS | {_NUMERIC, _TEXT}
_IDLE, _IN_TRANSACTION, _FAILED = 0, 2, 3

_SAVEPOINT = b"SAVEPOINT _dpp_trial"
_RELEASE = b"RELEASE SAVEPOINT _dpp_trial"
_UNDO = b"ROLLBACK TO SAVEPOINT _dpp_trial"


class Statement(NamedTuple):
    """A prepared statement as libpq wants it."""

    name: bytes
    sql: bytes
    oids: tuple[int, ...]
    plan_cache_mode: bytes


class Values(NamedTuple):
    """The parameters of one execution."""

    transformer: abc.Transformer
    params: Sequence[Any]
    dumped: Sequence[Any]
    formats: Sequence[Format] | None


class Rendered:
    """Stands for psycopg's query on a cursor; lives as long as the cursor shows it.

    Writes the literals into the text when somebody reads that: Django with DEBUG, a toolbar.
    """

    __slots__ = ("_params", "_query_cls", "_template", "_transformer", "formats", "types")

    def __init__(self, cursor: Any, template: Any, values: Values) -> None:
        self._query_cls = cursor._query_cls
        self._template = template
        self._transformer = values.transformer
        self._params = values.params
        self.types = ()
        self.formats = None

    @property
    def query(self) -> bytes:
        return bytes(self._made().query)

    @property
    def params(self) -> Any:
        return self._made().params

    def _made(self) -> Any:
        made = self._query_cls(self._transformer)
        made.convert(self._template, self._params)
        return made


class PsycopgBinding:
    """Stateless; see drivers.preparing.Binding for what each method promises."""

    by_default = True
    unknown = _UNKNOWN

    @property
    def unavailable(self) -> str:
        missing = [
            *(f"Cursor.{name}" for name in _CURSOR_HOOKS if not hasattr(psycopg.Cursor, name)),
            *(f"Connection.{n}" for n in _CONNECTION_HOOKS if not hasattr(psycopg.Connection, n)),
        ]
        return f"psycopg {psycopg.__version__} has no {', '.join(missing)}" if missing else ""

    def statement(self, name: str, sql: str, types: Types, plan_cache_mode: str) -> Statement:
        return Statement(name.encode(), numbered(sql).encode(), types, plan_cache_mode.encode())

    def bind(self, cursor: Any, query: Any, params: Any) -> tuple[Types, Values] | None:
        kind = type(params)
        if (kind is not tuple and kind is not list) or not params:
            return None
        if not _is_plain(cursor.__class__):
            return None
        connection = cursor._conn
        status = connection.pgconn.transaction_status
        if (
            (status != _IDLE and status != _IN_TRANSACTION)
            or cursor._closed
            or cursor.format
            or connection._pipeline is not None
        ):
            return None
        transformer = cursor._tx if cursor._last_query is query else Transformer(cursor)
        try:
            dumped = transformer.dump_sequence(params, [PyFormat.TEXT] * len(params))
            types = [
                None if text is None else oid if oid not in _BY_VALUE else _of_literal(oid, text)
                for oid, text in zip(transformer.types or (), dumped, strict=True)
            ]
        except Exception:
            return None  # plain execution raises it, or there is no type for it
        return tuple(types), Values(transformer, params, dumped, transformer.formats)

    def prepare(self, cursor: Any, statement: Statement, *, guarded: bool) -> None:
        self._wait(cursor, _prepare(cursor, statement, guarded))

    def run(
        self, cursor: Any, plain: Plain, query: Any, statement: Statement, values: Values
    ) -> None:
        if statement.plan_cache_mode:
            self._wait(cursor, _run_in_mode(cursor, query, statement, values))
        else:
            # As _wait() does: here each call counts.
            connection = cursor._conn
            try:
                with connection.lock:
                    connection.wait(_run(cursor, query, statement, values))
            except _NO_TRACEBACK as error:
                raise error.with_traceback(None)  # noqa: B904

    def close(self, cursor: Any, statement: Statement) -> None:
        self._wait(cursor, _close(cursor._conn, statement.name))

    def in_transaction(self, connection: Any) -> bool:
        return not connection.autocommit or connection.pgconn.transaction_status != _IDLE

    def is_idle(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == _IDLE)

    def sqlstate(self, error: BaseException) -> str:
        return getattr(error, "sqlstate", None) or ""

    def is_outdated_plan(self, error: BaseException) -> bool:
        return isinstance(error, psycopg.Error) and _is_outdated(error)

    def is_elsewhere(self, cursor: Any) -> bool:
        return bool(self._wait(cursor, _is_elsewhere(cursor._conn)))

    def keeps_apart(self, cursor: Any) -> bool:
        return bool(self._wait(cursor, _keeps_apart(cursor._conn)))

    def _wait(self, cursor: Any, steps: Any) -> Any:
        connection = cursor._conn
        try:
            with connection.lock:
                return connection.wait(steps)
        except _NO_TRACEBACK as error:
            raise error.with_traceback(None)  # noqa: B904


def _run(cursor: Any, query: Any, statement: Statement, values: Values) -> Iterator[Any]:
    """What psycopg's Cursor._execute_gen() does, line by line, less choosing."""
    _start(cursor, query, values)
    connection = cursor._conn
    yield from connection._start_query()
    cursor._query = Rendered(cursor, query, values)
    pgconn = connection.pgconn
    pgconn.send_query_prepared(statement.name, values.dumped, param_formats=values.formats)
    results = yield from generators.execute(pgconn)
    cursor._check_results(results)
    cursor._set_results(results)
    cursor._last_query = query


def _run_in_mode(cursor: Any, query: Any, statement: Statement, values: Values) -> Iterator[Any]:
    """The same with plan_cache_mode set, for this execution only: three round trips."""
    connection = cursor._conn
    yield from connection._start_query()
    pgconn = connection.pgconn
    alone = pgconn.transaction_status == _IDLE
    # In a transaction of its own, with which the setting ends: a pooler may give the session to
    # another client as soon as there is none.
    setting = b"BEGIN; SET LOCAL " if alone else b"SET "
    pgconn.send_query(setting + b"plan_cache_mode = " + statement.plan_cache_mode)
    for result in (yield from generators.execute(pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, encoding=pgconn._encoding)
    try:
        yield from _run(cursor, query, statement, values)
    finally:
        if pgconn.transaction_status == _IN_TRANSACTION:
            end = b"COMMIT" if alone else b"RESET plan_cache_mode"
            yield from connection._exec_command(end)
        elif pgconn.transaction_status == _FAILED and alone:
            yield from connection._exec_command(b"ROLLBACK")
        # A transaction of the user's that has failed takes the setting back with it.


def _start(cursor: Any, query: Any, values: Values) -> None:
    cursor._reset()
    if cursor._last_query is not query:
        cursor._last_query = None
        cursor._tx = values.transformer


def _prepare(cursor: Any, statement: Statement, guarded: bool) -> Iterator[Any]:
    connection = cursor._conn
    pgconn = connection.pgconn
    if not statement.sql.isascii() and pgconn._encoding != "utf-8":
        raise errors.FeatureNotSupported("the client_encoding is not UTF8")
    yield from connection._start_query()
    if guarded:
        yield from connection._exec_command(_SAVEPOINT)
    pgconn.send_prepare(statement.name, statement.sql, param_types=statement.oids)
    for result in (yield from generators.execute(pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            error = errors.error_from_result(result, encoding=pgconn._encoding)
            if guarded and (is_refusal(error.sqlstate or "") or _is_outdated(error)):
                yield from connection._exec_command(_UNDO)
                yield from connection._exec_command(_RELEASE)
            raise error
    if guarded:
        yield from connection._exec_command(_RELEASE)


def _is_outdated(error: psycopg.Error) -> bool:
    code, said = error.sqlstate or "", error.diag
    return is_outdated(code, said.source_function, said.message_primary)


def _is_elsewhere(connection: Any) -> Generator[Any, Any, bool]:
    result = yield from connection._exec_command(b"SELECT pg_catalog.pg_backend_pid()")
    return int(result.get_value(0, 0)) != int(connection.pgconn.backend_pid)


def _keeps_apart(connection: Any) -> Generator[Any, Any, bool]:
    # PgBouncer from 1.21 on gives statements other names on the server, and prepares them there as
    # they are needed: one that looks for its own name finds nothing. Otherwise it finds itself, or
    # is not found. No transaction of our own: in statement mode PgBouncer ends connections for it.
    pgconn = connection.pgconn
    probe = f"{NAME_PREFIX}probe_{secrets.token_hex(8)}".encode()
    asked = b"SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE name = '%b'" % probe
    pgconn.send_prepare(probe, asked)
    yield from _done(connection)
    pgconn.send_query_prepared(probe, ())
    try:
        result = yield from _done(connection)
    except errors.InvalidSqlStatementName:
        return False
    yield from _close(connection, probe)
    return int(result.get_value(0, 0)) == 0


def _done(connection: Any) -> Generator[Any, Any, Any]:
    """The result of what was sent. Raises the driver's exception."""
    pgconn = connection.pgconn
    for result in (yield from generators.execute(pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, encoding=pgconn._encoding)
    return result


def _close(connection: Any, name: bytes) -> Iterator[Any]:
    if capabilities.has_send_close_prepared():
        yield from connection._deallocate(name)  # which does not mind one that is not there
        return
    inside = connection.pgconn.transaction_status == _IN_TRANSACTION
    if inside:
        yield from connection._exec_command(_SAVEPOINT)
    try:
        yield from connection._deallocate(name)
    except errors.InvalidSqlStatementName:
        if inside:
            yield from connection._exec_command(_UNDO)
    if inside:
        yield from connection._exec_command(_RELEASE)


def _of_literal(oid: int, text: Any) -> int:
    """The type that the parser gives to a literal for which psycopg would take *oid*.

    Raises ValueError for a whole Decimal: it is written as an integer, and 7 / 2 is 3. To have a
    variant for each mixture would soon be too many; to declare it numeric changes results.
    """
    if oid in _INTEGERS:
        return _INT4 if len(text) <= 9 else _of_whole(text)
    if oid == _NUMERIC:
        if bytes(text).lstrip(b"-").isdigit() and _of_whole(text) != _NUMERIC:
            raise ValueError("a whole Decimal")
        return _NUMERIC
    if oid in _FLOATS:
        return _FLOAT8 if bytes(text[-1:]) in (b"n", b"f") else _NUMERIC  # nan, inf
    return _UNKNOWN  # text


def _of_whole(text: Any) -> int:
    value = int(text)
    size = value if value >= 0 else ~value
    return _INT4 if size < 2**31 else _INT8 if size < 2**63 else _NUMERIC


@cache
def _is_plain(cursor_class: Any) -> bool:
    """Whether its objects bind in the client, and execute() is psycopg's, watched or not."""
    return issubclass(cursor_class, psycopg.ClientCursor) and all(
        _home(cursor_class, name) for name in _PASSED_BY
    )


def _home(cursor_class: type[Any], name: str) -> bool:
    """Whether *name* is psycopg's own, ours aside."""
    for base in cursor_class.__mro__:
        if name in vars(base):
            module = getattr(vars(base)[name], "__module__", "")
            if not module.startswith(_OURS):
                return bool(module.startswith("psycopg."))
    return False
