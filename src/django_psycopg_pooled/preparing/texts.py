"""Which texts can be prepared at all, judged before anything is sent."""

import re
from itertools import pairwise

from django_psycopg_pooled.statements.tokens import read

LONGEST = 20_000  # characters; the plan of a longer text takes megabytes on each connection

_START = re.compile(r"[\s(]*+(?:select|insert|update|delete|with|values|merge)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\$[0-9]")
_PAIR_OR_PLACE = re.compile("%[%s]")
# Django writes the page into the text, so that each page is another text.
_PAGE = re.compile(r"\boffset [0-9]+\s*(?:\)|\bfor\b|$)", re.IGNORECASE)
# PREPARE reads constants: 'now' would stay that moment, and '2020-01-01 12:00' in the time zone
# that was set.
_MOMENT = re.compile(
    r"""\b(?:now|today|tomorrow|yesterday)\b
      | [0-9]\s*[-:/]\s*[0-9] | [0-9]\.[0-9]+\.[0-9] | [0-9]{8}
      | \b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[\s,.-]*[0-9]""",
    re.IGNORECASE | re.VERBOSE,
)
# $1 beside a letter or a digit would be part of a name, or of another number.
_GLUED = re.compile(r"(?<!%)(?:%%)*+(?:[\w$]%s|%s(?:[\w$]|%s))")


def placeholders(sql: str) -> int:
    """How many parameters *sql* takes, with the driver's %s."""
    return sum(place == "%s" for place in _PAIR_OR_PLACE.findall(sql))


def objection(sql: str, *, registered: bool) -> str:
    """Why *sql* is not to be prepared; empty if nothing speaks against it. Takes 5 us."""
    if not _START.match(sql):
        return "it is no SELECT, INSERT, UPDATE, DELETE, WITH, VALUES or MERGE"
    if not placeholders(sql):
        return "it has no parameters"
    if len(sql) > LONGEST:
        return f"it is longer than {LONGEST:,} characters"
    if ";" in sql:
        return "it has a ';': of several statements PREPARE runs all but the first at once"
    if ("$" in sql and _NUMBER.search(sql)) or "%" in _PAIR_OR_PLACE.sub("", sql):
        return "it has a '$1', or placeholders other than %s"
    if not registered and ("OFFSET" in sql or "offset" in sql) and _PAGE.search(sql):
        return "it names its page by OFFSET, so that each page is another text"
    return ""


def closer_objection(sql: str) -> str:
    """The same, of what takes reading: 250 us for a long text."""
    statements, complete = read(sql)
    if not complete or len(statements) != 1:
        return "its quotes cannot be read without knowing the session's settings"
    [tokens] = statements
    outside = sum(
        first.text == "%" and first.kind == "symbol" and second.text == "s"
        for first, second in pairwise(tokens)
    )
    # A driver that binds in the client also replaces a %s inside of quotes, where $1 is text.
    if outside != placeholders(sql):
        return "a placeholder stands inside of quotes, a comment or an operator"
    if _GLUED.search(sql):
        return "a placeholder touches a name or a number"
    if any(t.kind in ("string", "constant") and _MOMENT.search(t.text) for t in tokens):
        return "it has a moment in quotes, which would be read once and for all"
    return ""
