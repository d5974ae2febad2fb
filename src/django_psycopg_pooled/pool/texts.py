"""The pool's refusals, as the user reads them: what happened, the state, the cause, what to do."""

import threading
from collections.abc import Sequence

from django_psycopg_pooled.errors import FinalizerRefused
from django_psycopg_pooled.facts.pool import ConnectionSnapshot, PoolSnapshot
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.views import recent

LONGEST = 3  # how many holders are named


def timeout_error(core: Core, waited: float) -> Exception:
    """PoolTimeout, with who holds the connections."""
    pool = recent(core)
    return core.driver.PoolTimeout(
        f"[{core.driver.PoolTimeout.code}] no connection to {pool.name!r} within {waited:.1f} s.\n"
        f"{_state(pool)}\n{_cause(pool)}\n{_advice(pool)}"
    )


def full_error(core: Core) -> Exception:
    """TooManyRequests."""
    pool = recent(core)
    return core.driver.TooManyRequests(
        f"[{core.driver.TooManyRequests.code}] {_requests(pool.requests_waiting)} already waiting"
        f" for a connection to {pool.name!r}, and max_waiting is {pool.max_waiting}.\n"
        f"{_state(pool)}\n{_cause(pool)}\n"
        f"To do: (1) end transactions sooner; (2) raise max_size above {pool.max_size} (one server"
        f" process each); (3) raise max_waiting above {pool.max_waiting} (requests then queue"
        " longer)."
    )


def finalizer_error(core: Core) -> Exception:
    """FinalizerRefused; does not look at the pool, whose lock this thread has."""
    return FinalizerRefused(
        f"[{FinalizerRefused.code}] a finalizer asked the pool {core.name!r} for one of its"
        " connections, and the garbage collector had interrupted its thread in the midst of the"
        " pool's books. To do: run no queries in __del__(), or at the end of a generator that may"
        " be dropped in a reference cycle."
    )


def closed_error(core: Core) -> Exception:
    """PoolClosed."""
    return core.driver.PoolClosed(
        f"[{core.driver.PoolClosed.code}] the pool {core.name!r} is closed.\n"
        "It lends nothing any more; connections that are out are closed when they come back.\n"
        "Likely cause: the process is ending, close() or close_pool() was called, or DATABASES"
        " changed.\n"
        "To do: take the connection from Django again, which opens a new pool."
    )


def idle_report(name: str, loan: ConnectionSnapshot, idle_s: float) -> str:
    """For the log: a transaction does nothing, and who lets it."""
    work = f" ({loan.label})" if loan.label else ""
    blocks = f", {loan.atomic_depth} atomic blocks deep" if loan.atomic_depth > 1 else ""
    head = (
        f"pool {name!r}: idle in transaction for {idle_s:.1f} s: thread {loan.thread!r}{work},"
        f" server process {loan.server_pid}{blocks}"
    )
    said = f"\n  last statement: {loan.statement}" if loan.statement else ""
    places = {"now": loan.now_at, "last statement": loan.last_statement_at}
    stacks = "".join(
        f"\n  {_WHERE[what]} {_way(lines, places.get(what, ''))}"
        for what, lines in loan.stacks.items()
    )
    return head + said + stacks


def _way(lines: Sequence[str], place: str) -> str:
    """The user's own line first, then what it calls at this moment, then who called it."""
    if not lines:
        return "an unknown place"
    own = lines.index(place) if place in lines else 0
    inner = f" (in {lines[0]})" if own else ""
    return "; from ".join([lines[own] + inner, *lines[own + 1 :]])


_WHERE = {
    "transaction": "transaction begun at",
    "last statement": "last statement at",
    "now": "thread is now at",
    "borrowed": "connection borrowed at",
}


def idle_ended_report(name: str, place: str, lasted_s: float) -> str:
    """For the log: that transaction goes on, or is over."""
    return f"pool {name!r}: the transaction of {place} was idle for {lasted_s:.1f} s in all"


def _state(pool: PoolSnapshot) -> str:
    paused = " The pool is paused." if pool.paused else ""
    return (
        f"Pool: {pool.count('lent')} of {pool.max_size} lent, {pool.count('idle')} idle,"
        f" {pool.count('opening')} opening; {_requests(pool.requests_waiting)} waiting.{paused}"
        f" Last failed connect: {_last_failure(pool)}."
    )


def _last_failure(pool: PoolSnapshot) -> str:
    if pool.last_failure is None or pool.last_failure_ago_s is None:
        return "none"
    return f"{pool.last_failure_ago_s:.1f} s ago: {' '.join(pool.last_failure.split())}"


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def _cause(pool: PoolSnapshot) -> str:
    if pool.paused:
        return "Likely cause: pause() was called and resume() was not."
    lent = sorted((c for c in pool.connections if c.thread), key=lambda c: -c.in_state_s)
    if lent:
        longest = "\n".join(f"  {_loan(loan)}" for loan in lent[:LONGEST])
        return f"Longest loans:\n{longest}{_nested(lent)}"
    if pool.last_failure is not None:
        return "Likely cause: the server is down, full, or cannot be reached from here."
    return "Likely cause: opening a connection takes longer than the request may wait."


def _loan(loan: ConnectionSnapshot) -> str:
    """One holder in one line: for how long, who, in what state, and which lines of code."""
    mine = " (this very thread)" if loan.thread_id == threading.get_ident() else ""
    work = f" ({loan.label})" if loan.label else ""
    text = (
        f"{loan.in_state_s:.1f} s, thread {loan.thread!r}{mine}{work}, {loan.activity},"
        f" server process {loan.server_pid}"
    )
    lines = (
        ("borrowed at", loan.borrowed_at),
        ("transaction begun at", loan.transaction_at),
        ("last statement at", loan.last_statement_at),
        ("now at", "" if mine else loan.now_at),
    )
    return "; ".join([text, *(f"{what} {line}" for what, line in lines if line)])


def _nested(lent: list[ConnectionSnapshot]) -> str:
    mine = sum(loan.thread_id == threading.get_ident() for loan in lent)
    if not mine:
        return ""
    held = "a connection" if mine == 1 else f"{mine} connections"
    return (
        f"\nThis thread already holds {held} of this pool and waits for one more: if all threads do"
        " so, none ever gets it."
    )


def _advice(pool: PoolSnapshot) -> str:
    if pool.paused:
        return "To do: resume() the pool."
    if pool.last_failure is not None and not pool.count("lent"):
        return (
            "To do: (1) see that the server runs and takes connections (the message above is its"
            f" or the network's); (2) raise timeout above {pool.timeout_s:g} s to outlast short"
            " outages (requests then queue longer)."
        )
    if not pool.count("lent"):
        return (
            "To do: (1) see why connecting takes so long; (2) raise min_size, so that connections"
            " are open before they are asked for (each is idle on the server meanwhile); (3) raise"
            f" timeout above {pool.timeout_s:g} s (requests then queue longer)."
        )
    return (
        f"To do: (1) end those loans sooner; (2) raise max_size above {pool.max_size} (one server"
        f" process each); (3) raise timeout above {pool.timeout_s:g} s (requests then queue"
        " longer)."
    )
