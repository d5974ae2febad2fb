"""The slow way to a connection: none was idle."""

import math

from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.opener import Opener
from django_psycopg_pooled.pool.reclaimer import Reclaimer
from django_psycopg_pooled.pool.texts import closed_error, full_error, timeout_error
from django_psycopg_pooled.pool.waiter import Waiter

LOOK_AGAIN_S = 0.25  # how long a request waits before it looks for lost connections again


class Queue:
    """Lets requests of one pool wait, first come first served, for whichever comes first: a
    connection that is given back, or a new one."""

    def __init__(self, core: Core, opener: Opener, reclaimer: Reclaimer) -> None:
        self._core = core
        self._opener = opener
        self._reclaimer = reclaimer

    def wait(self, lease: Lease, bound: bool, asked: float, deadline: float) -> None:
        """A loan for *lease*, in turn. Blocks until *deadline* on the pool's clock at the longest.

        *asked* is when the request began, which may have checked dead connections since.
        Raises the driver's PoolTimeout, TooManyRequests or PoolClosed, or its own exception if
        connecting failed in a way that waiting cannot mend.
        """
        core = self._core
        refusal = None
        if core.clock.monotonic() >= core.reclaim_at:
            self._reclaimer.run()
        with core.lock:
            began = core.clock.monotonic()
            if core.ledger.lend_idle(lease, began, bound):
                return
            if core.ledger.closed:
                refusal = closed_error
            elif 0 < core.options.max_waiting <= len(core.ledger.waiting):
                refusal = full_error
                core.counters.requests_errors += 1
            else:
                core.demand.saw_loans(core.counters)
                patience = core.demand.patience(len(core.ledger.waiting) + 1, core.ledger.lent)
                waiter = Waiter(lease, bound=bound, asking=not patience)
                core.ledger.join(waiter)
                core.counters.requests_queued += 1
        if refusal is not None:
            raise refusal(core)
        self._wait_as(waiter, asked, began + patience, deadline)

    def _wait_as(self, waiter: Waiter, asked: float, ask_at: float, deadline: float) -> None:
        core = self._core
        try:
            self._wait_until(waiter, ask_at, deadline)
        except BaseException:
            self._leave(waiter, asked, refuse=True)
            raise
        self._leave(waiter, asked, refuse=False)
        if waiter.error is not None:
            raise waiter.error
        if waiter.lease.ended:
            with core.lock:
                core.counters.requests_errors += 1
            core.listener.timed_out()
            raise timeout_error(core, core.clock.monotonic() - asked)

    def _wait_until(self, waiter: Waiter, ask_at: float, deadline: float) -> None:
        """Return when the waiter is answered, or the deadline has passed."""
        core = self._core
        # Somebody has looked for lost loans a moment ago; this request looks when it is due again.
        look_at = core.reclaim_at
        while not waiter.answered:
            now = core.clock.monotonic()
            if now >= look_at:
                self._look_again(waiter)
                look_at = now + LOOK_AGAIN_S
            pause = self._ask(waiter) if now >= ask_at else ask_at - now
            left = deadline - core.clock.monotonic()
            if left <= 0:
                return
            # Woken or not: the condition of the loop decides.
            core.clock.wait(waiter.signal, min(pause, left, max(look_at - now, 0.0)))

    def _look_again(self, waiter: Waiter) -> None:
        """Whoever should have served this request may have been interrupted, or have ended."""
        core = self._core
        with core.lock:
            if not waiter.answered and waiter not in core.ledger.waiting:
                core.ledger.rejoin(waiter)
        if core.clock.monotonic() >= core.reclaim_at:
            self._reclaimer.run()

    def _ask(self, waiter: Waiter) -> float:
        """Want a connect; the seconds after which to ask again."""
        core = self._core
        with core.lock:
            core.ledger.ask(waiter)
        if core.runtime.threaded:
            self._opener.meet_demand()
        elif self._opener.open_for(waiter):
            return 0.0
        return self._opener.retry_in() or math.inf

    def _leave(self, waiter: Waiter, asked: float, *, refuse: bool) -> None:
        """Out of the queue, answered or not; *refuse* passes on what was handed over."""
        core = self._core
        with core.lock:
            now = core.clock.monotonic()
            core.ledger.leave(waiter)
            core.counters.requests_wait_s += now - asked
            if refuse and not waiter.lease.ended:
                self._pass_on_locked(waiter.lease, now)
        if not core.runtime.threaded:
            self._opener.meet_demand()  # the next one may connect now

    def _pass_on_locked(self, lease: Lease, now: float) -> None:
        """To the next in the queue, or onto the shelf."""
        ledger = self._core.ledger
        if ledger.closed:
            return  # it comes back as a lost loan, and is closed then
        ledger.end(lease)
        ledger.give(lease.entry, now)
