"""What users' own tests can assert of their pools, and the faults that they can cause."""

import threading
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.test import TestCase, TransactionTestCase

from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.testing.assertions import (
    PooledAssertionsMixin,
    assert_no_idle_in_transaction,
    assert_no_leaked_connections,
    assert_prepared,
)
from django_psycopg_pooled.testing.faults import (
    delay_connects,
    drop_idle,
    fail_connects,
    kill_backend,
)
from tests.server.databases import Databases
from tests.server.support import (
    Call,
    borrow,
    eventually,
    fill,
    in_thread,
    lent_to_a_thread,
    pool_of,
    value,
    wrapper,
)
from tests.server.things import BY_ID, Thing, prepared_pool, with_things

HERE = "tests/server/test_testing_kit.py"
LIMIT_S = 0.2  # longer than a busy machine pauses between two statements


def line_of(name: str) -> str:
    """The place in this file that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {name}")]
    return f"{HERE}:{number} "


def call_an_api(seconds: float = 2 * LIMIT_S) -> None:
    threading.Event().wait(seconds)  # line: api


@pytest.fixture
def connection(databases: Databases) -> PooledWrapper:
    return databases.add({"max_size": 4})


@contextmanager
def fails(*parts: str) -> Iterator[None]:
    """The block raises AssertionError with all these *parts* in its text."""
    with pytest.raises(AssertionError) as caught:
        yield
    for part in parts:
        assert part in str(caught.value)


# ---- idle in transaction


def checkout(connection: PooledWrapper) -> None:
    with transaction.atomic(using=connection.alias):  # line: begun
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")  # line: last
        call_an_api()
        value(connection, "SELECT 2")


def test_a_slow_call_in_a_transaction_is_named_with_its_lines(connection: PooledWrapper) -> None:
    with (
        fails(
            "1 transaction was idle for longer than 0.2 s",
            "last statement: SELECT ?",
            f"transaction begun at {line_of('begun')}",
            f"last statement at {line_of('last')}",
            f"thread is now at {line_of('api')}",
            "To do: do what takes long before the transaction",
        ),
        assert_no_idle_in_transaction(LIMIT_S),
    ):
        checkout(connection)


def test_slow_statements_and_slow_calls_outside_of_transactions_are_well(
    connection: PooledWrapper,
) -> None:
    with assert_no_idle_in_transaction(LIMIT_S):
        with transaction.atomic(using=connection.alias):
            value(connection, f"SELECT pg_sleep({2 * LIMIT_S})")
            value(connection, "SELECT 1")
        call_an_api()
        value(connection, "SELECT 1")


@pytest.mark.parametrize("begin", ["SELECT 1", "BEGIN"])
def test_a_transaction_that_is_left_open_is_told_at_once(
    connection: PooledWrapper, begin: str
) -> None:
    began = time.monotonic()
    with (
        fails("1 transaction was left open by this thread", HERE),
        assert_no_idle_in_transaction(longer_than=30),
    ):
        if begin == "BEGIN":
            connection.ensure_connection()
        else:
            connection.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute(begin)
    assert time.monotonic() - began < 15  # it did not wait for longer_than
    connection.close()


def test_what_was_open_before_does_not_count_but_blocks_inside_do(
    connection: PooledWrapper,
) -> None:
    alias = connection.alias
    with transaction.atomic(using=alias):
        value(connection, "SELECT 1")
        call_an_api()
        with assert_no_idle_in_transaction(LIMIT_S):
            call_an_api()
        with assert_no_idle_in_transaction(LIMIT_S), transaction.atomic(using=alias):
            value(connection, "SELECT 1")
        with (
            fails(line_of("api")),
            assert_no_idle_in_transaction(LIMIT_S),
            transaction.atomic(using=alias),
        ):
            call_an_api()


def test_another_threads_transaction_counts(connection: PooledWrapper) -> None:
    alias = connection.alias

    def work() -> None:
        with transaction.atomic(using=alias):
            value(wrapper(alias), "SELECT 1")
            call_an_api()

    with fails("thread 'web-3'", line_of("api")), assert_no_idle_in_transaction(LIMIT_S):
        Call(work, "web-3").outcome()


@pytest.mark.parametrize("pause", [0.0, 3 * LIMIT_S])
def test_a_transaction_that_outlasts_the_block_must_go_on_in_time(
    connection: PooledWrapper, pause: float
) -> None:
    alias, inside = connection.alias, threading.Event()

    def work() -> None:
        with transaction.atomic(using=alias):
            value(wrapper(alias), "SELECT 1")
            inside.set()
            call_an_api(pause)

    with ExitStack() as expected:
        if pause:
            expected.enter_context(fails("thread 'web-3'", line_of("api")))
        with assert_no_idle_in_transaction(LIMIT_S):
            call = Call(work, "web-3")
            assert inside.wait(10)
    call.outcome()


def test_fetching_from_a_server_side_cursor_is_no_idling(databases: Databases) -> None:
    things = with_things(databases)
    value(things, "WITH more AS (INSERT INTO things (name)"
                  " SELECT 'n' || i FROM generate_series(1, 100) i RETURNING 1)"
                  " SELECT count(*) FROM more")  # fmt: skip
    found = Thing._default_manager.using(things.alias).iterator(chunk_size=1)
    with assert_no_idle_in_transaction(LIMIT_S), transaction.atomic(using=things.alias):
        for _ in found:
            call_an_api(LIMIT_S / 40)


def test_the_blocks_own_exception_is_the_one_that_is_raised(connection: PooledWrapper) -> None:
    def fail() -> None:
        connection.set_autocommit(False)
        value(connection, "SELECT 1")
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        assert_no_idle_in_transaction(LIMIT_S),
        assert_no_leaked_connections(),
        assert_prepared(BY_ID, connection.alias),
    ):
        fail()


def test_only_the_aliases_that_are_asked_for_are_looked_at(databases: Databases) -> None:
    one, other = databases.add(True), databases.add(True)
    with assert_no_idle_in_transaction(using=one.alias), assert_no_leaked_connections(0, one.alias):
        other.set_autocommit(False)
        value(other, "SELECT 1")
        raw = pool_of(other).getconn()
    pool_of(other).putconn(raw)
    other.close()
    unpooled = databases.add(False)
    with pytest.raises(KeyError), assert_no_leaked_connections(using=[one.alias, unpooled.alias]):
        pass


def test_a_pool_that_is_opened_in_the_block_is_looked_at(databases: Databases) -> None:
    with fails("left open"), assert_no_idle_in_transaction():
        connection = databases.add(True)
        connection.set_autocommit(False)
        value(connection, "SELECT 1")


# ---- in Django's TestCases


def run(case: type[TransactionTestCase], alias: str) -> dict[str, str]:
    """Run the tests of *case*, which may use *alias*; the failures' texts by the tests' names."""
    case.databases = {alias}
    result = unittest.TestResult()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    suite.run(result)
    assert result.testsRun
    assert not result.errors, result.errors[0][1]
    return {str(test).split()[0]: text for test, text in result.failures}


def test_the_log_has_no_word_of_a_test_cases_own_transaction_but_of_the_codes_blocks(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    connection = databases.add({"idle_in_transaction_threshold": 0.2})
    alias = connection.alias

    class Slow(TestCase):
        def test_a_slow_test(self) -> None:
            value(connection, "SELECT 1")
            call_an_api()
            call_an_api()

    class SlowCode(TestCase):
        def test_slow_code(self) -> None:
            with transaction.atomic(using=alias):
                value(connection, "SELECT 1")
                eventually(lambda: "idle in transaction" in caplog.text)

    assert not run(Slow, alias)
    assert "idle in transaction" not in caplog.text
    assert not run(SlowCode, alias)


def test_what_a_test_case_holds_does_not_count_but_the_codes_own_blocks_do(
    connection: PooledWrapper,
) -> None:
    alias = connection.alias

    class Cases(PooledAssertionsMixin, TestCase):
        def test_idle_in_the_test_cases_transaction(self) -> None:
            value(connection, "SELECT 1")
            with self.assertNoIdleInTransaction(LIMIT_S), self.assertNoLeakedConnections():
                call_an_api()
                value(connection, "SELECT 1")
                call_an_api()

        def test_a_block_that_is_prompt(self) -> None:
            call_an_api()
            with self.assertNoIdleInTransaction(LIMIT_S):
                with transaction.atomic(using=alias, savepoint=False):
                    value(connection, "SELECT 1")
                call_an_api()

        def test_a_block_that_is_idle(self) -> None:
            with self.assertNoIdleInTransaction(LIMIT_S), transaction.atomic(using=alias):
                value(connection, "SELECT 1")
                call_an_api()

        def test_a_threads_transaction(self) -> None:
            def work() -> None:
                with transaction.atomic(using=alias):
                    value(wrapper(alias), "SELECT 1")
                    call_an_api()

            with self.assertNoIdleInTransaction(LIMIT_S):
                Call(work, "web-3").outcome()

        def test_a_leak(self) -> None:
            with lent_to_a_thread(alias), self.assertNoLeakedConnections(0):
                keep.enter_context(lent_to_a_thread(alias, "leaker"))

    with ExitStack() as keep:
        failed = run(Cases, alias)
    assert failed.keys() == {
        "test_a_block_that_is_idle", "test_a_threads_transaction", "test_a_leak"
    }  # fmt: skip
    assert line_of("api") in failed["test_a_block_that_is_idle"]
    assert "transaction begun at" not in failed["test_a_block_that_is_idle"]  # the TestCase's
    assert "atomic blocks deep" not in failed["test_a_block_that_is_idle"]
    assert "thread 'web-3'" in failed["test_a_threads_transaction"]
    assert "1 connection was not given back" in failed["test_a_leak"]
    assert "'leaker'" in failed["test_a_leak"]


def test_a_transaction_test_case_may_kill_its_own_connection(connection: PooledWrapper) -> None:
    alias = connection.alias

    class Cases(PooledAssertionsMixin, TransactionTestCase):
        def test_it_recovers(self) -> None:
            value(connection, "SELECT 1")
            kill_backend(alias)
            with pytest.raises(OperationalError):
                value(connection, "SELECT 1")
            connection.close()
            assert value(connection, "SELECT 1") == 1

    assert run(Cases, alias) == {}


def test_a_test_case_outlives_a_kill_in_its_last_test(connection: PooledWrapper) -> None:
    alias = connection.alias

    class Cases(TestCase):
        def test_it_dies(self) -> None:
            value(connection, "SELECT 1")
            kill_backend(alias)
            with pytest.raises(OperationalError):
                value(connection, "SELECT 1")

    assert run(Cases, alias) == {}
    assert value(connection, "SELECT 1") == 1


# ---- leaks


def test_a_thread_that_keeps_its_connection_is_named(connection: PooledWrapper) -> None:
    with (
        ExitStack() as keep,
        fails(
            "1 connection was not given back",
            "to thread 'web-3', idle",
            "borrowed at tests/server/support.py:",
            "now at tests/server/support.py:",
            "To do: end each thread that uses the database with connections.close_all()",
        ),
        assert_no_leaked_connections(0.05),
    ):
        keep.enter_context(lent_to_a_thread(connection.alias, "web-3"))


def test_a_thread_that_ended_without_close_is_named(
    connection: PooledWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_psycopg_pooled.pool.lookout.SHORTEST_PAUSE_S", 60.0)
    monkeypatch.setattr("django_psycopg_pooled.pool.lookout.LONGEST_PAUSE_S", 60.0)
    alias = connection.alias

    def work() -> None:
        value(wrapper(alias), "SELECT 1")  # line: forgets

    with fails("'web-3 (ended)'", "last statement: SELECT ?"), assert_no_leaked_connections(0):
        thread = threading.Thread(target=work, name="web-3")
        thread.start()
        thread.join()
    pool_of(connection).configure(max_size=1)
    value(connection, "SELECT 1")  # waits, and so takes it back


def test_what_had_to_be_taken_back_in_the_block_is_told(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    alias = connection.alias

    def forget() -> None:
        thread = threading.Thread(target=lambda: value(wrapper(alias), "SELECT 1"))
        thread.start()
        thread.join()

    with fails("1 lent in the block had to be taken back"), assert_no_leaked_connections():
        forget()
        assert value(connection, "SELECT 1") == 1
        connection.close()
    forget()
    with assert_no_leaked_connections():  # that one was lost before
        assert value(connection, "SELECT 1") == 1


def test_what_this_thread_will_give_back_is_no_leak(connection: PooledWrapper) -> None:
    with assert_no_leaked_connections(0):
        borrow(connection)
    with assert_no_leaked_connections(0):
        connection.close()
        borrow(connection)


def test_what_was_lent_before_is_no_leak(connection: PooledWrapper) -> None:
    with lent_to_a_thread(connection.alias):
        raw = pool_of(connection).getconn()
        with assert_no_leaked_connections(0):
            in_thread(lambda: value(wrapper(connection.alias), "SELECT 1"))
        pool_of(connection).putconn(raw)


def test_connections_that_only_this_threads_code_can_give_back_are_leaks(
    connection: PooledWrapper,
) -> None:
    pool = pool_of(connection)
    copy = connection.copy()
    with fails("2 connections were not given back", HERE), assert_no_leaked_connections(0):
        raw = pool.getconn()
        copy.ensure_connection()
    pool.putconn(raw)
    copy.close()


def test_a_thread_that_gives_back_soon_after_is_waited_for(connection: PooledWrapper) -> None:
    alias, holds, end = connection.alias, threading.Event(), threading.Event()

    def work() -> None:
        borrow(wrapper(alias))
        holds.set()
        end.wait(10)

    timer = threading.Timer(0.2, end.set)
    with assert_no_leaked_connections(within=10):
        call = Call(work)
        assert holds.wait(10)
        timer.start()
    call.outcome()
    timer.join()


# ---- prepared statements


def test_a_statement_that_runs_prepared_is_well(databases: Databases) -> None:
    things = with_things(databases)
    with assert_prepared(BY_ID, things.alias):
        assert value(things, BY_ID, 1) == "one"
    found = Thing._default_manager.using(things.alias).filter(name="one")
    with assert_prepared(found):
        assert len(found.all()) == 1
    other = Thing._default_manager.using(things.alias).filter(name="other")
    with assert_prepared(found):  # a parameter is no difference
        assert not list(other)


def test_what_is_no_statement_is_refused(databases: Databases) -> None:
    databases.add(alias="default")
    with pytest.raises(TypeError, match="statement is 5; it must be a queryset, or SQL"):
        assert_prepared(5).__enter__()  # type: ignore[arg-type]


def test_a_statement_that_is_not_executed_in_the_block_fails(databases: Databases) -> None:
    things = with_things(databases)
    found = Thing._default_manager.using(things.alias).filter(name="one")
    assert len(found.all()) == 1
    with fails("was not executed", "count(), get(), exists()"), assert_prepared(found):
        assert found.count() == 1


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ({"prepare": False}, "The pool's option prepare is False"),
        ({"prepare_threshold": 3}, "once it was executed 3 times (prepare_threshold)"),
        ({"prepare": "registered"}, "name it by add_prepare_target()"),
    ],
)
def test_a_statement_that_runs_plain_is_told_with_the_reason(
    databases: Databases, pool: dict[str, Any], reason: str
) -> None:
    things = with_things(databases, **pool)
    with (
        fails("was executed once, never prepared", "SELECT name FROM things", reason),
        assert_prepared(BY_ID, things.alias),
    ):
        value(things, BY_ID, 1)


def test_what_the_default_prepares_depends_on_the_driver(databases: Databases) -> None:
    things = with_things(databases, prepare=None, prepare_threshold=5)
    reason = (
        "It is prepared once it was executed 5 times (prepare_threshold)"
        if is_psycopg3
        else "With psycopg2 nothing is prepared by itself: set prepare to 'auto'"
    )
    with fails("was executed once, never prepared", reason), assert_prepared(BY_ID, things.alias):
        value(things, BY_ID, 1)


def test_a_statement_that_cannot_be_prepared_is_told_with_the_pools_reason(
    databases: Databases,
) -> None:
    things = with_things(databases)
    sql = "SELECT name FROM things WHERE id = 1"
    prepared_pool(things).add_prepare_target(sql)
    with fails("It is denied: it has no parameters."), assert_prepared(sql, things.alias):
        value(things, sql)


def test_what_other_threads_execute_counts_as_prepared(databases: Databases) -> None:
    things = with_things(databases, track_queries=False)
    with assert_prepared(BY_ID, things.alias):
        in_thread(lambda: value(wrapper(things.alias), BY_ID, 1))


def test_prepared_statements_are_seen_in_a_test_case(databases: Databases) -> None:
    things = with_things(databases)

    class Cases(PooledAssertionsMixin, TestCase):
        def test_prepared(self) -> None:
            with self.assertPrepared(Thing._default_manager.using(things.alias).filter(pk=1)):
                list(Thing._default_manager.using(things.alias).filter(pk=2))

        def test_not_prepared(self) -> None:
            with self.assertPrepared(BY_ID, things.alias):
                value(things, "SELECT 1")

    assert run(Cases, things.alias).keys() == {"test_not_prepared"}


# ---- faults


def test_a_killed_backend_is_gone_and_the_client_finds_out_itself(
    databases: Databases, connection: PooledWrapper
) -> None:
    pid = borrow(connection)
    assert kill_backend(connection.alias) == pid
    assert databases.server.backends(f"pid = {pid}") == 0
    with pytest.raises(OperationalError):
        value(connection, "SELECT 1")
    connection.close()
    assert value(connection, "SELECT 1") == 1


def test_another_threads_backend_is_killed_by_its_connection(connection: PooledWrapper) -> None:
    alias, ready, killed = connection.alias, threading.Event(), threading.Event()
    theirs: list[PooledWrapper] = []

    @transaction.atomic(using=alias)
    def checkout() -> None:
        value(wrapper(alias), "SELECT 1")
        ready.set()
        assert killed.wait(10)
        value(wrapper(alias), "SELECT 1")

    def work() -> int:
        theirs.append(wrapper(alias))
        with pytest.raises(OperationalError):
            checkout()
        wrapper(alias).close()
        return int(value(wrapper(alias), "SELECT 2"))

    call = Call(work)
    assert ready.wait(10)
    kill_backend(theirs[0])
    killed.set()
    assert call.outcome() == 2


def test_without_a_connection_nothing_is_killed(databases: Databases) -> None:
    connection = databases.add({"release": "transaction"})
    value(connection, "SELECT 1")
    with pytest.raises(ValueError, match="has no connection in the thread"):
        kill_backend(connection.alias)

    @transaction.atomic(using=connection.alias)
    def checkout() -> None:
        value(connection, "SELECT 1")
        kill_backend(connection.alias)
        value(connection, "SELECT 1")

    with pytest.raises(OperationalError):
        checkout()


def test_what_has_no_pool_or_stands_behind_a_pooler_is_refused(databases: Databases) -> None:
    unpooled = databases.add(False)
    borrow(unpooled)
    with pytest.raises(ValueError, match="has no pool"):
        kill_backend(unpooled)
    pooled = databases.add({"pooler": "pgbouncer"})
    borrow(pooled)
    with pytest.raises(ValueError, match="behind a pooler"):
        kill_backend(pooled)


def test_the_pool_finds_out_that_its_idle_sessions_were_ended(
    databases: Databases, connection: PooledWrapper
) -> None:
    pool = pool_of(connection)
    pids = fill(pool, 3)
    assert drop_idle(connection.alias) == 3
    assert pool.snapshot().count("idle") == 3
    assert databases.server.backends(f"pid IN ({', '.join(map(str, pids))})") == 0
    assert borrow(connection) not in pids
    assert pool.get_stats()["connections_lost"] == 3
    assert value(connection, "SELECT 1") == 1


def test_nothing_idle_is_nothing_to_drop(connection: PooledWrapper) -> None:
    assert drop_idle(connection.alias) == 0


def test_what_the_kit_asks_the_server_is_not_among_the_pools_statements(
    connection: PooledWrapper,
) -> None:
    fill(pool_of(connection), 1)
    drop_idle(connection.alias)
    borrow(connection)
    kill_backend(connection.alias)
    texts = [query.text for query in prepared_pool(connection).queries.top(100, by="calls")]
    assert not [text for text in texts if "pg_terminate_backend" in text]
    connection.close()


def test_delayed_connects_keep_requests_waiting(databases: Databases) -> None:
    connection = databases.add({"timeout": 0.2})
    with delay_connects(connection.alias, seconds=30) as fault:
        with pytest.raises(OperationalError, match="P101"):
            value(connection, "SELECT 1")
        assert fault.connects
    began = time.monotonic()
    pool_of(connection).configure(timeout=10)
    assert value(connection, "SELECT 1") == 1
    assert time.monotonic() - began < 5  # what had begun did not wait for its 30 s


def test_a_delay_that_fits_is_only_waited_for(connection: PooledWrapper) -> None:
    with delay_connects(connection.alias, seconds=0.2) as fault:
        began = time.monotonic()
        assert value(connection, "SELECT 1") == 1
        assert time.monotonic() - began >= 0.2
        assert fault.connects >= 1


def test_idle_connections_are_lent_while_connects_fail(connection: PooledWrapper) -> None:
    fill(pool_of(connection), 1)
    with fail_connects(connection.alias) as fault:
        assert value(connection, "SELECT 1") == 1
        connection.close()
        drop_idle(connection.alias)  # its own connect does not fail
        pool_of(connection).configure(timeout=0.3)
        with pytest.raises(OperationalError, match=r"P101[^!]*by fail_connects\(\) of a test"):
            value(connection, "SELECT 1")
        assert fault.connects
    assert pool_of(connection).snapshot().last_failure is None  # so nobody waits for a next try
    assert value(connection, "SELECT 1") == 1


def test_a_few_failed_connects_are_bridged_by_the_pool(connection: PooledWrapper) -> None:
    fill(pool_of(connection), 1)
    drop_idle(connection.alias)
    with fail_connects(connection.alias, times=2) as fault:
        assert value(connection, "SELECT 1") == 1
        assert fault.connects == 2


def test_a_pool_that_never_had_a_connection_fails_at_once(connection: PooledWrapper) -> None:
    with (
        fail_connects(connection.alias),
        pytest.raises(OperationalError, match="Connection refused"),
    ):
        value(connection, "SELECT 1")
    assert value(connection, "SELECT 1") == 1


def test_the_error_of_failed_connects_is_the_tests_choice(connection: PooledWrapper) -> None:
    fill(pool_of(connection), 1)
    drop_idle(connection.alias)
    error = DRIVER.PoolClosed('FATAL: password authentication failed for user "shop"')
    with (
        fail_connects(connection.alias, error=error),
        pytest.raises(DatabaseError, match="password authentication failed"),
    ):
        value(connection, "SELECT 1")
    assert value(connection, "SELECT 1") == 1


def test_faults_end_when_the_block_raises(connection: PooledWrapper) -> None:
    connector = pool_of(connection)._core.connector
    with pytest.raises(ZeroDivisionError), fail_connects(connection.alias):
        raise ZeroDivisionError
    assert pool_of(connection)._core.connector == connector
    assert value(connection, "SELECT 1") == 1


def test_faults_of_several_threads_do_not_end_each_other(connection: PooledWrapper) -> None:
    alias, pool = connection.alias, pool_of(connection)
    connector = pool._core.connector
    first, second = threading.Event(), threading.Event()

    def slow() -> None:
        with delay_connects(alias, seconds=0.2):
            first.set()
            assert second.wait(10)

    call = Call(slow)
    assert first.wait(10)
    with fail_connects(alias, times=1):
        second.set()
        call.outcome()  # the one that began first ends first
        with pytest.raises(OperationalError, match="Connection refused"):
            value(connection, "SELECT 1")
    assert pool._core.connector == connector
    assert value(connection, "SELECT 1") == 1


@pytest.mark.parametrize("fault", [fail_connects, delay_connects])
def test_other_aliases_are_not_touched(databases: Databases, fault: Callable[..., Any]) -> None:
    one, other = databases.add(True), databases.add(True)
    with fault(one.alias) as struck:
        assert value(other, "SELECT 1") == 1
    assert struck.connects == 0


def test_threads_meet_a_fault_together_and_all_recover(databases: Databases) -> None:
    connection = databases.add({"max_size": 8, "timeout": 20})
    fill(pool_of(connection), 1)
    drop_idle(connection.alias)
    with fail_connects(connection.alias, times=3):
        calls = [Call(lambda: value(wrapper(connection.alias), "SELECT 1")) for _ in range(8)]
        assert [call.outcome() for call in calls] == [1] * 8
    eventually(lambda: not pool_of(connection).snapshot().count("opening"))
    connections.close_all()
