"""A table of words: the columns beside the first are equally wide, and cells are folded."""

import itertools
import textwrap
from collections.abc import Sequence

from benchmarks.tables import WIDTH, Column, Table, fold

FIRST = 22
GAP = 2
WIDEST = 36


class Grid(Table):
    """As a Table, with words to read instead of figures to compare."""

    def lines(self) -> list[str]:
        """The grid as text, an empty line after each row that takes several."""
        others = len(self.columns) - 1
        width = min(WIDEST, (WIDTH - FIRST) // max(others, 1) - GAP)
        rows = [[column.title for column in self.columns]]
        rows += [[column.show(row) for column in self.columns] for row in self.rows]
        folded = [_fold_row(cells, [FIRST, *[width] * others]) for cells in rows]
        return [*fold(self.title), *itertools.chain.from_iterable(folded)]


def columns(what: str, names: Sequence[str]) -> list[Column]:
    """The first column, titled *what*, and one a contender."""
    return [Column("what", what), *(Column(name, name.replace("+", " + ")) for name in names)]


def _fold_row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    folded = [textwrap.wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = itertools.zip_longest(*folded, fillvalue="")
    out = [_join(parts, widths) for parts in lines]
    return [*out, ""]


def _join(parts: Sequence[str], widths: Sequence[int]) -> str:
    padded = [part.ljust(width) for part, width in zip(parts, widths, strict=True)]
    return (" " * GAP).join(padded).rstrip()
