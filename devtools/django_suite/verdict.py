"""Whose failure it is: ours, one that stock Django has as well, or one that the table allows."""

from collections.abc import Mapping
from dataclasses import dataclass

from devtools.django_suite.expected import Expected
from devtools.django_suite.log import Failure, Outcome


@dataclass(frozen=True)
class Verdict:
    """A run with our backend, sorted out. Only `ours` is a reason to fail."""

    outcome: Outcome
    ours: tuple[Failure, ...]
    allowed: tuple[tuple[Failure, str], ...]  # with the table's reason
    shared: tuple[Failure, ...]  # stock fails them too
    stale: tuple[str, ...]  # rows of the table for tests that did not fail, or fail with stock too

    @property
    def failed(self) -> int:
        """How many tests speak against us; subtests of one test are one."""
        return len({failure.test for failure in self.ours})


def judge(mine: Outcome, stock: Outcome | None, table: Mapping[str, Expected]) -> Verdict:
    """Compare our run with stock's of what failed in it.

    mine    everything that was asked for, with our ENGINE
    stock   the failing tests again, with stock's; None if there were none
    table   the rows that apply to this run, by test
    """
    with_stock = set(stock.failures) if stock else set()
    shared = tuple(failure for failure in mine.failures if failure in with_stock)
    rest = [failure for failure in mine.failures if failure not in with_stock]
    used = {failure.test for failure in rest}
    return Verdict(
        outcome=mine,
        ours=tuple(failure for failure in rest if failure.test not in table),
        allowed=tuple((f, table[f.test].reason) for f in rest if f.test in table),
        shared=shared,
        stale=tuple(sorted(set(table) - used)),
    )
