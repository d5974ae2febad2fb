"""IN lists as one array each, so that lists of any length share one prepared statement.

`id IN (%s, %s, ...)` is another text for each length: with lists of 1 to 150 elements the prepared
statements push each other out, and preparing is a loss. `id = ANY(%s::int4[])` is one text.
"""

import datetime
import decimal
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.expressions import Col
from django.db.models.fields.related_lookups import RelatedIn
from django.db.models.lookups import In

from django_psycopg_pooled.integration.driver import BINDING
from django_psycopg_pooled.integration.identity import is_pooled

# Shorter lists stay: PostgreSQL's "auto" takes a generic plan for an array of 10 elements, so that
# shorter arrays would be planned anew each time.
SHORTEST = 8
NEEDS_ESCAPE = re.compile(r'(["\\])')

# A field's column type, without what is in parentheses, to the kind of its arrays.
KINDS = {
    "smallint": "int4",
    "integer": "int4",
    "serial": "int4",
    "smallserial": "int4",
    "bigint": "int8",
    "bigserial": "int8",
    "varchar": "text",
    "text": "text",
    "uuid": "uuid",
    "date": "date",
    "timestamp with time zone": "timestamptz",
    "numeric": "numeric",
}

Values = Sequence[Any]
Compiled = tuple[str, Iterable[Any]]


class ArrayText(str):
    """An array as PostgreSQL writes it; a plain string to the drivers.

    str(queryset.query) puts parameters in as they are: with quotes what it shows can be executed,
    as an IN list of numbers can.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return "'" + self.replace("'", "''") + "'"


def _int4(values: Values) -> tuple[str, str] | None:
    # As in an IN list: one element that is too large makes the others int8 as well.
    return _integers(values, 4) or _integers(values, 8)


def _int8(values: Values) -> tuple[str, str] | None:
    return _integers(values, 8)


def _integers(values: Values, size: int) -> tuple[str, str] | None:
    limit: int = 2 ** (8 * size - 1)
    if min(values) < -limit or max(values) >= limit:
        return None
    # What they are by themselves: psycopg 3's integers tell their type beside.
    return f"%s::int{size}[]", _unquoted(map(int.__repr__, values))


def _text(values: Values) -> tuple[str, str]:
    # Without a type, as strings in an IN list are: the column's own decides what equal means, also
    # where the table knows better than the model (citext, enum, character(n)).
    return "%s", _quoted(values)


def _uuid(values: Values) -> tuple[str, str]:
    return "%s::uuid[]", _quoted(map(str, values))


def _date(values: Values) -> tuple[str, str]:
    return "%s::date[]", _quoted(value.isoformat() for value in values)


def _timestamptz(values: Values) -> tuple[str, str] | None:
    if any(value.utcoffset() is None for value in values):
        return None  # drivers write it as a timestamp without time zone
    return "%s::timestamptz[]", _quoted(value.isoformat() for value in values)


def _numeric(values: Values) -> tuple[str, str]:
    return "%s::numeric[]", _unquoted(map(str, values))


def _unquoted(texts: Iterable[str]) -> str:
    return "{" + ",".join(texts) + "}"


def _quoted(texts: Iterable[str]) -> str:
    return '{"' + '","'.join(NEEDS_ESCAPE.sub(r"\\\1", text) for text in texts) + '"}'


# With psycopg 3 Django gives integers the type of their field.
INTEGERS = frozenset({int, *getattr(DatabaseOperations, "integerfield_type_map", {}).values()})
# The classes that elements may have, and no subclass: a driver may write that in its own way.
WRITERS: dict[str, tuple[frozenset[type], Callable[[Any], tuple[str, str] | None]]] = {
    "int4": (INTEGERS, _int4),
    "int8": (INTEGERS, _int8),
    "text": (frozenset({str}), _text),
    "uuid": (frozenset({uuid.UUID}), _uuid),
    "date": (frozenset({datetime.date}), _date),
    "timestamptz": (frozenset({datetime.datetime}), _timestamptz),
    "numeric": (frozenset({decimal.Decimal}), _numeric),
}


def as_array(node: Any, compiler: Any, connection: Any) -> Compiled | None:
    """The lookup *node*, an In or RelatedIn, with an array; None if it is to stay an IN list.

    Raises what the lookup itself raises, such as EmptyResultSet.
    """
    column, values = node.lhs, node.rhs
    if (
        type(column) is not Col
        or column.alias is None  # a CHECK constraint's or an index's, which are to stay as they are
        or type(values) is not list
        or len(values) < SHORTEST
        or node.bilateral_transforms
        or hasattr(node, "as_postgresql")
    ):
        return None
    kind = KINDS.get((column.target.db_type(connection) or "").partition("(")[0])
    if kind is None:
        return None
    # Django's own preparation of the values: without None and duplicates, as the field means them.
    placeholders, params = node.process_rhs(compiler, connection)
    count = len(params)
    if count < SHORTEST or placeholders != "(" + "%s, " * (count - 1) + "%s)":
        return None
    classes, write = WRITERS[kind]
    if not classes.issuperset(map(type, params)):
        return None
    written = write(params)
    if written is None:
        return None
    placeholder, text = written
    left, left_params = node.process_lhs(compiler, connection)
    # A list or a tuple, whichever this version of Django has.
    together = type(left_params)([*left_params, ArrayText(text)])
    return f"{left} = ANY({placeholder})", together


class ArrayCompiler:
    """Mixed in before one of a backend's compilers; lives for one query."""

    connection: Any

    def compile(self, node: Any) -> Compiled:
        if type(node) is In or type(node) is RelatedIn:
            compiled = as_array(node, self, self.connection)
            if compiled is not None:
                return compiled
        stock: Compiled = super().compile(node)  # type: ignore[misc]
        return stock


@cache
def with_arrays(compiler_class: type[Any]) -> type[Any]:
    """A subclass of *compiler_class*, made once, that writes IN lists as arrays."""
    return type(compiler_class.__name__, (ArrayCompiler, compiler_class), {})


def prepares(connection: Any) -> bool:
    """Whether statements may be prepared, by the settings alone: no pool is made for this.

    What is wrong in them is said when the connection is used.
    """
    settings = connection.settings_dict
    if not is_pooled(connection.alias, settings):
        return False
    options = settings["OPTIONS"].get("pool")
    if not isinstance(options, Mapping):
        options = {}
    mode = options.get("prepare")
    return bool(BINDING.by_default and not options.get("pooler") if mode is None else mode)


class ArrayOperations:
    """Mixed in before a PostgreSQL DatabaseOperations: what is compiled for it has arrays."""

    connection: Any

    def compiler(self, compiler_name: str) -> type[Any]:
        """The compiler of that name; stock's own if nothing is prepared."""
        stock: Any = super().compiler(compiler_name)  # type: ignore[misc]
        compiler: type[Any] = with_arrays(stock) if prepares(self.connection) else stock
        return compiler
