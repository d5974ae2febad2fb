"""What the parts of the demo tell each other."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Self


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard the site is driven."""

    seconds: float = 10.0  # measured per variant, over all rounds
    rounds: int = 8
    warm_up: float = 1.5  # seconds per variant, before the first round
    lead_in: float = 0.3  # seconds of each round that do not count
    clients: int = 16
    carrier_ms: int = 80

    def shorter(self) -> "Plan":
        """For the two sites that are compared by their statements: just enough rounds to tell.

        With few clients, or threads that wait for a processor would be most of each duration.
        """
        return replace(
            self,
            seconds=self.seconds * 0.3,
            rounds=min(self.rounds, 6),
            warm_up=1.0,  # in which statements become prepared
            lead_in=self.lead_in * 0.7,
            clients=max(2, self.clients // 8),
        )


@dataclass
class Load:
    """What the visitors of one round saw; made by the load process, read by the driver."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    answers: int = 0  # also those of the lead-in
    errors: Counter[str] = field(default_factory=Counter)
    orders: list[int] = field(default_factory=list)  # ids, also of those placed in the lead-in
    cpu_share: float = 0.0  # of one core, used by the load process itself

    def to_json(self) -> str:
        # asdict() would count a Counter's items until Python 3.12.
        return json.dumps({**asdict(self), "errors": dict(self.errors)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        values["errors"] = Counter(values["errors"])
        return cls(**values)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies_ms) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Round:
    """One variant's turn: the load, and what it cost the servers meanwhile."""

    load: Load
    peak_connections: int
    connects: int
    cpu_s: float  # of gunicorn's and PostgreSQL's processes together

    @property
    def cpu_ms(self) -> float:
        """Processor time per request."""
        return 1000 * self.cpu_s / self.load.answers if self.load.answers else 0.0


@dataclass(frozen=True)
class Row:
    """One variant's line in the table."""

    title: str
    rounds: tuple[Round, ...]
    errors: Counter[str]
