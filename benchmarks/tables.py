"""Tables for a terminal of 100 columns."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 100
Cell = float | int | str | None
Row = Mapping[str, Cell]
ERROR = "error"  # a row with this key shows its text in place of figures


@dataclass(frozen=True)
class Column:
    """One figure of a row: its key, its heading with the unit, and how to print it."""

    key: str
    title: str
    form: str = "{}"

    def show(self, row: Row) -> str:
        """This row's cell as text; a figure that was not measured is a dash."""
        value = row.get(self.key)
        return "-" if value is None else self.form.format(value)


@dataclass(frozen=True)
class Table:
    """A heading and rows; the first column names the row and is the only one set to the left."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    def lines(self) -> list[str]:
        """The table as text; errors of rows follow below it, folded."""
        widths = [self._width(column) for column in self.columns]
        out = [*fold(self.title), _join([c.title for c in self.columns], widths)]
        for row in self.rows:
            failed = ERROR in row
            shown = self.columns[:1] if failed else self.columns
            cells = [column.show(row) for column in shown]
            out.append(_join([*cells, "failed, see below"] if failed else cells, widths))
        return out + self._errors()

    def _width(self, column: Column) -> int:
        first = column is self.columns[0]
        cells = [column.show(row) for row in self.rows if first or ERROR not in row]
        return max(map(len, [column.title, *cells]))

    def _errors(self) -> list[str]:
        named = [(self.columns[0].show(row), row[ERROR]) for row in self.rows if ERROR in row]
        return [line for name, error in named for line in fold(f"  {name}: {error}")]


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    if len(cells) < len(widths):
        return "  ".join([first.ljust(widths[0]), *others])
    padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *padded])


def fold(text: str) -> list[str]:
    """*text* in lines that fit; later lines are indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ", drop_whitespace=True) or [""]
