"""Opening connections: for requests that wait, and up to min_size."""

import logging
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from django_psycopg_pooled.pool.alarm import Alarm
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.fitness import Fitness
from django_psycopg_pooled.pool.hooks import left_open, said
from django_psycopg_pooled.pool.ledger import Batch
from django_psycopg_pooled.pool.states import State
from django_psycopg_pooled.pool.waiter import Waiter

logger = logging.getLogger(__name__)


class Opener:
    """Opens the connections of one pool, as many at once as requests ask for.

    A slot is reserved under the lock before a connect begins, so the pool never has more than
    max_size. During an outage one connect at a time is tried, with growing pauses.
    """

    def __init__(self, core: Core, fitness: Fitness, alarm: Alarm) -> None:
        self._core = core
        self._fitness = fitness
        self._alarm = alarm

    def meet_demand(self, *, awaited: bool = False) -> None:
        """Have connections opened that are asked for and have a slot. Does not block.

        Called after whatever may have made room or want: a request joined, a slot came free.

        awaited   somebody waits for min_size, so that it need not wait as if nobody did
        """
        core = self._core
        connects: list[Callable[[], None]] = []
        with core.lock:
            now = core.clock.monotonic()
            if not core.runtime.threaded:
                # Requests connect by themselves, see open_for(): the first may look again.
                if core.ledger.waiting and self._may_try_locked(now, waited_for=True):
                    core.ledger.waiting[0].wake()
                return
            while self._wanted_locked(now, awaited):
                entry = core.ledger.reserve(now)
                connects.append(partial(self._open_in_background, entry))
                entry.owner = weakref.ref(connects[-1])
        for connect in connects:
            core.runtime.submit(connect)

    def open_for(self, waiter: Waiter) -> bool:
        """Connect in the thread of a request that waits; False if there is no slot or an outage.

        Blocks for the connect. The request is out of the queue meanwhile, so that nobody hands it
        a connection that it cannot see. Raises the driver's exception if the failure is permanent.
        """
        core = self._core
        with core.lock:
            now = core.clock.monotonic()
            if not self._may_try_locked(now, waited_for=True) or not core.ledger.leave(waiter):
                return False
            entry = core.ledger.reserve(now)
            entry.owner = weakref.ref(waiter)
        try:
            self._open(entry)
        except Exception as error:
            if self._failed(entry, error):
                raise
            with core.lock:
                core.ledger.rejoin(waiter)
            return False
        with core.lock:
            core.ledger.opening -= 1
            core.ledger.serve(waiter, entry, core.clock.monotonic())
        return True

    def fill(self) -> None:
        """Open what is missing of min_size: in the background, or in this thread if there is none.

        Raises nothing: a failed connect is noted, and the next may be tried in retry_in() seconds.
        """
        if self._core.runtime.threaded:
            self.meet_demand(awaited=True)
        else:
            while (batch := self._reserve_missing()) and self._open_for_all(batch[0]):
                pass

    def _reserve_missing(self) -> Batch:
        """A slot for one connection of min_size; none if none is missing, or may be tried."""
        core = self._core
        batch = Batch()
        with core.lock:
            now = core.clock.monotonic()
            missing = core.ledger.size < core.options.min_size
            if missing and self._may_try_locked(now, waited_for=True):
                batch.append(core.ledger.reserve(now))
                batch[0].owner = weakref.ref(batch)
        return batch

    def _open_for_all(self, entry: Entry) -> bool:
        """Connect, for whoever comes first; False if it failed, which is noted."""
        try:
            self._open(entry)
        except Exception as error:
            self._failed(entry, error)
            return False
        self._settle(entry)
        return True

    def retry_in(self) -> float:
        """Seconds until a connect may be tried again; 0 outside an outage."""
        core = self._core
        with core.lock:
            if not core.outage.failures:
                return 0.0
            return max(core.outage.due_at(waited_for=True) - core.clock.monotonic(), 0.0)

    def _wanted_locked(self, now: float, awaited: bool) -> bool:
        ledger, options = self._core.ledger, self._core.options
        if ledger.opening < ledger.asking:
            return self._may_try_locked(now, waited_for=True)
        # What only min_size wants comes after all requests, and a few at a time: after a restart of
        # the server a hundred connects at once would keep the first request waiting for its own.
        missing = ledger.size < options.min_size and not self._core.outage.given_up
        calm = not ledger.waiting and ledger.opening < options.num_workers
        return missing and calm and self._may_try_locked(now, waited_for=awaited)

    def _may_try_locked(self, now: float, *, waited_for: bool) -> bool:
        ledger, outage = self._core.ledger, self._core.outage
        if ledger.closed or ledger.paused or ledger.size >= self._core.options.max_size:
            return False
        if outage.failures:
            return not ledger.opening and now >= outage.due_at(waited_for=waited_for)
        return True

    def _open_in_background(self, entry: Entry) -> None:
        if self._still_wanted(entry) and self._open_for_all(entry):
            self.meet_demand()  # an outage may be over, and the others may connect now

    def _still_wanted(self, entry: Entry) -> bool:
        """Give the slot up if whoever asked has been served meanwhile."""
        core = self._core
        with core.lock:
            ledger = core.ledger
            surplus = ledger.opening > ledger.asking and ledger.size > core.options.min_size
            if surplus or ledger.closed:
                ledger.release(entry)
                core.notify()
                return False
        return True

    def _open(self, entry: Entry) -> None:
        """Connect. On success *entry* is ready to be moved on; otherwise its slot is free again."""
        core = self._core
        began = core.clock.monotonic()
        with core.lock:
            core.counters.connections_num += 1
        connection = None
        try:
            connection = core.connect()
            self._make_ready(connection)
            entry.watch = core.driver.watch(connection)
            entry.server_pid = core.driver.server_pid(connection)
        except BaseException:
            if connection is not None:
                core.driver.close(connection)
            with core.lock:
                core.counters.connections_errors += 1
                core.ledger.release(entry)
                core.notify()
            raise
        now = core.clock.monotonic()
        entry.connection = connection
        entry.session = core.driver.session(connection)
        entry.session.shape = core.driver.shape(connection)
        entry.session.set_up()
        entry.opened_at = entry.since = entry.proven_at = now
        with core.lock:
            if entry.retire_at == math.inf:  # else it was ousted while it was opened
                entry.retire_at = now + core.options.lifetime(core.share())
            core.ledger.disarm()  # it may be above min_size, or retire before all others
            core.counters.connections_s += now - began
            core.demand.saw_connect(now - began)
            core.outage = core.outage.over()
            core.proven = True

    def _make_ready(self, connection: Any) -> None:
        """Let the user's hooks have the new connection. Raises what they raise, or the driver."""
        core = self._core
        core.driver.tidy(connection)
        if core.options.configure is not None:
            core.options.configure(connection)
            if core.driver.status(connection) or not connection.autocommit:
                raise left_open("configure", core.name)
        if callable(core.options.check):
            self._fitness.check(connection)

    def _settle(self, entry: Entry) -> None:
        """A connection was opened: give it to who waits, or shelve it; close it if too late."""
        core = self._core
        with core.lock:
            late = core.ledger.closed or entry.retire_at < entry.opened_at
            core.ledger.opening -= 1
            if late:
                closing = core.ledger.take([entry], State.CLOSING)
            elif not core.ledger.give(entry, entry.opened_at):
                # Who waits for it gets it unchecked: it is new. But now it is shelved.
                entry.fresh_until = entry.opened_at + core.options.fresh_for
            core.notify()
        if late:
            core.close_entries(closing)
            self.meet_demand()
        self._alarm.arm()

    def _failed(self, entry: Entry, error: Exception) -> bool:
        """Note a failed connect; True if waiting cannot help.

        Before the first success every failure counts as such: the settings are wrong more often
        than the server is away just then, and without a pool the request would fail at once too.
        """
        core = self._core
        with core.lock:
            now = core.clock.monotonic()
            waited_for = bool(core.ledger.waiting)
            permanent = core.driver.is_permanent(error)
            core.outage.failed(
                error, entry.opened_at, now, waited_for=waited_for, share=core.share()
            )
            # Without its traceback, whose frames lead back here.
            core.outage.refusal = error.with_traceback(None) if permanent else None
            hope = core.ledger.lent or core.ledger.opening  # something may come yet
            hopeless = not hope and (permanent or not core.proven)
            while hopeless and core.ledger.waiting:
                core.ledger.next_waiter().fail(error)
            report = (
                now - core.outage.began_at >= core.options.reconnect_timeout
                and not core.outage.reported
            )
            core.outage.reported |= report
            retry_at = core.outage.retry_at
            core.notify()
        logger.warning("pool %r: cannot connect: %s", core.name, said(error))
        if report:
            self._report()
        if core.runtime.threaded and (waited_for or not core.outage.given_up):
            core.runtime.call_at(retry_at, self.meet_demand)
        return hopeless

    def _report(self) -> None:
        """Tell the user's hook that the pool gives up until the next request."""
        core = self._core
        logger.error("pool %r: no connect for %.0f s; it waits for the next request now",
                     core.name, core.options.reconnect_timeout)  # fmt: skip
        pool = core.pool()
        if core.options.reconnect_failed is not None and pool is not None:
            try:
                core.options.reconnect_failed(pool)
            except Exception:
                logger.exception("pool %r: reconnect_failed raised", core.name)
