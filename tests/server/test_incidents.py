"""What is kept when something goes wrong: who had what, who waited, and which lines of code."""

import dataclasses
import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from django_psycopg_pooled.facts.incidents import Incident
from django_psycopg_pooled.integration import events
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.signals import incident
from tests.server.databases import Databases
from tests.server.support import Call, eventually, in_thread, pool_of, value, wrapper

TIMEOUT = "pool timeout"
BLOCKS = "idle in transaction blocks others"
UPDATE = "UPDATE stock SET left_over = left_over - 1 WHERE id = 1 RETURNING 'secret of a customer'"


class Stock:
    """A table with a row that one thread locks and others want."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.connection = self.alias({})
        for sql in ("DROP TABLE IF EXISTS stock", "CREATE TABLE stock (id int, left_over int)",
                    "INSERT INTO stock VALUES (1, 5)"):  # fmt: skip
            with self.connection.cursor() as cursor:
                cursor.execute(sql)
        self.connection.close()
        self._done = Event()
        self._calls: list[Call] = []

    def alias(self, options: dict[str, Any]) -> PooledWrapper:
        self.connection = self.databases.add({"idle_in_transaction_threshold": 0.2, **options})
        return self.connection

    @property
    def pool(self) -> DatabasePool:
        pool = pool_of(self.connection)
        assert isinstance(pool, DatabasePool)
        return pool

    def hold(self) -> None:
        """A thread locks the row and then does nothing until the end of the test."""
        alias = self.connection.alias

        def charge() -> None:
            with transaction.atomic(alias):
                value(wrapper(alias), UPDATE)
                self._done.wait(20)

        self._calls.append(Call(charge, "holder"))
        eventually(lambda: self.pool.idle_in_transaction(0.0))

    def want(self) -> None:
        """A thread wants the row, and waits."""
        alias = self.connection.alias
        self._calls.append(Call(lambda: value(wrapper(alias), UPDATE), "waiter"))
        eventually(lambda: self.databases.server.backends("wait_event_type = 'Lock'"))

    def release(self) -> None:
        self._done.set()
        for call in self._calls:
            call.outcome()

    def kept(self, kind: str) -> list[Incident]:
        return [each for each in self.pool.incidents() if each.kind == kind]

    def time_out(self) -> None:
        with pytest.raises(DatabaseError, match="P101"):
            in_thread(lambda: value(wrapper(self.connection.alias), "SELECT 1"))


@pytest.fixture
def stock(databases: Databases) -> Iterator[Stock]:
    stock = Stock(databases)
    yield stock
    stock.release()


# ---- an idle transaction that blocks others


def test_an_idle_transaction_that_blocks_others_is_kept_with_the_tree_and_the_lines(
    stock: Stock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    def receiver(sender: Any, **kwargs: Any) -> None:
        heard.append((sender, kwargs["pool"], kwargs["incident"]))

    incident.connect(receiver)
    try:
        stock.hold()
        stock.want()
        eventually(lambda: stock.kept(BLOCKS), 5)
    finally:
        incident.disconnect(receiver)
    [kept] = stock.kept(BLOCKS)
    assert heard == [(DatabasePool, stock.pool, kept)]
    assert "idle in transaction blocks others; what was seen is kept" in caplog.text
    holder, waiter = (
        next(c for c in kept.pool.connections if c.thread == name) for name in ("holder", "waiter")
    )
    assert holder.transaction_at.endswith("in Stock.hold.<locals>.charge")
    assert holder.now_at.endswith("in Stock.hold.<locals>.charge")
    assert (waiter.activity, waiter.statement.startswith("UPDATE stock")) == ("active", True)
    assert kept.server is not None
    [root] = kept.server.blocking
    assert (root.who, root.waiters[0].who) == (holder.server_pid, waiter.server_pid)
    assert any(query.text.startswith("UPDATE stock") for query in kept.queries)


def test_who_comes_to_wait_later_is_noticed_too(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ASK_AGAIN_S", 0.2)
    stock.hold()
    eventually(lambda: stock.pool.get_stats()["idle_in_transaction"])
    eventually(lambda: stock.pool._events._asking)
    stock.want()
    eventually(lambda: stock.kept(BLOCKS), 5)


def test_one_that_blocks_nobody_is_not_kept_and_the_server_is_asked_no_more_when_it_has_ended(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ASK_AGAIN_S", 0.1)
    stock.hold()
    eventually(lambda: stock.pool._events._asking)
    stock.release()
    eventually(lambda: not stock.pool._events._asking)
    assert stock.pool.incidents() == []


# ---- a request that waited in vain


def test_a_timeout_keeps_who_had_the_connections_and_once_a_minute_only(stock: Stock) -> None:
    stock.alias({"max_size": 1, "timeout": 0.2})
    stock.hold()
    stock.time_out()
    stock.time_out()
    eventually(lambda: stock.kept(TIMEOUT))
    [kept] = stock.kept(TIMEOUT)
    [loan] = kept.pool.connections
    assert (loan.thread, loan.activity) == ("holder", "idle in transaction")
    assert loan.transaction_at.endswith("in Stock.hold.<locals>.charge")
    assert kept.server is not None
    assert kept.server.backend(loan.server_pid or 0) is not None
    assert kept.problem == ""


def test_a_timeout_is_kept_though_the_server_cannot_be_asked(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(pool: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(events, "ask_server", refuses)
    stock.alias({"max_size": 1, "timeout": 0.2})
    stock.hold()
    stock.time_out()
    eventually(lambda: stock.kept(TIMEOUT))
    [kept] = stock.kept(TIMEOUT)
    assert kept.problem == "the server could not be asked: OSError: no route to host"
    assert kept.server is None
    assert kept.pool.connections[0].thread == "holder"


# ---- what holds of all


def test_ten_are_kept_the_latest_first(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_psycopg_pooled.integration.incidents.AGAIN_S", 0.0)
    stock.alias({"max_size": 1, "idle_in_transaction_threshold": 0})
    stock.hold()
    stock.pool.configure(timeout=0.02)
    count: list[Any] = []

    def receiver(**kwargs: Any) -> None:
        count.append(kwargs["incident"])

    incident.connect(receiver)
    try:
        for number in range(12):
            stock.time_out()
            eventually(lambda n=number: len(count) > n)  # type: ignore[misc]
    finally:
        incident.disconnect(receiver)
    assert stock.pool.incidents() == count[:1:-1]


def test_an_incident_is_json_without_secrets(stock: Stock) -> None:
    stock.alias({"max_size": 1, "timeout": 0.2})
    stock.hold()
    stock.time_out()
    eventually(lambda: stock.kept(TIMEOUT))
    text = json.dumps(dataclasses.asdict(stock.kept(TIMEOUT)[0]))
    assert "UPDATE stock" in text
    assert "secret of a customer" not in text
    assert stock.databases.server.password not in text


def test_a_receiver_that_raises_is_logged_and_takes_nothing_from_the_request(
    stock: Stock, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(**kwargs: Any) -> None:
        raise RuntimeError("the pager is away")

    stock.alias({"max_size": 1, "timeout": 0.2})
    stock.hold()
    incident.connect(fails)
    try:
        stock.time_out()
        eventually(lambda: "the pager is away" in caplog.text)
    finally:
        incident.disconnect(fails)
    assert len(stock.kept(TIMEOUT)) == 1
