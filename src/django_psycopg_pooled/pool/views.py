"""Facts about a pool, taken under its lock, if that can be had, and read without it."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.facts.pool import ConnectionSnapshot, PoolSnapshot
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.session import Session

RECENT_S = 0.05

ACTIVITY = {
    TransactionStatus.IDLE: "idle",
    TransactionStatus.ACTIVE: "active",
    TransactionStatus.INTRANS: "idle in transaction",
    TransactionStatus.INERROR: "idle in transaction (aborted)",
    TransactionStatus.UNKNOWN: "broken",
}


def snapshot(core: Core) -> PoolSnapshot:
    """The pool as it is now. Takes the pool's lock once; microseconds per connection.

    A signal's handler may ask: see Core.glance().
    """
    with core.glance():
        now = core.clock.monotonic()
        ledger, outage, options = core.ledger, core.outage, core.options
        entries = sorted(_copied(ledger.entries), key=lambda entry: entry.number)
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
    # Lines of code are found without the lock: that takes longer.
    return replace(
        pool,
        connections=tuple(
            _with_lines(core, facts, entry, now) if facts.thread_id is not None else facts
            for facts, entry in zip(pool.connections, entries, strict=True)
        ),
    )


def recent(core: Core) -> PoolSnapshot:
    """snapshot(), or the last one of these if it is not 50 ms old, with as many as wait now.

    For errors: where a thousand requests a second are refused, or 500 have waited in vain at once,
    to look for each would take the processor from those that are served. One looks at a time; the
    others wait for it.
    """
    with core.look_lock:
        seen = core.seen
        if seen is None or not 0 <= core.clock.monotonic() - seen[0] < RECENT_S:
            facts = snapshot(core)
            core.seen = seen = core.clock.monotonic(), facts
    return replace(seen[1], requests_waiting=len(core.ledger.waiting))


def connection_facts(core: Core, entry: Entry) -> ConnectionSnapshot:
    """One connection as it is now."""
    with core.glance():
        now = core.clock.monotonic()
        facts = _connection(entry, now)
    return _with_lines(core, facts, entry, now) if facts.thread_id is not None else facts


def _copied(entries: set[Entry]) -> list[Entry]:
    """A copy; made again if another thread has changed them meanwhile, where there is no lock."""
    while True:
        with suppress(RuntimeError):
            return list(entries)


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
    core: Core, facts: ConnectionSnapshot, entry: Entry, now: float
) -> ConnectionSnapshot:
    """The facts of a loan with what the driver and the observer know of it."""
    see, holder, session = core.observer, entry.holder, entry.session
    begun = session.transaction_at
    # One that an earlier borrower left open was rolled back by the pool.
    inside = begun is not None and begun >= entry.since
    live = holder is not None and holder.ident == facts.thread_id and holder.alive
    stacks = {
        "borrowed": entry.stack,
        "transaction": session.transaction_stack if inside else None,
        "last statement": session.last,
        "now": see.now(holder.ident) if live and holder is not None else None,
    }
    places = {what: see.place(stack) for what, stack in stacks.items() if stack is not None}
    return replace(
        facts,
        label=see.label(holder.ident) if live and holder is not None else None,
        activity=ACTIVITY[core.driver.status(entry.connection)],
        borrowed_at=places.get("borrowed", ""),
        last_statement_at=places.get("last statement", ""),
        now_at=places.get("now", ""),
        transaction_at=places.get("transaction", ""),
        stacks={what: tuple(see.lines(stack)) for what, stack in stacks.items() if stack},
        **_statement(session, entry.since, now),
        **(_transaction(session, now) if inside else {}),
    )


def _statement(session: Session, lent_at: float, now: float) -> dict[str, Any]:
    """The last statement of this loan; its owner may be about to run another one."""
    began, ended = session.began, session.ended
    if session.last is None or began < lent_at:
        return {}
    runs = ended < began
    return {
        "statement": session.said(),
        "statement_s": (now if runs else ended) - began,
        "quiet_s": None if runs else now - ended,
    }


def _transaction(session: Session, now: float) -> dict[str, Any]:
    blocks = session.blocks
    return {
        "transaction_s": now - max(session.transaction_at or now, session.settled_at),
        "atomic_depth": len(blocks),
        "durable": any(block.durable for block in blocks[:1]),
    }
