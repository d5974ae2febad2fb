"""Facts about prepared statements at one moment, for readers that must not touch them."""

from dataclasses import dataclass
from typing import Literal

PreparedState = Literal["hot", "prepared", "denied", "demoted"]


@dataclass(frozen=True, slots=True)
class PreparedFacts:
    """One text that runs prepared, or was found unfit for that. Durations in seconds."""

    text: str  # without any literal
    name: str  # of a registered target; else empty
    state: PreparedState  # hot: often executed, and about to be prepared
    reason: str  # why it is denied or demoted; empty otherwise
    sqlstate: str  # the server's code for that; empty if it was not the server
    variants: int  # combinations of parameter types that it is prepared for
    hits: int  # prepared executions
    connections: int  # that hold it at this moment
    plain_mean_s: float | None  # None if it never ran so
    prepared_mean_s: float | None
    since_s: float  # how long it is in this state
