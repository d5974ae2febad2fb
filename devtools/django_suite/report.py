"""A verdict as text for a terminal; its last line is the count."""

from collections.abc import Iterable

from devtools.django_suite.log import Failure, Outcome
from devtools.django_suite.verdict import Verdict


def text(verdict: Verdict) -> str:
    """The summary of a run with our backend."""
    lines = [
        *_section("Failed with stock too, not counted", map(str, verdict.shared)),
        *_section("Failed as expected.py allows", _allowed(verdict)),
        *_section("Stale rows of expected.py: these tests pass, are skipped, are gone, or fail with"
                  " stock", verdict.stale),
        *_section("FAILED WITH OURS ONLY", _with_messages(verdict.ours)),
        count(verdict.outcome, verdict.failed),
    ]  # fmt: skip
    return "\n".join(lines)


def stock_text(outcome: Outcome) -> str:
    """The summary of a run of stock Django alone."""
    failed = _section("Failed with stock", _with_messages(outcome.failures))
    return "\n".join([*failed, count(outcome, len(outcome.failing))])


def count(outcome: Outcome, failed: int) -> str:
    """The last line of every report."""
    return f"{outcome.passed} passed, {failed} failed, {outcome.skipped} skipped"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return [f"{title}:", *(f"  {line}" for line in lines), ""] if lines else []


def _allowed(verdict: Verdict) -> list[str]:
    return [f"{failure}\n      {reason}" for failure, reason in verdict.allowed]


def _with_messages(failures: Iterable[Failure]) -> list[str]:
    return [f"{failure}\n      {failure.message}" for failure in failures]
