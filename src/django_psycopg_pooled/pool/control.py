"""What an operator does to a running pool."""

import threading
from collections.abc import Callable

from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.housekeeper import Housekeeper
from django_psycopg_pooled.pool.opener import Opener
from django_psycopg_pooled.pool.reclaimer import Reclaimer
from django_psycopg_pooled.pool.returns import Returns
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.texts import closed_error, timeout_error

ABANDON_S = 0.1  # for another thread to be done with the books


class Control:
    """Changes one pool from outside its requests. See Pool for what each method promises."""

    def __init__(
        self,
        core: Core,
        fitness: Fitness,
        opener: Opener,
        returns: Returns,
        housekeeper: Housekeeper,
        reclaimer: Reclaimer,
        alarm: Alarm,
    ) -> None:
        self._core = core
        self._fitness = fitness
        self._opener = opener
        self._returns = returns
        self._housekeeper = housekeeper
        self._reclaimer = reclaimer
        self._alarm = alarm

    def configure(self, changes: dict[str, object]) -> None:
        core = self._core
        with core.lock:
            core.apply(core.given.changed(**changes))
            core.ledger.disarm()  # what is due may be due sooner now
        self._housekeeper.retire()
        self._opener.meet_demand()
        self._alarm.arm()

    def drain(self) -> None:
        self._returns.oust()
        self._opener.meet_demand()

    def check(self) -> int:
        dropped = self._fitness.verify_idle(unproven_for=0.0)
        if dropped:
            self._opener.meet_demand()
        return dropped

    def pause(self, timeout: float) -> bool:
        core = self._core
        with core.lock:
            core.ledger.pause()
        return self._wait_until(lambda: not core.ledger.lent, timeout)

    def resume(self) -> None:
        core = self._core
        with core.lock:
            ledger = core.ledger
            ledger.paused = False
            now = core.clock.monotonic()
            while ledger.idle and ledger.waiting:
                ledger.serve(ledger.next_waiter(), ledger.idle.pop(), now)
        self._opener.meet_demand()

    def wait(self, timeout: float) -> None:
        core = self._core
        deadline = core.clock.monotonic() + timeout
        with core.lock:
            core.outage.refusal = None
        while True:
            self._opener.fill()
            left = deadline - core.clock.monotonic()
            pause = min(left, self._opener.retry_in() or left)
            done = self._wait_until(self._is_filled_or_refused_locked, pause)
            if core.outage.refusal is not None:
                raise core.outage.refusal
            if done:
                return
            if core.ledger.closed:
                raise closed_error(core)
            if pause >= left:
                raise timeout_error(core, timeout)

    def close(self, timeout: float) -> None:
        self._shut()
        self._reclaimer.run()
        core = self._core
        self._wait_until(lambda: not core.ledger.opening, timeout)

    def abandon(self) -> None:
        """Close what nobody refers to any more, or when the interpreter exits.

        May run inside the garbage collector, in any thread, even one of this pool's own that holds
        the lock just now; that one finds the pool closed after a moment, and the driver's objects
        close themselves with it.
        """
        lock = self._core.lock
        if lock.acquire(timeout=ABANDON_S):
            lock.release()
            self._shut()
        else:
            self._core.ledger.close()

    def _shut(self) -> None:
        core = self._core
        with core.lock:
            core.ledger.close()
            idle = core.ledger.take_all_idle(State.CLOSING)
            waiters = list(core.ledger.waiting)
        # The text looks at the pool, so it is made without the lock.
        error = closed_error(core)
        with core.lock:
            for waiter in waiters:
                if core.ledger.leave(waiter):
                    waiter.fail(error)
        core.close_entries(idle)
        # Else the Lookout does, when the last one is back: its borrower may end without close().
        if not core.ledger.lent or not core.runtime.threaded:
            core.runtime.stop()

    def _is_filled_or_refused_locked(self) -> bool:
        ledger = self._core.ledger
        ready = ledger.size - ledger.opening
        return ready >= self._core.options.min_size or self._core.outage.refusal is not None

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until *condition*, asked under the lock, holds (True) or time is up (False)."""
        core = self._core
        deadline = core.clock.monotonic() + timeout
        signal = threading.Lock()
        signal.acquire()
        while True:
            with core.lock:
                left = deadline - core.clock.monotonic()
                met = condition()
                hopeless = core.ledger.closed and not core.ledger.opening
                if met or hopeless or left <= 0:
                    return met
                core.signals.append(signal)
            if not core.clock.wait(signal, left):
                with core.lock:
                    if signal in core.signals:
                        core.signals.remove(signal)
