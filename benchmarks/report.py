"""What a benchmark found: tables and budgets, as text and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.facts import Facts, fact_lines
from benchmarks.tables import Table, fold


@dataclass(frozen=True)
class Budget:
    """A promise of ours with what was measured; printed, never asserted.

    measured  None if a peer that it needs did not run
    limit     at most this, or at least this if *at_least*
    """

    promise: str
    measured: float | None
    limit: float
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """'met', 'missed' or 'not measured'."""
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "met" if met else "missed"

    def line(self) -> str:
        """One line for the terminal."""
        measured = "" if self.measured is None else f", measured {_short(self.measured)}"
        sign = ">=" if self.at_least else "<="
        return f"{self.verdict}: {self.promise} {sign} {self.limit:g}{measured}"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class Report:
    """One benchmark's outcome."""

    name: str
    how: str
    facts: Facts
    tables: Sequence[Table]
    budgets: Sequence[Budget] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def text(self) -> str:
        """For the terminal, at most 100 columns wide."""
        out = [f"== {self.name}", *fold(self.how), *fact_lines(self.facts)]
        for table in self.tables:
            out += ["", *table.lines()]
        out += ["", *(line for note in self.notes for line in fold(note))]
        out += [line for budget in self.budgets for line in fold(f"Budget {budget.line()}")]
        return "\n".join(out).rstrip()

    def as_json(self) -> str:
        """Everything, unrounded."""
        whole: dict[str, Any] = asdict(self)
        for budget, fields in zip(self.budgets, whole["budgets"], strict=True):
            fields["verdict"] = budget.verdict
        return json.dumps(whole, indent=1)
