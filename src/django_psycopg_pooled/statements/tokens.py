r"""SQL text as tokens, split where PostgreSQL's own scanner would split it.

Source: src/backend/parser/scan.l, for what begins, ends and continues a constant. Where the
scanner's answer depends on the session (a backslash before a quote, by
standard_conforming_strings) or on the driver (a placeholder's name with a quote in it), reading
stops: whoever judges the text must expect anything behind that place.
"""

import re
from typing import Literal, NamedTuple, cast

Kind = Literal["word", "quoted", "string", "constant", "number", "symbol"]


class Token(NamedTuple):
    """A piece of a statement that is neither space nor comment."""

    kind: Kind
    # Lower case if a word or a quoted identifier; of a string and a quoted identifier what is
    # between its quotes; of other constants (E'', U&'', $$) all that is written.
    text: str

    @property
    def is_name(self) -> bool:
        """Whether it may name a function or a schema."""
        return self.kind in ("word", "quoted")


class Reading(NamedTuple):
    """The statements of a text, the last of them up to where it could be read."""

    statements: list[list[Token]]
    complete: bool


_START = r"A-Za-z_\x80-\U0010ffff"  # of an identifier; PostgreSQL takes any byte above 127
# Possessive throughout: to step back into a constant would be to read it in a second way.
_TOKEN = re.compile(
    rf"""
      (?P<space> [ \t\n\r\f\v]++ | --[^\n\r]*+ )
    | (?P<comment> /\* )
    | (?P<doubt> [uU]&" )
    # A constant goes on after a quote, a line break and a quote, with E's backslashes.
    | (?P<constant>
          [eE]' (?: [^'\\] | \\. | '' | ' (?:[ \t\f\v] | --[^\n\r]*+)*+ [\n\r]
                  (?:[ \t\n\r\f\v] | --[^\n\r]*+[\n\r])*+ ' )*+ '
        | [uU]&' (?: [^'\\]++ | \\[^'] | '' )*+ '
        | \$ (?P<tag> (?:[{_START}] [{_START}0-9]*+)? ) \$ .*? \$ (?P=tag) \$ )
    | (?P<string> ' (?: [^'\\]++ | \\[^'] | '' )*+ ' )
    | (?P<doubt_in_constant> (?: [eE] | [uU]& )? ' | \$ (?:[{_START}] [{_START}0-9]*+)?+ \$ )
    | (?P<word> [{_START}] [{_START}0-9$]*+ )
    | (?P<quoted> "(?: [^"]++ | "" )*+ " )
    | (?P<doubt_in_name> " | %\( [^)]*? (?:['"$] | -- | /\*) [^)]*+ \) [a-z] )
    | (?P<number> [0-9]++ )
    | (?P<symbol> :: | := | => | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def read(sql: str) -> Reading:
    """Split *sql* into statements at each `;` and these into tokens. Never raises for any text.

    Also splits inside parentheses, as of a rule's actions: to judge a piece by itself is strict.
    """
    statement: list[Token] = []
    statements = [statement]
    position = 0
    while match := _TOKEN.match(sql, position):
        position = match.end()
        kind, text = match.lastgroup, match.group()
        if kind == "space":
            continue
        if kind == "comment":
            position = _end_of_comment(sql, position)
            if position < 0:
                return Reading(statements, False)
        elif text == ";":
            statement = []
            statements.append(statement)
        elif kind == "word":
            statement.append(Token("word", text.lower()))
        elif kind == "quoted":
            statement.append(Token("quoted", text[1:-1].replace('""', '"').lower()))
        elif kind == "string":
            statement.append(Token("string", text[1:-1].replace("''", "'")))
        elif kind in ("constant", "number", "symbol"):
            statement.append(Token(cast(Kind, kind), text))
        else:
            return Reading(statements, False)
    return Reading(statements, True)


def _end_of_comment(sql: str, position: int) -> int:
    """Where the comment ends whose inside begins at *position*; comments nest. -1: nowhere."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return -1
