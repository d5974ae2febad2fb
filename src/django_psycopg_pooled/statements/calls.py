"""Function calls that leave something in the session.

Only PostgreSQL's own functions and those of its contrib modules are known. What a function, trigger
or rule of the user's does inside cannot be read from the statement that starts it.
"""

import re
from collections.abc import Iterator, Sequence

from django_psycopg_pooled.session import ANYTHING, Effect
from django_psycopg_pooled.statements.tokens import Token

CLEAN = Effect(0)
ANY_SETTING = Effect.SETTINGS | Effect.ROLE

# Each is a name as PostgreSQL folds it. Transaction-level locks (..._xact_...) end by themselves.
_CALLS = {
    "pg_advisory_lock": Effect.LOCKS,
    "pg_advisory_lock_shared": Effect.LOCKS,
    "pg_try_advisory_lock": Effect.LOCKS,
    "pg_try_advisory_lock_shared": Effect.LOCKS,
    "pg_advisory_unlock": Effect.LOCKS,
    "pg_advisory_unlock_shared": Effect.LOCKS,
    "pg_advisory_unlock_all": Effect.LOCKS,
    "setseed": Effect.SEED,
    "set_limit": Effect.SETTINGS,  # pg_trgm's, for pg_trgm.similarity_threshold
    "dblink_connect": Effect.LASTING,
    "dblink_connect_u": Effect.LASTING,
    "dblink_open": Effect.LASTING,
    "pg_replication_origin_session_setup": Effect.LASTING,
    "pg_replication_origin_session_reset": Effect.LASTING,
    # A temporary slot and a backup end with the session, and with nothing else.
    "pg_create_logical_replication_slot": Effect.LASTING,
    "pg_create_physical_replication_slot": Effect.LASTING,
    "pg_copy_logical_replication_slot": Effect.LASTING,
    "pg_copy_physical_replication_slot": Effect.LASTING,
    "pg_backup_start": Effect.LASTING,
    "pg_start_backup": Effect.LASTING,
}
# Functions that run a text which they are given; it may call functions, but be no SET.
_RUNS_TEXT = re.compile(r"query_to_xml|ts_stat$|ts_rewrite$|crosstab")

# Occurs in every lower-case text that names one of the above or of the things that effects.py
# looks for beside first words and INTO TEMP. Begins with a letter of its own, as only then `re` is
# fast: 1 us for 1,400 characters, where alternatives at the start take 11.
SUSPECT = re.compile(
    r"_(?:config(?<=set_config)|advisory_|limit(?<=set_limit)|replication_|backup_start"
    r"|backup(?<=start_backup)|connect(?<=dblink_connect)|open(?<=dblink_open)"
    r"|temp(?<=pg_temp)|settings(?<=pg_settings))"
)

_TRUE_STRINGS = frozenset({"t", "true", "y", "yes", "on", "1"})
_CASTS: tuple[list[str], ...] = (["::", "bool"], ["::", "boolean"])


_LASTING = re.compile(
    r"\bload\b|\bdiscard\s+(?:all|plans)\b|\bdeallocate\s+(?:prepare\s+)?all\b|"
    + "|".join(name for name, effect in _CALLS.items() if effect is Effect.LASTING)
)


def is_suspect(text: str) -> bool:
    """Whether *text*, in lower case, may name something that leaves a trace."""
    return "setseed" in text or SUSPECT.search(text) is not None


def block(tokens: Sequence[Token]) -> Effect:
    """The effects of a DO: anything, as what it runs may be put together from pieces."""
    named = any(_LASTING.search(text.lower()) for text in _constants(tokens))
    return ANYTHING | (Effect.LASTING if named else CLEAN)


def call(tokens: Sequence[Token], position: int) -> Effect:
    """The effects of calling the function named at *position*; its `(` follows."""
    name = tokens[position].text
    if name == "set_config":
        return _set_config(_arguments(tokens, position + 1))
    if _RUNS_TEXT.match(name):
        return ANYTHING if _has_suspect_constant(tokens) else CLEAN
    return _CALLS.get(name, CLEAN)


def mentions_temporary_schema(tokens: Sequence[Token]) -> bool:
    """Whether a constant does, as a search_path may; SQL that is named in strings runs nowhere."""
    return any("pg_temp" in text.lower() for text in _constants(tokens))


def _has_suspect_constant(tokens: Sequence[Token]) -> bool:
    return any(is_suspect(text.lower()) for text in _constants(tokens))


def _constants(tokens: Sequence[Token]) -> Iterator[str]:
    return (token.text for token in tokens if token.kind in ("string", "constant"))


def _arguments(tokens: Sequence[Token], position: int) -> list[list[Token]]:
    """The tokens of each argument behind the `(`; none if it is not closed or one is named."""
    depth = 0
    arguments: list[list[Token]] = [[]]
    for token in tokens[position:]:
        text = token.text if token.kind == "symbol" else ""
        depth += text in ("(", "[")
        depth -= text in (")", "]")
        if depth == 0:
            return arguments
        if depth == 1 and text == ",":
            arguments.append([])
        elif text in ("=>", ":="):
            return []
        elif depth > 1 or text != "(":
            arguments[-1].append(token)
    return []


def _set_config(arguments: list[list[Token]]) -> Effect:
    if len(arguments) != 3:
        return ANY_SETTING
    name, value, is_local = arguments
    # A search_path that begins with pg_temp sends what is created next there, also a local one.
    effects = Effect.TEMPORARY if mentions_temporary_schema(value) else CLEAN
    if any(text.lower() == "seed" for text in _constants(name)):
        effects |= Effect.SEED  # also a local one
    if _is_true(is_local):
        return effects
    plain = len(name) == 1 and name[0].kind == "string" and "\\" not in name[0].text
    if not plain or name[0].text.lower() in ("role", "session_authorization"):
        return effects | ANY_SETTING
    return effects | Effect.SETTINGS


def _is_true(argument: list[Token]) -> bool:
    """Whether it is a literal of true, not an expression that may come out so."""
    cast = [t.text for t in argument[1:]]
    if not argument or (cast and cast not in _CASTS):
        return False
    value = argument[0]
    if value.kind == "string":
        return value.text.lower() in _TRUE_STRINGS
    return value == ("word", "true") or (value == ("number", "1") and bool(cast))
