"""Assertions about the pools of this process, for the tests of those who use them.

    with assert_no_idle_in_transaction():
        client.post("/orders/")

Context managers for any test, and a mixin with Django's names for its TestCases. They see what all
threads do; what Django's TestCase holds around each test does not count. Each raises AssertionError
with the lines of code, unless the block itself has raised.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections

from django_psycopg_pooled.facts.pool import ConnectionSnapshot
from django_psycopg_pooled.facts.prepared import PreparedFacts
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import BINDING, DRIVER
from django_psycopg_pooled.integration.registry import pools
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.pool.texts import idle_report
from django_psycopg_pooled.statements.fingerprint import fingerprint
from django_psycopg_pooled.testing.idling import Idle, IdleWatch

if TYPE_CHECKING:
    from django.db.models import QuerySet

SHOWN = 3  # transactions or loans that are named in full
PAUSE_S = 0.005  # between two looks at what other threads still do

Using = str | Iterable[str] | None


@contextmanager
def assert_no_idle_in_transaction(longer_than: float = 0.5, using: Using = None) -> Iterator[None]:
    """Fail if a transaction does nothing for too long in the block, or is left open at its end.

    longer_than  seconds that may pass between two statements of a transaction, in any thread
    using        an alias or some; None for every pool of this process

    Looked at are transactions, and atomic blocks, that begin in the block. Those of this thread
    must end in it; those of other threads may go on. Blocks at its end until these have executed
    something, ended or failed: for *longer_than* and 0.05 s at the longest.
    """
    watch = IdleWatch(_finder(using), longer_than)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
    left = watch.left_open()
    if not left:
        watch.settle()
    if left:
        raise AssertionError(
            f"{_count(left, 'transaction')} left open by this thread.\n{_reports(left)}\n"
            "To do: end it where it was begun, by commit(), rollback() or the end of atomic();"
            " after set_autocommit(False) also by set_autocommit(True)."
        )
    if watch.found:
        raise AssertionError(
            f"{_count(watch.found, 'transaction')} idle for longer than {longer_than:g} s.\n"
            f"{_reports(watch.found)}\n"
            "To do: do what takes long before the transaction, or after it by on_commit(); or raise"
            " longer_than."
        )


@contextmanager
def assert_no_leaked_connections(within: float = 1.0, using: Using = None) -> Iterator[None]:
    """Fail if a connection that was lent in the block does not come back.

    within   seconds that other threads have after the block to give back what they have
    using    an alias or some; None for every pool of this process

    What django.db.connections of this thread has at the end is no leak: the end of the request, or
    of the test, gives it back. Blocks at the end of the block for *within* at the longest.
    """
    find = _finder(using)
    before = _lent(find())
    reclaimed = {id(pool): pool.get_stats()["reclaimed"] for pool in find()}
    yield
    pause, waited = threading.Event(), 0.0
    while (leaked := _leaked(find(), before)) and waited < within:
        pause.wait(PAUSE_S)
        waited += PAUSE_S
    found = find()
    # One that was lost before the block may have been taken back in it.
    gone = len(before - _lent(found))
    lost = sum(pool.get_stats()["reclaimed"] - reclaimed.get(id(pool), 0) for pool in found) - gone
    if leaked:
        loans = "\n".join(_loan_report(*loan) for loan in leaked[:SHOWN])
        raise AssertionError(
            f"{_count(leaked, 'connection')} not given back.\n{loans}{_more(leaked)}\n"
            "To do: end each thread that uses the database with connections.close_all(), and each"
            " getconn() with putconn()."
        )
    if lost > 0:
        raise AssertionError(
            f"{lost} lent in the block had to be taken back, since nobody could give them back any"
            " more: their threads had ended, or their wrappers were dropped. The log names the"
            " lines that borrowed them.\n"
            "To do: end each thread that uses the database with connections.close_all()."
        )


@contextmanager
def assert_prepared(
    statement: "QuerySet[Any, Any] | str", using: str | None = None
) -> Iterator[None]:
    """Fail unless *statement* is executed in the block, once at least as a prepared statement.

    statement  a queryset, or SQL with %s, as for add_prepare_target(); its parameters do not count
    using      the alias; None for the queryset's, or "default"

    A queryset's count(), get(), exists() and slices are other statements. Does not block. Raises
    TypeError for anything else.
    """
    pool = pools[str(using or getattr(statement, "db", "default"))]
    sql = statement if isinstance(statement, str) else pool._sql_of(statement)
    text = fingerprint(sql)
    hits, calls = _hits(pool, text), _calls(pool, text)
    yield
    if _hits(pool, text) <= hits:
        executed = _calls(pool, text) - calls
        why = _why_not_prepared(pool, text) if executed or not pool.options.track_queries else ""
        times = "once" if executed == 1 else f"{executed} times"
        happened = f"was executed {times}, never prepared" if why else "was not executed"
        raise AssertionError(
            f"this statement {happened} on {pool.name!r} in the block: {text}\n"
            + (why or "Its text must be the same: count(), get(), exists() and slices change it.")
        )


class PooledAssertionsMixin:
    """The same with Django's names, for any of its TestCases; lives as long as the test.

    class OrderTests(PooledAssertionsMixin, TestCase):
        def test_checkout(self):
            with self.assertNoIdleInTransaction():
                self.client.post("/checkout/")
    """

    def assertNoIdleInTransaction(
        self, longer_than: float = 0.5, using: Using = None
    ) -> AbstractContextManager[None]:
        """See assert_no_idle_in_transaction()."""
        return assert_no_idle_in_transaction(longer_than, using)

    def assertNoLeakedConnections(
        self, within: float = 1.0, using: Using = None
    ) -> AbstractContextManager[None]:
        """See assert_no_leaked_connections()."""
        return assert_no_leaked_connections(within, using)

    def assertPrepared(
        self, statement: "QuerySet[Any, Any] | str", using: str | None = None
    ) -> AbstractContextManager[None]:
        """See assert_prepared()."""
        return assert_prepared(statement, using)


def _finder(using: Using) -> Callable[[], list[DatabasePool]]:
    """What finds the pools to look at. Raises KeyError for an alias that has none."""
    if using is None:
        return pools.all
    chosen = [pools[alias] for alias in ([using] if isinstance(using, str) else using)]
    return lambda: chosen


def _count(items: Sequence[object], what: str) -> str:
    return f"1 {what} was" if len(items) == 1 else f"{len(items)} {what}s were"


def _more(items: Sequence[object]) -> str:
    return f"\n... and {len(items) - SHOWN} more" if len(items) > SHOWN else ""


# ---- idle in transaction


def _reports(idle: Sequence[Idle]) -> str:
    reports = [idle_report(each.pool, each.facts, each.idle_s) for each in idle[:SHOWN]]
    return "\n".join(reports) + _more(idle)


# ---- leaks

Lent = tuple[int, int, int]  # the pool's id, the connection's number, and how often it was lent


def _lent(found: Iterable[DatabasePool]) -> set[Lent]:
    return {key for key, _, _ in _loans(found)}


def _loans(found: Iterable[DatabasePool]) -> list[tuple[Lent, DatabasePool, ConnectionSnapshot]]:
    return [
        ((id(pool), connection.number, connection.uses), pool, connection)
        for pool in found
        for connection in pool.connections()
        if connection.state == "lent"
    ]


def _leaked(
    found: Iterable[DatabasePool], before: set[Lent]
) -> list[tuple[DatabasePool, ConnectionSnapshot]]:
    mine = _of_this_thread()
    return [
        (pool, facts) for key, pool, facts in _loans(found) if key not in before and key not in mine
    ]


def _of_this_thread() -> set[Lent]:
    """What this thread's django.db.connections have borrowed and will give back."""
    return {
        (id(wrapper._lender), lease.entry.number, lease.number)
        for wrapper in connections.all(initialized_only=True)
        if isinstance(wrapper, PooledWrapper)
        and (lease := wrapper._lease) is not None
        and not lease.ended
    }


def _loan_report(pool: DatabasePool, loan: ConnectionSnapshot) -> str:
    work = f" ({loan.label})" if loan.label else ""
    here = loan.thread_id == threading.get_ident()
    lines = (
        ("last statement:", loan.statement),
        ("borrowed at", "; from ".join(loan.stacks.get("borrowed", ()))),
        ("last statement at", loan.last_statement_at),
        ("now at", "" if here else loan.now_at),
    )
    return "\n  ".join(
        [
            f"pool {pool.name!r}: lent for {loan.in_state_s:.1f} s to thread {loan.thread!r}{work},"
            f" {loan.activity}, server process {loan.server_pid}",
            *(f"{what} {said}" for what, said in lines if said),
        ]
    )


# ---- prepared statements


def _facts(pool: DatabasePool, text: str) -> list[PreparedFacts]:
    return [facts for facts in pool.prepared() if facts.text == text]


def _hits(pool: DatabasePool, text: str) -> int:
    return sum(facts.hits for facts in _facts(pool, text))


def _calls(pool: DatabasePool, text: str) -> int:
    """How often it was executed, in any way; 0 if statements are not counted."""
    counted = pool.queries.top(1_000_000, by="calls")
    return sum(query.calls for query in counted if query.text == text)


def _why_not_prepared(pool: DatabasePool, text: str) -> str:
    options = pool.options
    if options.pooler and options.prepare is None:
        return f"Behind a pooler nothing is prepared by itself (pooler={options.pooler!r})."
    if options.prepare is None and not BINDING.by_default:
        return f"With {DRIVER.name} nothing is prepared by itself: set prepare to 'auto'."
    if options.prepare is False:
        return "The pool's option prepare is False: set it to 'auto' or 'registered'."
    reasons = [
        f"It is {facts.state}: {facts.reason}{facts.sqlstate and f' ({facts.sqlstate})'}."
        for facts in _facts(pool, text)
        if facts.reason
    ]
    if reasons:
        return "\n".join(reasons)
    if options.prepare == "registered":
        return "The pool's option prepare is 'registered': name it by add_prepare_target()."
    return (
        f"It is prepared once it was executed {options.prepare_threshold} times"
        " (prepare_threshold), at its first execution if add_prepare_target() names it."
    )
