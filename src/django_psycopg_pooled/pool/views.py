"""Facts about a pool, taken under its lock and read without it."""

from dataclasses import replace
from typing import Any

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.snapshots import ConnectionSnapshot, PoolSnapshot

ACTIVITY = {
    TransactionStatus.IDLE: "idle",
    TransactionStatus.ACTIVE: "active",
    TransactionStatus.INTRANS: "idle in transaction",
    TransactionStatus.INERROR: "idle in transaction (aborted)",
    TransactionStatus.UNKNOWN: "broken",
}


def snapshot(core: Core) -> PoolSnapshot:
    """The pool as it is now. Takes the pool's lock once; microseconds per connection."""
    with core.lock:
        now = core.clock.monotonic()
        ledger, outage, options = core.ledger, core.outage, core.options
        entries = sorted(ledger.entries, key=lambda entry: entry.number)
        pool = PoolSnapshot(
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
            connections=tuple(_connection(entry, now) for entry in entries),
        )
        loans = [(entry, entry.stack, entry.session.last) for entry in entries]
    # Lines of code are found without the lock: that takes longer.
    return replace(
        pool,
        connections=tuple(
            _with_lines(core, facts, *loan) if facts.thread_id is not None else facts
            for facts, loan in zip(pool.connections, loans, strict=True)
        ),
    )


def _connection(entry: Entry, now: float) -> ConnectionSnapshot:
    holder = entry.holder if entry.loan else None
    return ConnectionSnapshot(
        number=entry.number,
        state=entry.state.value,
        server_pid=entry.server_pid,
        age_s=now - entry.opened_at,
        in_state_s=now - entry.since,
        uses=entry.uses,
        thread=holder.title() if holder is not None else None,
        thread_id=holder.ident if holder is not None else None,
    )


def _with_lines(
    core: Core, facts: ConnectionSnapshot, entry: Entry, borrowed: Any, last: Any
) -> ConnectionSnapshot:
    """The facts of a loan with what the driver and the observer know of it."""
    see, holder = core.observer, entry.holder
    live = holder is not None and holder.ident == facts.thread_id and holder.alive
    now = see.now(holder.ident) if live and holder is not None else None
    return replace(
        facts,
        label=see.label(holder.ident) if live and holder is not None else None,
        activity=ACTIVITY[core.driver.status(entry.connection)],
        borrowed_at=see.place(borrowed) if borrowed is not None else "",
        last_statement_at=see.place(last) if last is not None else "",
        now_at=see.place(now) if now is not None else "",
    )
