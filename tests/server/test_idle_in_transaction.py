"""Who is idle in a transaction: as facts, as text, by hook and signal, and in an error's note."""

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from django_psycopg_pooled.facts.pool import ConnectionSnapshot
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.signals import idle_in_transaction
from tests.server.databases import Databases
from tests.server.support import Call, eventually, pool_of, value, wrapper

HERE = "tests/server/test_idle_in_transaction.py"
SOON = {"idle_in_transaction_threshold": 0.2}


def database_pool(connection: PooledWrapper) -> DatabasePool:
    pool = pool_of(connection)
    assert isinstance(pool, DatabasePool)
    return pool


def pay(alias: str, paid: Event) -> None:
    """Waits for something else in the midst of a transaction, as calls of payment gateways do."""
    with transaction.atomic(alias):
        value(wrapper(alias), "SELECT 'secret of a customer'")
        paid.wait(20)


def line_of(function: Any, text: str) -> str:
    """The place of that line of a function's, as reports name it."""
    code = function.__code__
    with open(code.co_filename) as file:
        lines = file.read().splitlines()
    number = next(n for n, s in enumerate(lines, 1) if n >= code.co_firstlineno and text in s)
    return f"{HERE}:{number} in {function.__qualname__}"


BEGUN = line_of(pay, "transaction.atomic")
LAST = line_of(pay, "SELECT")
NOW = line_of(pay, "paid.wait")


@contextlib.contextmanager
def paying(alias: str) -> Iterator[None]:
    """A thread is in pay() all the while."""
    paid = Event()
    call = Call(lambda: pay(alias, paid), "web-1")
    try:
        yield
    finally:
        paid.set()
        call.outcome()


# ---- facts and text


def test_a_loan_tells_its_transaction_its_last_statement_and_where_its_thread_is(
    databases: Databases,
) -> None:
    connection = databases.add({})
    pool = database_pool(connection)
    with paying(connection.alias):
        eventually(lambda: [c for c in pool.connections() if c.quiet_s is not None])
        [loan] = [c for c in pool.connections() if c.state == "lent"]
    assert (loan.thread, loan.activity) == ("web-1", "idle in transaction")
    assert (loan.transaction_at, loan.now_at) == (BEGUN, NOW)
    assert LAST in loan.stacks["last statement"]
    assert (loan.statement, loan.atomic_depth, loan.durable) == ("SELECT ?", 1, False)
    assert 0 <= (loan.quiet_s or 0) <= (loan.transaction_s or 0) < 10


def test_idle_in_transaction_lists_those_that_are_old_enough_and_only_those(
    databases: Databases,
) -> None:
    connection = databases.add({})
    pool = database_pool(connection)
    value(connection, "SELECT 1")  # lent, but in no transaction
    with paying(connection.alias):
        eventually(lambda: pool.idle_in_transaction(older_than=0.05))
        assert len(pool.idle_in_transaction(older_than=0.05)) == 1
        assert pool.idle_in_transaction(older_than=60) == []
        text = pool.idle_in_tx_stacks()
    for expected in ("'web-1'", "SELECT ?", f"begun at {BEGUN}", LAST, f"is now at {NOW}"):
        assert expected in text
    assert "secret" not in text
    assert pool.idle_in_tx_stacks() == f"pool {pool.name!r}: nothing is idle in a transaction"


def test_nested_and_durable_blocks_are_counted(databases: Databases) -> None:
    connection = databases.add({})
    alias = connection.alias
    with transaction.atomic(alias, durable=True), transaction.atomic(alias):
        value(connection, "SELECT 1")
        [loan] = [c for c in database_pool(connection).connections() if c.state == "lent"]
        assert (loan.atomic_depth, loan.durable) == (2, True)


def test_outside_autocommit_each_commit_begins_the_next_transaction(databases: Databases) -> None:
    connection = databases.add({})
    connection.set_autocommit(False)
    value(connection, "SELECT 1")
    time.sleep(0.2)
    connection.commit()
    value(connection, "SELECT 1")
    [loan] = [c for c in database_pool(connection).connections() if c.state == "lent"]
    assert (loan.transaction_s or 9) < 0.2
    assert "begins_the_next_transaction" in loan.transaction_at
    connection.rollback()
    connection.set_autocommit(True)
    [loan] = [c for c in database_pool(connection).connections() if c.state == "lent"]
    assert (loan.transaction_s, loan.transaction_at) == (None, "")


def test_a_transaction_that_was_left_open_is_not_shown_as_the_next_borrowers(
    databases: Databases,
) -> None:
    connection = databases.add({"max_size": 1})
    connection.set_autocommit(False)
    value(connection, "SELECT 1")
    connection.close()
    value(connection, "SELECT 1")
    [loan] = database_pool(connection).connections()
    assert (loan.uses, loan.transaction_at, loan.transaction_s) == (2, "", None)


# ---- reports


def test_a_report_and_its_end_are_logged_and_hook_and_signal_hear_of_it(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    hooked: list[ConnectionSnapshot] = []
    heard: list[Any] = []

    def receiver(sender: Any, **kwargs: Any) -> None:
        heard.append((sender, kwargs["pool"], kwargs["connection"]))

    connection = databases.add({**SOON, "on_idle_in_transaction": hooked.append})
    pool = database_pool(connection)
    idle_in_transaction.connect(receiver)
    try:
        with paying(connection.alias):
            eventually(lambda: heard)
    finally:
        idle_in_transaction.disconnect(receiver)
    assert heard == [(DatabasePool, pool, hooked[0])]
    assert hooked[0].transaction_at == BEGUN
    eventually(lambda: "s in all" in caplog.text)
    for expected in (f"begun at {BEGUN}", LAST, f"now at {NOW}", f"of {BEGUN} was idle for"):
        assert expected in caplog.text
    assert "secret" not in caplog.text
    assert pool.get_stats()["idle_in_transaction"] == 1


def test_a_hook_and_a_receiver_that_raise_are_logged_and_the_lookout_goes_on(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the pager is away")

    connection = databases.add({**SOON, "on_idle_in_transaction": fails})
    pool = database_pool(connection)
    idle_in_transaction.connect(fails, weak=False)
    try:
        for count in (1, 2):
            with paying(connection.alias):
                eventually(lambda c=count: pool.get_stats()["idle_in_transaction"] == c)  # type: ignore[misc]
    finally:
        idle_in_transaction.disconnect(fails)
    assert caplog.text.count("RuntimeError: the pager is away") >= 2


def test_a_threshold_that_is_set_while_running_holds_for_what_is_lent_already(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    connection = databases.add({"idle_in_transaction_threshold": 0})
    pool = database_pool(connection)
    with paying(connection.alias):
        eventually(lambda: pool.idle_in_transaction(older_than=0.0))
        pool.configure(idle_in_transaction_threshold=0.1)
        eventually(lambda: "idle in transaction for" in caplog.text, 3)


def test_no_thread_looks_while_nothing_is_lent(databases: Databases) -> None:
    connection = databases.add(SOON)
    value(connection, "SELECT 1")
    core = database_pool(connection)._core
    assert core.looking
    connection.close()
    eventually(lambda: not core.looking, 3)


# ---- idle_in_transaction_timeout: the server ends it


LIMIT = {"idle_in_transaction_timeout": 0.3, "idle_in_transaction_threshold": 0.1}


def idle_too_long(connection: PooledWrapper, then: Callable[[], object]) -> BaseException:
    """The driver's exception for what comes after too long a time."""

    def work() -> None:
        with transaction.atomic(connection.alias):
            pid = value(connection, "SELECT pg_backend_pid()")
            with database_pool(connection).dedicated() as line:
                eventually(lambda: not _lives(line.connection, pid))
            then()

    with pytest.raises(DatabaseError) as raised:
        work()
    assert raised.value.__cause__ is not None
    return raised.value.__cause__


def _ended_line() -> str:
    line = line_of(idle_too_long, "transaction.atomic")
    return line.replace("idle_too_long", "idle_too_long.<locals>.work")


def _lives(raw: Any, pid: int) -> bool:
    with raw.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid])
        return bool(cursor.fetchone()[0])


@pytest.mark.parametrize("then", ["a statement", "commit()"])
def test_an_error_of_a_session_that_was_idle_too_long_names_the_line_and_for_how_long(
    databases: Databases, then: str
) -> None:
    connection = databases.add(LIMIT)
    action = (lambda: value(connection, "SELECT 2")) if then == "a statement" else lambda: None
    error = idle_too_long(connection, action)
    assert isinstance(error, DRIVER.Error)
    [note] = error.__notes__
    assert note.startswith(f"The transaction begun at {_ended_line()} was idle for ")
    assert 0.2 <= float(note.partition("idle for ")[2].split()[0]) < 10
    assert note.endswith("(idle_in_transaction_timeout is 0.3 s).")
    assert note in "".join(traceback.format_exception(error))
    if DRIVER.name == "psycopg":
        assert (DRIVER.sqlstate(error), str(error)) == (
            "25P03", "terminating connection due to idle-in-transaction timeout",
        )  # fmt: skip
    else:  # it does not read why
        assert (DRIVER.sqlstate(error), "probably" in note) == (None, True)
        assert str(error).startswith("server closed the connection unexpectedly")
    assert value(connection, "SELECT 3") == 3


@pytest.mark.skipif(
    DRIVER.name == "psycopg2", reason="psycopg2 does not read why the server hung up"
)
def test_without_the_lookout_the_error_still_names_the_line(databases: Databases) -> None:
    connection = databases.add({**LIMIT, "idle_in_transaction_threshold": 0})
    error = idle_too_long(connection, lambda: value(connection, "SELECT 2"))
    [note] = error.__notes__
    assert 0.2 <= float(note.partition("idle for ")[2].split()[0]) < 10
    assert _ended_line() in note


def test_other_errors_have_no_note(databases: Databases) -> None:
    connection = databases.add({"idle_in_transaction_timeout": 60, **SOON})

    def fails(sql: str) -> None:
        with transaction.atomic(connection.alias):
            value(connection, sql)

    def is_ended() -> None:
        with transaction.atomic(connection.alias):
            pid = value(connection, "SELECT pg_backend_pid()")
            databases.server.psql(f"SELECT pg_terminate_backend({pid}, 5000)")
            value(connection, "SELECT 1")

    for action in (partial(fails, "SELECT 1 / 0"), partial(fails, "SELEKT"), is_ended):
        with pytest.raises(DatabaseError) as raised:
            action()
        assert not hasattr(raised.value.__cause__, "__notes__")


def test_the_servers_own_limit_is_named_as_such(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    """Set on the server, or by the user's own SET: what the pool knows is the line."""
    caplog.set_level(logging.CRITICAL)
    options = {"options": "-c idle_in_transaction_session_timeout=300"}
    connection = databases.add({"idle_in_transaction_threshold": 0.1}, options=options)
    error = idle_too_long(connection, lambda: value(connection, "SELECT 2"))
    notes = getattr(error, "__notes__", [])
    if DRIVER.name == "psycopg2":
        assert notes == [], "it could have been anything"
    else:
        assert "so the server ended it." in notes[0]
