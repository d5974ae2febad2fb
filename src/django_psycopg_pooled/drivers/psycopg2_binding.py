"""Prepared statements by SQL's PREPARE and EXECUTE, all that psycopg2 has; see drivers.preparing.

EXECUTE gets the literals that psycopg2 makes of the parameters, as plain execution does. PREPARE
declares the types that the parser would give them; with unknown ones PostgreSQL guesses, and some
results differ without an error.
"""

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import _psycopg, extensions, extras
from psycopg2._range import NumberRangeAdapter, RangeAdapter

from django_psycopg_pooled.drivers.preparing import (
    Plain,
    Types,
    is_outdated,
    is_refusal,
    numbered,
)
from django_psycopg_pooled.drivers.showing import ShowsStatements

_OURS = "django_psycopg_pooled."
_IDLE, _IN_TRANSACTION = 0, 2
_NO_SUCH_STATEMENT = "26000"

_SAVEPOINT = "SAVEPOINT _dpp_trial"
_RELEASE = "RELEASE SAVEPOINT _dpp_trial"
_UNDO = "ROLLBACK TO SAVEPOINT _dpp_trial"

UNKNOWN, INT4, INT8, NUMERIC, FLOAT8 = "unknown", "int4", "int8", "numeric", "float8"
# A quoted constant, alone or with a cast by one word; nothing behind it.
_CONSTANT = re.compile(rb"(?s:'(?:[^']|'')*+'|E'(?:[^'\\]|''|\\.)*+')(?:::([a-z0-9_]+))?\Z")
_find_adapter: Callable[[Any], Any] = extensions.adapt


class Statement(NamedTuple):
    """A prepared statement, as SQL."""

    name: str
    prepare: str
    execute: bytes
    plan_cache_mode: str


class Values(NamedTuple):
    """The parameters of one execution."""

    literals: list[bytes]
    params: Any


class Rendered:
    """What a cursor shows instead of an EXECUTE, until it executes something else."""

    __slots__ = ("_params", "_query", "executed")

    def __init__(self, executed: bytes, query: Any, params: Any) -> None:
        self.executed = executed
        self._query = query
        self._params = params

    def text(self, cursor: Any) -> Any:
        """The text with its literals, as plain execution would have sent it."""
        if cursor.closed:
            return self._query  # psycopg2 would have kept the literals
        return extensions.cursor.mogrify(cursor, self._query, self._params)


class Psycopg2Binding:
    """Stateless; see drivers.preparing.Binding for what each method promises."""

    # An EXECUTE takes its snapshot before it waits for a lock: after a migration that rewrites the
    # table meanwhile it finds no rows. What is sent whole takes it afterwards.
    by_default = False
    unknown = UNKNOWN
    unavailable = ""

    def statement(self, name: str, sql: str, types: Types, plan_cache_mode: str) -> Statement:
        prepare = f"PREPARE {name} ({', '.join(types)}) AS {numbered(sql)}"
        execute = f"EXECUTE {name} ("
        if plan_cache_mode:
            # In the same message: outside a transaction it ends with that.
            execute = f"SET LOCAL plan_cache_mode = {plan_cache_mode}; {execute}"
        return Statement(name, prepare, execute.encode(), plan_cache_mode)

    def bind(self, cursor: Any, query: Any, params: Any) -> tuple[Types, Values] | None:
        kind = type(params)
        if not params or (kind is not tuple and kind is not list):
            return None
        connection = cursor.connection
        if (
            cursor.closed
            or cursor.name is not None
            or not _is_plain(cursor.__class__)
            or connection.get_transaction_status() not in (_IDLE, _IN_TRANSACTION)
        ):
            return None
        types, literals = [], []
        try:
            for value in params:
                literal, its_type = _literal(value, connection)
                if its_type == "":
                    return None
                types.append(its_type)
                literals.append(literal)
        except Exception:
            return None  # plain execution raises it
        return tuple(types), Values(literals, params)

    def prepare(self, cursor: Any, statement: Statement, *, guarded: bool) -> None:
        with _cursor_of_our_own(cursor) as own:
            if guarded:
                own.execute(_SAVEPOINT)
            try:
                own.execute(statement.prepare)
            except psycopg2.Error as error:
                code = self.sqlstate(error)
                if guarded and (is_refusal(code) or self.is_outdated_plan(error)):
                    own.execute(_UNDO)
                    own.execute(_RELEASE)
                raise
            if guarded:
                own.execute(_RELEASE)

    def run(
        self, cursor: Any, plain: Plain, query: Any, statement: Statement, values: Values
    ) -> None:
        text = statement.execute + b", ".join(values.literals) + b")"
        cursor._pool_query = Rendered(text, query, values.params)
        plain(text)
        if statement.plan_cache_mode and self.in_transaction(cursor.connection):
            with _cursor_of_our_own(cursor) as own:
                own.execute("SET LOCAL plan_cache_mode TO DEFAULT")

    def close(self, cursor: Any, statement: Statement) -> None:
        with _cursor_of_our_own(cursor) as own:
            inside = self.in_transaction(cursor.connection)
            if inside:
                own.execute(_SAVEPOINT)
            try:
                own.execute(f"DEALLOCATE {statement.name}")
            except psycopg2.Error as error:
                if self.sqlstate(error) != _NO_SUCH_STATEMENT:
                    raise
                if inside:
                    own.execute(_UNDO)
            if inside:
                own.execute(_RELEASE)

    def in_transaction(self, connection: Any) -> bool:
        return not connection.autocommit or connection.get_transaction_status() != _IDLE

    def is_idle(self, connection: Any) -> bool:
        return not connection.closed and connection.get_transaction_status() == _IDLE

    def sqlstate(self, error: BaseException) -> str:
        return getattr(error, "pgcode", None) or ""

    def is_outdated_plan(self, error: BaseException) -> bool:
        if not isinstance(error, psycopg2.Error):
            return False
        said = error.diag
        return is_outdated(self.sqlstate(error), said.source_function, said.message_primary)

    def is_elsewhere(self, cursor: Any) -> bool:
        with _cursor_of_our_own(cursor) as own:
            own.execute("SELECT pg_catalog.pg_backend_pid()")
            return bool(own.fetchone()[0] != cursor.connection.info.backend_pid)

    def keeps_apart(self, cursor: Any) -> bool:
        return False  # no pooler reads SQL


def _cursor_of_our_own(cursor: Any) -> Any:
    """Another one on its connection, which nobody watches: the user's stays as it is."""
    return extensions.connection.cursor(cursor.connection, cursor_factory=extensions.cursor)


@cache
def _is_plain(cursor_class: Any) -> bool:
    """Whether its objects can show what was executed, and execute() is psycopg2's."""
    home = next(
        base.__module__
        for base in cursor_class.__mro__
        if "execute" in vars(base) and not base.__module__.startswith(_OURS)
    )
    return issubclass(cursor_class, ShowsStatements) and home.startswith("psycopg2")


def _literal(value: Any, connection: Any) -> tuple[bytes, str | None]:
    """What psycopg2 writes for *value*, and the type that the parser gives that.

    None for NULL; empty if the type cannot be told, or would change from value to value.
    """
    if value is None:
        return b"NULL", None
    adapter = _find_adapter(value)
    kind = type(adapter)
    if kind not in _WITHOUT_CONNECTION and hasattr(adapter, "prepare"):
        adapter.prepare(connection)
    literal = adapter.getquoted()
    if isinstance(literal, str):
        literal = literal.encode("latin-1")  # as psycopg2 does
    rule = _RULES.get(kind, _of_any)
    return literal, rule if isinstance(rule, str) else rule(adapter, literal)


def _of_integer(_: Any, literal: bytes) -> str:
    number = int(literal)
    if -(2**31) <= number < 2**31:
        return INT4
    return INT8 if -(2**63) <= number < 2**63 else NUMERIC


def _of_float(_: Any, literal: bytes) -> str:
    return FLOAT8 if literal.endswith(b"::float") else NUMERIC


def _of_decimal(_: Any, literal: bytes) -> str:
    # A whole one is written as an integer, and 7 / 2 is 3. To have a variant for each mixture would
    # soon be too many; to declare it numeric changes results.
    return NUMERIC if b"." in literal or b"E" in literal or b"::" in literal else ""


def _of_cast(_: Any, literal: bytes) -> str:
    return literal.rpartition(b"::")[2].decode()


def _of_any(adapter: Any, literal: bytes) -> str:
    if isinstance(adapter, RangeAdapter) and adapter.name is not None:
        return str(adapter.name)
    constant = _CONSTANT.match(literal)
    if constant is None:
        return ""  # an expression
    return constant[1].decode() if constant[1] else UNKNOWN


def _of_list(adapter: Any, literal: bytes) -> str:
    if not literal.startswith(b"ARRAY["):
        return UNKNOWN  # '{}', '{NULL}'
    element = _of_elements(adapter.adapted)
    return element and f"{element}[]"


def _of_elements(values: Iterable[Any]) -> str:
    """The type that ARRAY[...] finds for all of its elements."""
    kinds = set(map(type, values))
    kinds.discard(type(None))
    if kinds == {int}:
        present = [value for value in values if value is not None]
        wide = {_of_integer(None, b"%d" % number) for number in (min(present), max(present))}
    elif kinds == {str}:
        return "text"
    elif kinds == {list}:
        if not all(values):
            return ""
        wide = {_of_elements(value) for value in values}
    else:
        # A decimal here is one of many: if all are whole they are integers, as written.
        wide = {_of_element(value) for value in values if value is not None}
    if wide <= {INT4, INT8, NUMERIC}:
        return next(kind for kind in (NUMERIC, INT8, INT4) if kind in wide)
    if wide == {UNKNOWN}:
        return "text"
    return wide.pop() if len(wide) == 1 else ""


def _of_element(value: Any) -> str:
    if type(value) is Decimal:
        return NUMERIC if not _is_whole(value) else ""
    return _literal(value, None)[1] or ""


def _is_whole(value: Decimal) -> bool:
    return str(value).lstrip("-").isdigit()


_Moment = type(psycopg2.Date(2000, 1, 1))
# To ask whether these want it costs more than all else that is done with one.
_WITHOUT_CONNECTION = frozenset({
    extensions.Int, extensions.Float, extensions.Boolean, _psycopg.Decimal, _Moment
})  # fmt: skip
_RULES: dict[type[Any], str | Callable[[Any, bytes], str]] = {
    extensions.QuotedString: UNKNOWN,
    extensions.Int: _of_integer,
    extensions.Float: _of_float,
    extensions.Boolean: "bool",
    extensions.Binary: "bytea",
    _psycopg.Decimal: _of_decimal,
    _Moment: _of_cast,
    _psycopg.List: _of_list,
    NumberRangeAdapter: UNKNOWN,
    extras.HstoreAdapter: "hstore",
}
