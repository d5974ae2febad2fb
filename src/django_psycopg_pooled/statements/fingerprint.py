"""What statements have in common that differ only in values, lengths of lists and made-up names.

The text that comes out is kept, shown, logged and sent: no literal may survive. Where PostgreSQL's
own scanner might read on in another way (a backslash before a quote, by
standard_conforming_strings; a quote that nobody closes), the whole rest becomes one `?`.
Source: the pieces are those of src/backend/parser/scan.l; to put `...` in the place of lists is
pg_stat_statements' idea (PostgreSQL 18).
"""

import re

LONGEST = 2_000  # characters that are kept
_READ = 20_000  # characters that are read: bulk inserts of a megabyte end in their lists

_LETTER = r"A-Za-z_\x80-\U0010ffff"  # of an identifier; PostgreSQL takes any byte above 127
_SPACE = r"[ \t\n\r\f\v]"


def _nested(opening: str, inside: str, closing: str, depth: int = 4) -> str:
    """A pattern for *inside*, in brackets that may hold brackets, so many levels deep."""
    pattern = rf"{opening}(?:{inside})*+{closing}"
    for _ in range(depth - 1):
        pattern = rf"{opening}(?:{inside}|{pattern})*+{closing}"
    return pattern


_COMMENT = _nested(r"/\*", r"[^*/]++|\*(?!/)|/(?!\*)", r"\*/")
# Possessive throughout: to step back into a literal would be to read it in a second way, and time
# stays in proportion to the text's length.
_PIECE = re.compile(
    rf"""
      (?P<kept> (?:
          (?! [eEbBxXnN]' | [uU]&' ) [{_LETTER}] [{_LETTER}0-9$]*+
        | "(?: [^"]++ | "" )*+ "
        | \$ [0-9]++ (?! [{_LETTER}$] )
        | [^'"$%0-9./\-{_LETTER} \t\n\r\f\v]++
        # A placeholder's name may be anything to the driver; with a quote in it, reading stops.
        | %% | % (?! \( ) | %\( [A-Za-z_]\w*+ \) | % (?= \( [^()'"$/\-]*+ \) )
        | [ ] (?! [ \t\n\r\f\v/\-] )
        | \. (?! [0-9] ) | / (?! \* ) | - (?! - ) )++ )
    | (?P<gap> (?: {_SPACE}++ | --[^\n\r]*+ | {_COMMENT} )++ )
    | (?P<literal>
          \.?+ [0-9] (?: [eE][+-] [0-9] | [{_LETTER}0-9$.] )*+
        | [eE]' (?: [^'\\]++ | \\. | '' )*+ '
        | (?: [bBxXnN] | [uU]& )?+ ' (?: [^'\\]++ | \\[^'] | '' )*+ '
        | \$ (?P<tag> (?: [{_LETTER}] [{_LETTER}0-9]*+ )?+ ) \$ .*? \$ (?P=tag) \$ )
    | (?P<doubt> .++ )
    """,
    re.VERBOSE | re.DOTALL,
)


# ---- what comes next reads the text that the pieces leave: no quote in it but ", no comment

_WORD = r"(?:NULL|DEFAULT|TRUE|FALSE)\b"
_CAST = r"(?:\ ?::\ ?[A-Z_]\w*+(?:\[\])*+)*+"
_VALUE = rf"[+-]?(?:%s|%\([^()]*+\)s|\?|\$[0-9]++|{_WORD}|\.\.\.){_CAST}"
_TUPLE = rf"\(\ ?{_VALUE}(?:\ ?,\ ?{_VALUE})*+\ ?\){_CAST}"
_ITEM = rf"(?:{_VALUE}|{_TUPLE})"
_ITEMS = rf"\ ?{_ITEM}(?:\ ?,\ ?{_ITEM})*+\ ?"
_INSIDE = r"[^()\"]++|\"[^\"]*+\""
_ROW = _nested(r"\(", _INSIDE, r"\)")
_ROWS = rf"(?:{_INSIDE}|{_ROW})*+ \) (?: \ ?,\ ?{_ROW} )*+"  # the first one's ( comes before it
_FLAGS = re.VERBOSE | re.IGNORECASE | re.DOTALL | re.ASCII
# Each begins with its bracket, and looks back from there: a text has few of them.
_LIST = re.compile(
    rf"""
    [(\[] (?:
        (?: (?<=\bIN\ \() | (?<=\bIN\() ) {_ITEMS} \)
      | (?: (?<=\bVALUES\ \() | (?<=\bVALUES\() ) {_ROWS}
      | (?: (?<=\bARRAY\ \[) | (?<=\bARRAY\[) ) {_ITEMS} \] )
    """,
    _FLAGS,
)
# Where reading stopped in the middle of a list.
_OPEN_LIST = re.compile(
    rf"""
    \( (?:
        (?: (?<=\bIN\ \() | (?<=\bIN\() ) {_ITEMS} ,? [^()]*+ (?: \( [^()]*+ )?+ \Z
      | (?: (?<=\bVALUES\ \() | (?<=\bVALUES\() ) {_ROWS} \ ?,.*+ \Z )
    """,
    _FLAGS,
)
# Django's names for savepoints and for cursors on the server.
_PART = rf"[{_LETTER}0-9$]"
_MADE_UP = re.compile(
    rf"(?<!{_PART})(?:s[0-9]++_x[0-9]++(?!{_PART})|_django_curs_{_PART}++)", re.ASCII
)
_SET = re.compile(
    r"\A(SET\ (?:(?:SESSION|LOCAL)\ )?(?:ROLE\ |[\w.]++(?:\ ?=\ ?|\ TO\ ))).++", _FLAGS
)


def fingerprint(sql: str) -> str:
    """The text that stands for *sql* and all that are like it; at most 2,000 characters.

    Literals become `?`, placeholders stay. What differs in length or by chance becomes `...`: the
    values of IN, ARRAY, VALUES and SET, the names of savepoints and cursors. Comments go. Applied
    to its own result it changes nothing. Any text; time in proportion to its length.
    """
    text = _PIECE.sub(_without_literals, sql[:_READ]).strip(" ")
    if len(sql) > _READ:
        text = _OPEN_LIST.sub("(...)", text)
    before = None
    while text != before:  # what was shortened may be part of a list now
        before, text = text, _LIST.sub(_shortened, text)
    text = _SET.sub(r"\1...", text)
    if "_x" in text or "_django_curs_" in text:
        text = _MADE_UP.sub("...", text)
    return text if len(text) <= LONGEST else _cut(text)


def _without_literals(piece: re.Match[str]) -> str:
    kind = piece.lastgroup
    if kind == "kept":
        return piece.group()
    return " " if kind == "gap" else "?"


def _shortened(found: re.Match[str]) -> str:
    return "(...)" if found.group().startswith("(") else "[...]"


def _cut(text: str) -> str:
    text = text[: LONGEST - 3].rstrip(" ")
    if text.count('"') % 2:  # not within a name: half a quote would hide what follows
        text = text[: text.rindex('"')]
    return text + "..."
