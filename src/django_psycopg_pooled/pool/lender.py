"""Lending connections and taking them back: what every request does."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.errors import NotBorrowed
from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.borrower import borrower
from django_psycopg_pooled.pool.collector import COLLECTOR
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.hooks import left_open
from django_psycopg_pooled.pool.lookout import Lookout
from django_psycopg_pooled.pool.opener import Opener
from django_psycopg_pooled.pool.queue import Queue
from django_psycopg_pooled.pool.returns import Returns
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.texts import finalizer_error

_IDLE, _LENT = State.IDLE, State.LENT


class Lender:
    """The part of a Pool that lends.

    checkout() and checkin() are on the path of every request and run between queries, when the
    processor's caches are full of other things: there each call and each object that is touched
    counts. So the usual case of both stands here in line; all others go the parts' way, which does
    the same.
    """

    def __init__(
        self,
        core: Core,
        fitness: Fitness,
        alarm: Alarm,
        opener: Opener,
        returns: Returns,
        queue: Queue,
        lookout: Lookout,
    ) -> None:
        self._core = core
        self._fitness = fitness
        self._alarm = alarm
        self._opener = opener
        self._returns = returns
        self._queue = queue
        self._lookout = lookout
        self._monotonic = core.clock.monotonic
        self._is_tidy = core.driver.is_tidy
        self._here = core.observer.here
        self._pins = threading.local()

    def checkout(
        self, timeout: float | None = None, *, bound: bool = False, lease: Lease | None = None
    ) -> Lease:
        """Borrow a connection: `lease.connection`. Give it back by checkin(lease).

        timeout   seconds to wait; None for the option `timeout`
        bound     only this thread will use it: when the thread ends, it is taken back
        lease     one of this thread's that has ended, to be used again. Nobody else may have it: a
                  second checkin() of the old loan would end the new one.

        A loan whose Lease is dropped is taken back when nothing refers to its connection either.
        Does not block if a connection is idle and was used within check_idle. Otherwise blocks
        for one round trip if one is idle, else for *timeout* at the longest, and one connect more
        with num_workers=0. Raises the driver's PoolTimeout, TooManyRequests, PoolClosed, or its
        own exception if it cannot connect and waiting would not help.
        """
        core = self._core
        if COLLECTOR.thread and COLLECTOR.is_here() and not core.lock_gets_free():
            raise finalizer_error(core)
        if lease is None:
            lease = Lease(borrower())
        now = self._monotonic()
        waited = 0.0
        with core.lock:
            core.counters.requests_num += 1
            ledger = core.ledger
            if ledger.idle and not ledger.paused:  # Ledger.lend_idle()
                entry = ledger.idle.pop()
                entry.state = _LENT
                entry.since = now
                entry.holder = lease.holder
                entry.bound = bound
                entry.owner = lease.ref
                lease.entry = entry
                lease.connection = entry.connection
                entry.uses = lease.number = number = entry.uses + 1
                entry.loan = number
            else:
                entry = lease.entry
        if entry.loan != lease.number or now >= entry.fresh_until or entry.watch(0):
            deadline = now + (core.options.timeout if timeout is None else timeout)
            self._checkout_slowly(lease, bound, now, deadline)
            waited = self._monotonic() - now
            entry = lease.entry
        entry.stack = self._here()
        session = entry.session
        session.last, session.waited = None, waited
        if core.unwatched or core.attends:
            self._attend(lease)
        return lease

    def _checkout_slowly(self, lease: Lease, bound: bool, asked: float, deadline: float) -> None:
        core = self._core
        discarded = False
        try:
            while True:
                if lease.ended:
                    self._queue.wait(lease, bound, asked, deadline)
                if self._is_fit(lease):
                    return
                discarded = True
                with core.lock:
                    core.ledger.lend_idle(lease, core.clock.monotonic(), bound)
        finally:
            if discarded:
                self._opener.meet_demand()  # for others, and min_size

    def _is_fit(self, lease: Lease) -> bool:
        """Judge a connection; close it if it is not fit, or its judge was interrupted."""
        fit = False
        try:
            fit = self._fitness.is_fit(lease.entry)
        finally:
            if not fit:
                self._returns.discard(lease)
        return fit

    def _attend(self, lease: Lease) -> None:
        """What some options want of each loan's begin, and the lookout of the first one."""
        options = self._core.options
        if self._core.unwatched:
            self._lookout.wake()
        if options.leak_threshold:
            self._alarm.arm()
        if options.on_checkout is not None:
            done = False
            try:
                options.on_checkout(lease.connection)
                self._refuse_open_transaction(lease.connection)
                done = True
            finally:
                if not done:
                    self._returns.give_up(lease)

    def _refuse_open_transaction(self, connection: Any) -> None:
        """After on_checkout: Django would take it for autocommit, and its writes would be lost.

        A connection that is broken is left to the borrower's first statement.
        """
        status = self._core.driver.status(connection)
        if status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN) or (
            not connection.autocommit
        ):
            raise left_open("on_checkout", self._core.name)

    def checkin(self, lease: Lease) -> None:
        """End a loan. Does nothing if it has ended already, or was inherited over fork().

        Does not block if the connection is as it was lent; an open transaction is rolled back, and
        a session that statements have changed is reset, a round trip each. Never raises for the
        connection's sake: one that cannot be brought back is closed. In a finalizer that the
        garbage collector calls, the loan ends a little later, and in another thread.
        """
        core = self._core
        entry = lease.entry
        if entry.loan != lease.number:
            return
        if COLLECTOR.thread and COLLECTOR.is_here():
            core.late.append(partial(self.checkin, lease))
            return
        session = entry.session
        if (
            session.dirt
            or session.held
            or core.tidies
            or not self._is_tidy(entry.connection, session.shape)
        ):
            self._returns.tidy_up(lease)
            return
        with core.lock:
            now = self._monotonic()
            ledger = core.ledger
            usual = ledger.calm and entry.loan == lease.number and now < entry.retire_at
            if usual:  # Returns.take_back()
                entry.loan = 0
                counters = core.counters
                counters.usage_s += now - entry.since
                counters.loans_num += 1
                entry.since = entry.proven_at = now
                fresh_until = now + core.fresh_for
                retire_at = entry.retire_at
                entry.fresh_until = fresh_until if fresh_until < retire_at else retire_at
                entry.state = _IDLE
                ledger.idle.append(entry)
        if not usual:
            self._returns.take_back(lease)

    def evict(self, lease: Lease) -> None:
        """Close this connection when it is given back. Does not block."""
        with self._core.lock:
            lease.entry.retire_at = -math.inf

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        """The driver's connection for a with block, in autocommit; given back at its end."""
        lease = self.checkout(timeout)
        try:
            yield lease.connection
        finally:
            self.checkin(lease)

    def getconn(self, timeout: float | None = None) -> Any:
        """Borrow the driver's connection, as checkout() does; give it back by putconn()."""
        return self.checkout(timeout).connection

    def putconn(self, connection: Any) -> None:
        """Give back what getconn() lent. Raises NotBorrowed for any other connection."""
        core = self._core
        if COLLECTOR.thread and COLLECTOR.is_here():
            core.late.append(partial(self.putconn, connection))
            return
        with core.lock:
            lent = [e for e in core.ledger.entries if e.connection is connection and e.loan]
        if not lent:
            raise NotBorrowed(
                f"[{NotBorrowed.code}] {connection!r} was not lent by the pool {core.name!r};"
                " or it has been given back already."
            )
        self.checkin(Lease.present(lent[0], borrower()))

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Keep this thread's connection through the with block, where release="transaction".

        For several statements that must run in one session without a transaction. Blocks may be
        nested.
        """
        self._pins.depth = self._pin_depth + 1
        try:
            yield
        finally:
            self._pins.depth -= 1

    @property
    def pinned(self) -> bool:
        """Whether this thread is in a pin() block."""
        return self._pin_depth > 0

    @property
    def _pin_depth(self) -> int:
        return getattr(self._pins, "depth", 0)

    def idle_since(self, lease: Lease) -> float | None:
        """Since when its transaction was idle, in seconds on the pool's clock, if that is known."""
        return self._lookout.idle_since(lease.entry)
