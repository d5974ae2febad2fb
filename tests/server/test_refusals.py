"""What a user reads when the pool refuses, and what `except` clauses see of it."""

import pytest
from django.db import OperationalError, connections

from django_psycopg_pooled import PoolClosed, PoolError, PoolTimeout, TooManyRequests
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import Call, borrow, eventually, lent_to_a_thread, pool_of, wrapper


def refusal(connection: PooledWrapper, ours: type[PoolError]) -> str:
    """The text of the OperationalError that *connection* gets, after a look at its kinds."""
    with pytest.raises(OperationalError) as raised:
        connection.ensure_connection()
    cause = raised.value.__cause__
    assert isinstance(cause, ours)
    assert isinstance(cause, connection.Database.OperationalError)
    assert type(raised.value) is OperationalError
    assert str(cause) == str(raised.value)
    assert connection.connection is None
    return str(raised.value)


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_timeout_names_the_numbers_the_holder_and_what_to_do(
    databases: Databases, num_workers: int
) -> None:
    options = {"max_size": 2, "timeout": 0.1, "num_workers": num_workers}
    connection = databases.add(options, alias="default")
    with lent_to_a_thread("default", "web-3") as pid, lent_to_a_thread("default", "web-4"):
        text = refusal(connection, PoolTimeout)
    what, state, title, longest, second, advice = text.splitlines()
    assert what.startswith("[P101] no connection to 'default' within 0.1 s.")
    assert state.startswith("Pool: 2 of 2 lent, 0 idle, 0 opening; 0 requests waiting.")
    assert state.endswith("Last failed connect: none.")
    assert title == "Longest loans:"
    assert "thread 'web-3', idle, server process" in longest
    assert f"server process {pid}; borrowed at tests/server/support.py:" in longest
    assert "; last statement at tests/server/support.py:" in longest
    assert "; now at tests/server/support.py:" in longest
    assert "thread 'web-4'" in second
    assert "(1) end those loans sooner" in advice
    assert "(2) raise max_size above 2" in advice
    assert "(3) raise timeout above 0.1 s" in advice
    assert pool_of(connection).get_stats()["requests_errors"] == 1


def test_a_thread_that_holds_the_last_connection_itself_is_told_so(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    borrow(connection)
    pool_of(connection).configure(timeout=0.05)  # not before: a connect may take as long
    copy = connection.copy()
    assert isinstance(copy, PooledWrapper)
    text = refusal(copy, PoolTimeout)
    assert "(this very thread)" in text
    assert "This thread already holds a connection of this pool and waits for one more" in text


def test_a_timeout_of_zero_does_not_wait(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    pool = pool_of(connection)
    with lent_to_a_thread(connection.alias):
        pool.configure(timeout=0)
        assert "within 0.0 s" in refusal(connection, PoolTimeout)


def test_a_queue_that_is_full_turns_the_next_request_away_at_once(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "max_waiting": 1, "timeout": 20})
    alias = connection.alias
    pool = pool_of(connection)
    with lent_to_a_thread(alias, "web-5"):
        waiting = Call(lambda: borrow(wrapper(alias)))
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        what, state, _, cause, advice = refusal(connection, TooManyRequests).splitlines()
    assert what.startswith("[P102] 1 request already waiting for a connection to")
    assert "max_waiting is 1" in what
    assert state.startswith("Pool: 1 of 1 lent, 0 idle, 0 opening; 1 request waiting.")
    assert "thread 'web-5'" in cause
    assert "raise max_waiting above 1" in advice
    waiting.outcome()


def test_a_closed_pool_says_what_to_do(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 20})
    pool = pool_of(connection)
    with lent_to_a_thread(connection.alias):
        waiting = Call(lambda: refusal(wrapper(connection.alias), PoolClosed))
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        pool.close()
        what, _state, _cause, advice = waiting.outcome().splitlines()
    assert what == f"[P103] the pool {connection.alias!r} is closed."
    assert advice.startswith("To do: take the connection from Django again")


def test_a_timeout_while_the_server_is_away_carries_the_last_failure(
    databases: Databases,
) -> None:
    connection = databases.add({"timeout": 0.5, "min_size": 0})
    borrow(connection)
    connection.close()
    databases.server.stop()
    try:
        text = refusal(connection, PoolTimeout)
    finally:
        databases.server.start()
    _what, state, cause, advice = text.splitlines()
    assert "s ago: " in state
    assert "Connection refused" in state
    assert cause == "Likely cause: the server is down, full, or cannot be reached from here."
    assert "see that the server runs" in advice


def test_a_refused_request_leaves_the_alias_usable(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    with lent_to_a_thread(connection.alias):
        pool_of(connection).configure(timeout=0.05)
        refusal(connection, PoolTimeout)
    assert borrow(connections[connection.alias]) > 0  # type: ignore[arg-type]


def test_the_drivers_refusals_are_both_ours_and_the_drivers() -> None:
    driver: Driver = DRIVER
    for theirs, ours in (
        (driver.PoolTimeout, PoolTimeout),
        (driver.TooManyRequests, TooManyRequests),
        (driver.PoolClosed, PoolClosed),
    ):
        assert issubclass(theirs, ours)
        assert [base.__name__ for base in theirs.__mro__].count("OperationalError") == 1
