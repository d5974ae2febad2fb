"""Prepared statements while the schema, the session or the server changes under them."""

import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import Error, connections, transaction
from django.test.utils import override_settings

from devtools.postgres import PostgresServer, postgres
from django_psycopg_pooled.drivers.preparing import NAME_PREFIX
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases, looked_after
from tests.server.support import DATABASE, Call, eventually, value, wrapper
from tests.server.things import CREATE_FORGET, FORGET

ALL = {"prepare": "auto", "prepare_threshold": 0}
THREADS = 8
CREATE = (
    "CREATE TABLE hot_thing (id bigint PRIMARY KEY, number int NOT NULL, name varchar(20));"
    f"INSERT INTO hot_thing SELECT n, n, 'thing ' || n FROM generate_series(0, {THREADS - 1}) n"
)
# Behind the pool's back, as another process's migrations are. Each is one transaction.
CHANGES = {
    "a selected column gets another type": "ALTER TABLE hot_thing ALTER number TYPE bigint",
    "and its first one again": "ALTER TABLE hot_thing ALTER number TYPE int",
    "a text gets longer": "ALTER TABLE hot_thing ALTER name TYPE text",
    "a column comes": "ALTER TABLE hot_thing ADD COLUMN more int DEFAULT 5",
    "a column goes": "ALTER TABLE hot_thing DROP COLUMN IF EXISTS more",
    "the table is made anew": f"DROP TABLE hot_thing; {CREATE}",
    "an index comes": "CREATE INDEX ON hot_thing (number)",
}
MIGRATIONS = {
    "hot/__init__.py": "",
    "hot/migrations/__init__.py": "",
    "hot/migrations/0001_initial.py": """
from django.db import migrations
class Migration(migrations.Migration):
    initial = True
""",
    "hot/migrations/0002_change.py": """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("hot", "0001_initial")]
    operations = [migrations.RunSQL(
        "ALTER TABLE hot_thing ALTER number TYPE numeric",
        "ALTER TABLE hot_thing ALTER number TYPE int",
    )]
""",
}


@pytest.fixture
def hot(databases: Databases) -> Iterator[Databases]:
    """With a table that everybody reads."""
    databases.server.psql(CREATE, DATABASE)
    yield databases
    databases.server.psql("DROP TABLE hot_thing", DATABASE)


def pool_of(connection: PooledWrapper) -> DatabasePool:
    pool = connection.pool
    assert isinstance(pool, DatabasePool)
    return pool


def hits(connection: PooledWrapper, text: str = "hot_thing") -> int:
    return sum(each.hits for each in pool_of(connection).prepared() if text in each.text)


class Traffic:
    """Threads that execute the same few statements, half of them in transactions.

    The statements are new ones in each round, as those whose tables change all the time are given
    up. Every other thread is in autocommit.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._ended = threading.Event()
        self._round = 0
        self.served = [0] * THREADS
        self.failures: list[list[str]] = [[] for _ in range(THREADS)]
        self._calls = [Call(partial(self._work, number)) for number in range(THREADS)]

    def start_round(self) -> None:
        self._round += 1
        self.all_go_on(4)

    def all_go_on(self, times: int) -> None:
        """Wait until each thread was served so many times more."""
        goal = [served + times for served in self.served]
        eventually(lambda: all(a >= b for a, b in zip(self.served, goal, strict=True)))

    def end(self) -> None:
        self._ended.set()
        for call in self._calls:
            call.outcome()

    def _work(self, thread: int) -> None:
        while not self._ended.is_set():
            try:
                if thread % 2:
                    self._execute(thread)
                else:
                    with transaction.atomic(using=self._alias):
                        self._execute(thread)
                self.served[thread] += 1
            except Error as error:
                self.failures[thread].append(f"{type(error).__name__}: {error}")
            finally:
                connections.close_all()

    def _execute(self, thread: int) -> None:
        connection, mark = wrapper(self._alias), f" AND {self._round} = {self._round}"
        for sql in (
            f"SELECT * FROM hot_thing WHERE id = %s{mark}",
            f"SELECT number, name, id FROM hot_thing WHERE id = %s{mark}",
            f"UPDATE hot_thing SET number = number WHERE id = %s{mark} RETURNING number",
        ):
            found = [row[0] for row in rows(connection, sql, thread)]
            # None: see test_who_waits_for_a_table_to_be_rewritten_sees_its_rows.
            assert found == [thread] or (DRIVER.name == "psycopg2" and not found)


def test_the_schema_changes_under_load_without_an_error_in_autocommit(
    hot: Databases,
    script_folder: Callable[[dict[str, str]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And with one at the most in each transaction that was under way."""
    monkeypatch.syspath_prepend(str(script_folder(MIGRATIONS)))
    connection = hot.add({**ALL, "max_size": THREADS})
    alias = connection.alias

    def migrate(to: str) -> None:
        call_command("migrate", "hot", to, database=alias, verbosity=0)

    actions: dict[str, Callable[[], object]] = {
        name: partial(hot.server.psql, sql, DATABASE) for name, sql in CHANGES.items()
    }
    actions["migrate"] = partial(migrate, "0002")
    actions["migrate back"] = partial(migrate, "0001")
    seed = random.randrange(1_000_000)
    order = list(actions)
    random.Random(seed).shuffle(order)
    with override_settings(INSTALLED_APPS=["hot"]):
        migrate("0001")
        traffic = Traffic(alias)
        try:
            for name in order:
                traffic.start_round()
                assert hits(connection) > 0
                before = [len(each) for each in traffic.failures]
                actions[name]()
                traffic.all_go_on(4)
                for thread, failures in enumerate(traffic.failures):
                    new = failures[before[thread] :]
                    assert len(new) <= (thread + 1) % 2, f"{name}, seed {seed}, {thread}: {new}"
        finally:
            traffic.end()
            hot.server.psql("DROP TABLE IF EXISTS django_migrations", DATABASE)
    # Some may be demoted, for the time that they have waited for locks; none is given up.
    assert "denied" not in {each.state for each in pool_of(connection).prepared()}


BY_ID = "SELECT name FROM hot_thing WHERE id = %s"
IN_A_DO = "DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$"


def execute(connection: PooledWrapper, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def rows(connection: PooledWrapper, sql: str, *params: int) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        found: list[tuple[object, ...]] = cursor.fetchall()
    return found


def warm(connection: PooledWrapper) -> None:
    for number in range(3):
        assert value(connection, BY_ID, number) == f"thing {number}"
    assert hits(connection) > 0


@pytest.mark.parametrize("sql", ["DEALLOCATE ALL", IN_A_DO, "DISCARD ALL", FORGET])
def test_what_a_borrower_deallocates_is_prepared_anew(hot: Databases, sql: str) -> None:
    connection = hot.add({**ALL, "max_size": 1})
    warm(connection)
    execute(connection, CREATE_FORGET)
    execute(connection, sql)
    assert value(connection, BY_ID, 4) == "thing 4"
    with transaction.atomic(using=connection.alias):
        assert value(connection, BY_ID, 5) == "thing 5"
    before = hits(connection)
    assert value(connection, BY_ID, 6) == "thing 6"
    assert hits(connection) == before + 1


def test_what_is_deallocated_in_a_transaction_fails_that_one_at_the_most(hot: Databases) -> None:
    connection = hot.add({**ALL, "max_size": 1})
    alias = connection.alias
    warm(connection)
    execute(connection, CREATE_FORGET)

    def deallocate_and_read(sql: str) -> object:
        with transaction.atomic(using=alias):
            execute(connection, sql)
            return value(connection, BY_ID, 4)

    assert deallocate_and_read(IN_A_DO) == "thing 4"
    with pytest.raises(Error, match="does not exist"):
        deallocate_and_read(FORGET)
    for _ in range(2):
        with transaction.atomic(using=alias):
            assert value(connection, BY_ID, 5) == "thing 5"


@pytest.mark.parametrize("prepare", [False, "auto"])
def test_who_waits_for_a_table_to_be_rewritten_sees_its_rows(
    hot: Databases, prepare: object
) -> None:
    """But with psycopg2, prepared: EXECUTE takes its snapshot before it waits. See known limits."""
    connection = hot.add({**ALL, "prepare": prepare, "max_size": 2})
    alias = connection.alias
    for number in range(3):
        assert value(connection, BY_ID, number) == f"thing {number}"
    connection.close()
    other = hot.add({"max_size": 1})
    with transaction.atomic(using=other.alias):
        execute(other, "ALTER TABLE hot_thing ALTER number TYPE bigint")
        reader = Call(lambda: rows(wrapper(alias), BY_ID, 4))
        waits = "wait_event_type = 'Lock'"
        eventually(lambda: hot.server.backends(waits) == 1)
    loses = DRIVER.name == "psycopg2" and prepare
    assert reader.outcome() == ([] if loses else [("thing 4",)])


@pytest.mark.parametrize("reset", ["dirty", "always"])
def test_a_reset_takes_away_what_borrowers_have_prepared_and_leaves_what_the_pool_has(
    hot: Databases, reset: str
) -> None:
    connection = hot.add({**ALL, "max_size": 1, "reset": reset})
    warm(connection)
    execute(connection, "PREPARE mine AS SELECT 1")
    names = "SELECT count(*) FROM pg_prepared_statements WHERE left(name, 5) = %s"
    theirs = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'"
    assert value(connection, theirs) == 1
    connection.close()
    assert value(connection, theirs) == 0
    assert value(connection, names, NAME_PREFIX) >= 1
    before = hits(connection)
    assert value(connection, BY_ID, 4) == "thing 4"
    assert hits(connection) == before + 1


@pytest.fixture
def fragile() -> Iterator[Databases]:
    """Aliases on a server that no other test needs."""
    with postgres() as server:
        server.create_database(DATABASE)
        server.psql(CREATE, DATABASE)
        yield from looked_after(Databases(server))


def test_after_a_restart_of_the_server_the_first_request_is_served(fragile: Databases) -> None:
    connection = fragile.add({**ALL, "max_size": 2})
    warm(connection)
    connection.close()
    server: PostgresServer = fragile.server
    server.restart()
    with transaction.atomic(using=connection.alias):
        assert value(connection, BY_ID, 4) == "thing 4"
    before = hits(connection)
    assert value(connection, BY_ID, 5) == "thing 5"
    assert hits(connection) == before + 1
