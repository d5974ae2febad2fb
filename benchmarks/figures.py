"""The few figures that a table is made of."""

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values* that at least *share* (0.0 to 1.0) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times *theirs* goes into *ours*; None if either was not measured."""
    return ours / theirs if ours is not None and theirs else None
