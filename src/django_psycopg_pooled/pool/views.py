"""Facts about a pool, taken under its lock and read without it."""

import threading

from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.snapshots import ConnectionSnapshot, PoolSnapshot


def snapshot(core: Core) -> PoolSnapshot:
    """The pool as it is now. Takes the pool's lock once; microseconds per connection."""
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    with core.lock:
        now = core.clock.monotonic()
        ledger, outage, options = core.ledger, core.outage, core.options
        connections = sorted(
            (_connection(entry, now, threads) for entry in ledger.entries),
            key=lambda c: c.number,
        )
        return PoolSnapshot(
            name=core.name,
            min_size=options.min_size,
            max_size=options.max_size,
            timeout_s=options.timeout,
            max_waiting=options.max_waiting,
            requests_waiting=len(ledger.waiting),
            paused=ledger.paused,
            closed=ledger.closed,
            last_failure=outage.text,
            last_failure_ago_s=now - outage.failed_at if outage.failures else None,
            connections=tuple(connections),
        )


def _connection(entry: Entry, now: float, threads: dict[int | None, str]) -> ConnectionSnapshot:
    thread = None
    if entry.loan:
        thread = threads.get(entry.thread_id, f"ended thread {entry.thread_id}")
    return ConnectionSnapshot(
        number=entry.number,
        state=entry.state.value,
        server_pid=entry.server_pid,
        age_s=now - entry.opened_at,
        in_state_s=now - entry.since,
        uses=entry.uses,
        thread=thread,
    )
