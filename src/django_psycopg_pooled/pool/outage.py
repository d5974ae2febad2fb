"""What the pool knows of a server that it cannot reach."""

import math
from dataclasses import dataclass

from django_psycopg_pooled.pool.hooks import said

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 1.0  # while requests wait, so that they see a recovery within a second or so
LONGEST_LONELY_DELAY_S = 30.0  # while nobody waits and only min_size is missing
JITTER = 0.2  # of each delay, either way, so that a fleet does not reconnect in step


@dataclass(slots=True)
class Outage:
    """The run of failed connects since the last one that succeeded. Guarded by the pool's lock.

    While it lasts, the pool tries one connect at a time, with growing pauses between.
    """

    failures: int = 0
    began_at: float = math.inf
    retry_at: float = -math.inf
    text: str | None = None
    failed_at: float = 0.0
    refusal: BaseException | None = None  # the last failure, if trying again cannot mend it
    reported: bool = False  # reconnect_failed has been called

    def failed(
        self, error: BaseException, began: float, now: float, *, waited_for: bool, share: float
    ) -> None:
        """Note a failed connect that *began* then. *share*: 0.0 to 1.0 from the random source."""
        if self.failures and began < self.failed_at:
            return  # one of several at once: they count as one, or the pauses would grow too fast
        self.began_at = min(self.began_at, now)
        self.failed_at = now
        self.text = said(error).strip() or repr(error)
        longest = LONGEST_DELAY_S if waited_for else LONGEST_LONELY_DELAY_S
        delay = min(FIRST_DELAY_S * 2.0 ** min(self.failures, 20), longest)
        self.retry_at = now + delay * (1.0 + JITTER * (2.0 * share - 1.0))
        self.failures += 1

    def due_at(self, *, waited_for: bool) -> float:
        """When the next connect may be tried. A request that has come meanwhile hastens it."""
        return min(self.retry_at, self.failed_at + LONGEST_DELAY_S) if waited_for else self.retry_at

    @property
    def given_up(self) -> bool:
        """Whether only a request makes the pool try again: for min_size alone it does not."""
        return self.reported or self.refusal is not None

    def over(self) -> "Outage":
        """The next state: no outage."""
        return Outage() if self.failures else self
