"""Text that fits a terminal; elsewhere nothing is cut, for programs look for what it says."""

import textwrap
from collections.abc import Sequence

CUT = ".."
PAGE = 80  # columns of sentences where there is no terminal
NARROWEST = 6  # what is left of a cell that may be cut, and of a line of sentences

Width = int | None  # a terminal's columns; None without one


def printable(text: str) -> str:
    """*text* without what would command a terminal: it may be a stranger's."""
    return "".join(c if c.isprintable() else "?" for c in text)


def cut(text: str, width: Width, *, keep_end: bool = False) -> str:
    """*text*, or as much of it as fits; of a path the end says more."""
    if width is None or len(text) <= width:
        return text
    room = width - len(CUT)
    if room < 1:
        return CUT[:width]
    return CUT + text[-room:] if keep_end else text[:room] + CUT


def sentence(text: str) -> str:
    """*text* with a period, if it has none."""
    return text if text.endswith(".") else f"{text}."


def table(rows: Sequence[Sequence[str]], width: Width, *, left: Sequence[int]) -> list[str]:
    """Rows of one length as lines of at most *width* columns; the first row is the header.

    left   the columns that are aligned to the left; these are cut first where there is too little
           room, and then the whole line
    """
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    excess = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
    while excess > 0:
        widest = max(left, key=lambda i: widths[i])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    return [cut(_aligned(row, widths, left), width) for row in clean]


def _aligned(cells: Sequence[str], widths: Sequence[int], left: Sequence[int]) -> str:
    return "  ".join(
        cut(cell, size).ljust(size) if i in left else cell.rjust(size)
        for i, (cell, size) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def wrapped(
    text: str, width: Width, *, first: str = "", then: str = "  ", most: int | None = None
) -> list[str]:
    """*text* in lines of at most *width* columns, if that is not less than NARROWEST.

    most   so many lines on a terminal; the last one shows that there is more
    """
    return textwrap.wrap(
        printable(text),
        PAGE if width is None else max(width, NARROWEST),
        initial_indent=first,
        subsequent_indent=then,
        max_lines=None if width is None else most,
        placeholder=f" {CUT}",
    )
