"""What a statement does to its session, read from its text.

In doubt the answer is more, not less: to clean a session in vain costs a round trip, to think a
dirty one clean shows one user what another has left. Not seen is what the text does not say: what
the user's own functions, triggers, rules and views do, and the values of parameters.

Source: HikariCP's dirty bits, and Kääriäinen's sketch of 2012, which noted dirtied sessions.
"""

import re
from collections.abc import Callable
from itertools import pairwise

from django_psycopg_pooled.session import ANYTHING, UNDONE_BY_ROLLBACK, Effect
from django_psycopg_pooled.statements.calls import (
    ANY_SETTING,
    CLEAN,
    block,
    call,
    is_suspect,
    mentions_temporary_schema,
)
from django_psycopg_pooled.statements.tokens import Token, read

# What statements that do nothing to the session, but for what they call, begin with.
_HARMLESS_START = re.compile(
    r"(?:[ \t\n\r\f\v(]++|--[^\n\r]*+[\n\r]|/\*[^*/]*+\*/)*+"
    r"(?:(select|with|values|table)|insert|update|delete|merge|savepoint|release|rollback\s++to)\b",
    re.IGNORECASE,
).match


def effects_of(sql: str) -> Effect:
    """What *sql*, one statement or more, may do to the session. Any thread; does not block.

    Worst case: grows with the length. 1,400 characters of an ordinary SELECT take 3 us, and 250 us
    if something in it asks for a closer look.
    """
    if _is_ordinary(sql):
        return CLEAN
    statements, complete = read(sql)
    effects = CLEAN if complete else ANYTHING
    for statement in statements:
        effects |= _effects(statement)
    return effects


def _is_ordinary(sql: str) -> bool:
    """Whether a look at the raw text is enough, as nothing is in it that has an effect.

    Quotes and comments need no thought here: what is not in the text at all is not hidden either.
    """
    start = _HARMLESS_START(sql)
    if start is None or ";" in sql:
        return False
    lower = sql.lower()
    if is_suspect(lower) or ("&" in sql and "u&" in lower):
        return False
    # SELECT ... INTO TEMP, which the other statements cannot contain.
    return not (start.lastindex and "temp" in lower and "into" in lower)


def _effects(statement: list[Token]) -> Effect:
    if not statement:
        return CLEAN
    words = [t.text if t.kind in ("word", "symbol") else "" for t in statement]
    return _by_first_word(statement, words) | _by_what_is_in_it(statement, words)


def _by_what_is_in_it(statement: list[Token], words: list[str]) -> Effect:
    """Calls and names that have their effect wherever they stand."""
    effects = CLEAN
    for i, token in enumerate(statement):
        if not token.is_name:
            continue
        if words[i + 1 : i + 2] == ["("]:
            effects |= call(statement, i)
        if _TEMPORARY_SCHEMA(token.text) or _is_temporary(words, i):
            effects |= Effect.TEMPORARY
        elif token.text == "pg_settings" and "update" in words:
            effects |= ANY_SETTING  # a rule makes it a set_config(), of any name
    return effects


_TEMPORARY_SCHEMA = re.compile(r"pg_temp(?:_[0-9]+)?\Z").match
_BEFORE_TEMPORARY = frozenset({"create", "replace", "local", "global", "into"})


def _is_temporary(words: list[str], i: int) -> bool:
    """Whether the word makes what is created here temporary: CREATE TEMP, SELECT INTO TEMP."""
    if i == 0 or words[i] not in ("temp", "temporary") or words[i - 1] not in _BEFORE_TEMPORARY:
        return False
    # There, it is a table of that name; neither can contain a SELECT INTO.
    return not (words[i - 1] == "into" and words[0] in ("insert", "merge"))


def _by_first_word(statement: list[Token], words: list[str]) -> Effect:
    first = next((i for i, word in enumerate(words) if word != "("), len(words))
    if first == len(words):
        return CLEAN
    word = words[first]
    if word in _CLEAN_WORDS:
        return CLEAN
    rule = _RULES.get(word)
    return rule(statement[first:], words[first:]) if rule else _WORDS.get(word, ANYTHING)


def _set(statement: list[Token], words: list[str]) -> Effect:
    """SET and RESET. A keyword before a dot is the first half of a setting's name."""
    names = [t.text if t.is_name else "" for t in statement]
    rest = 1
    effects = Effect.TEMPORARY if mentions_temporary_schema(statement) else CLEAN
    if "seed" in names[1:3]:
        effects |= Effect.SEED  # SET LOCAL, too
    if words[0] == "set" and words[1:2] in _ENDING_WITH_TRANSACTION and _is_keyword(words, 1):
        return effects
    if words[1:2] == ["session"] and _is_keyword(words, 1) and words[2] != "authorization":
        rest = 2
    if words[rest : rest + 2] == ["session", "authorization"]:
        return effects | Effect.ROLE
    if names[rest : rest + 1] in (["role"], ["session_authorization"]):
        return effects | (Effect.SETTINGS if words[rest + 1 : rest + 2] == ["."] else Effect.ROLE)
    return effects | Effect.SETTINGS


def _is_keyword(words: list[str], i: int) -> bool:
    return i + 1 < len(words) and words[i + 1] not in (".", "=", "to")


def _do(statement: list[Token], _: list[str]) -> Effect:
    return block(statement)


def _discard(_: list[Token], words: list[str]) -> Effect:
    what = words[1] if len(words) > 1 else ""
    if what in ("temp", "temporary", "sequences"):
        return CLEAN
    return {"plans": Effect.LASTING, "all": Effect.LASTING | ANY_SETTING}.get(what, ANYTHING)


def _deallocate(_: list[Token], words: list[str]) -> Effect:
    return Effect.PREPARED | (Effect.LASTING if "all" in words else CLEAN)


def _prepare(statement: list[Token], words: list[str]) -> Effect:
    if words[1:2] == ["transaction"] and words[2:3] not in (["as"], ["("]):
        return Effect.ENDS_TRANSACTION
    if "as" not in words[2:]:
        return ANYTHING
    body = statement[words.index("as", 2) + 1 :]
    effects = _effects(body)
    # A rollback takes these off the account, but not the prepared statement; a later EXECUTE, whose
    # text does not tell, has them once more. So the session of such a rare one is given up.
    given_up = Effect.LASTING if effects & UNDONE_BY_ROLLBACK else CLEAN
    return effects | Effect.PREPARED | given_up


def _declare(_: list[Token], words: list[str]) -> Effect:
    held = any(pair == ("with", "hold") for pair in pairwise(words))
    return Effect.CURSORS if held else CLEAN


def _explain(statement: list[Token], words: list[str]) -> Effect:
    """As the statement that it explains: ANALYZE runs it."""
    start = 1
    if words[1:2] == ["("] and words[2:3] != ["("] and words[2:3] not in _QUERY_STARTS:
        start = words.index(")", 1) + 1 if ")" in words else len(words)
    while words[start : start + 1] in (["analyze"], ["analyse"], ["verbose"]):
        start += 1
    if start == len(words):
        return CLEAN
    return _by_first_word(statement[start:], words[start:])


def _rollback(_: list[Token], words: list[str]) -> Effect:
    where = 2 if words[1:2] in (["work"], ["transaction"]) else 1
    return CLEAN if words[where : where + 1] == ["to"] else Effect.ENDS_TRANSACTION


def _start(_: list[Token], words: list[str]) -> Effect:
    return CLEAN if words[1:2] == ["transaction"] else ANYTHING


_ENDING_WITH_TRANSACTION = (["local"], ["transaction"], ["constraints"])
_QUERY_STARTS = (["select"], ["values"], ["with"], ["table"])
_CLEAN_WORDS = frozenset({
    "select", "insert", "update", "delete", "merge", "with", "values", "table", "copy",
    "create", "alter", "drop", "truncate", "comment", "grant", "revoke", "reassign", "security",
    "begin", "savepoint", "release", "lock", "execute", "fetch", "move", "close", "show",
    "notify", "unlisten", "analyze", "analyse", "checkpoint", "cluster", "import", "refresh",
    "reindex", "vacuum",
})  # fmt: skip
_WORDS = {
    "listen": Effect.CHANNELS,
    "load": Effect.LASTING,
    "commit": Effect.ENDS_TRANSACTION,
    "end": Effect.ENDS_TRANSACTION,
    "abort": Effect.ENDS_TRANSACTION,
}
_RULES: dict[str, Callable[[list[Token], list[str]], Effect]] = {
    "set": _set,
    "reset": _set,
    "do": _do,
    "discard": _discard,
    "deallocate": _deallocate,
    "prepare": _prepare,
    "declare": _declare,
    "explain": _explain,
    "rollback": _rollback,
    "start": _start,
}
