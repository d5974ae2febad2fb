"""Who holds up whom, read from real servers: PostgreSQL 18 and Debian's 15.

deadlock_timeout is long, so that the server leaves cycles, and migrations behind autovacuum, alone.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from devtools.postgres import SYSTEM_USER, PostgresServer
from django_psycopg_pooled.facts.server import BackendFacts, BlockingNode, ServerFacts
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.server.view import read_server
from django_psycopg_pooled.tables.server import blocking_text
from tests.server.databases import END_ALL
from tests.server.support import DATABASE, DEBIAN_BIN, Call, eventually, require

DATABASE_API: Any = importlib.import_module(DRIVER.name)
OPTIONS = {
    "deadlock_timeout": "5min",
    "max_prepared_transactions": 5,
    "autovacuum_naptime": "1s",
    "max_connections": 100,
}


class Session:
    """One connection of a driver's own, without a pool; lives for one test."""

    def __init__(self, server: PostgresServer, autocommit: bool = False, **kwargs: Any) -> None:
        self.raw = DATABASE_API.connect(**{**server.connect_kwargs(DATABASE), **kwargs})
        self.raw.autocommit = autocommit
        self.pid = DRIVER.server_pid(self.raw)
        self._call: Call | None = None

    def run(self, sql: str) -> None:
        with self.raw.cursor() as cursor:
            cursor.execute(sql)

    def query(self, sql: str, params: Sequence[Any]) -> list[Any]:
        with self.raw.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def start(self, sql: str) -> None:
        """Run a statement that will have to wait, in a thread."""
        self._call = Call(lambda: self.run(sql))

    def ended(self) -> None:
        """Wait for the statement that was started."""
        assert self._call is not None
        self._call.outcome()

    def close(self) -> None:
        if self._call is not None:
            self._call.join(30)
        self.raw.close()


class Scene:
    """A server, sessions on it, and one more that looks at them."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._sessions: list[Session] = []
        self.look = self.session(autocommit=True)

    def session(self, **kwargs: Any) -> Session:
        """A session in a transaction, as soon as it has run something."""
        self._sessions.append(Session(self.server, **kwargs))
        return self._sessions[-1]

    def facts(self) -> ServerFacts:
        return read_server(self.look.query, str)

    def waiting(self, *sessions: Session) -> ServerFacts:
        """The facts as soon as all *sessions* wait for a lock, and are known to wait for whom."""
        seen: list[ServerFacts] = []

        def all_wait() -> bool:
            seen[:] = [self.facts()]
            return all(self.of(seen[0], session).behind for session in sessions)

        eventually(all_wait)
        return seen[0]

    def of(self, facts: ServerFacts, session: Session) -> BackendFacts:
        found = facts.backend(session.pid)
        assert found is not None
        return found

    def end(self) -> None:
        # Terminated and not closed: a driver's close() would wait for a statement that waits.
        self.server.psql(END_ALL.replace(", 5000", ""))
        for session in self._sessions:
            session.close()


@pytest.fixture(scope="module", params=["PostgreSQL 18", "Debian's 15"])
def patient_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    kwargs: dict[str, Any] = {"bin_dir": None, "system_user": SYSTEM_USER}
    if request.param == "Debian's 15":
        require(DEBIAN_BIN.is_dir(), f"{DEBIAN_BIN} is missing: 'apt-get install postgresql-15'.")
        kwargs = {"bin_dir": DEBIAN_BIN, "system_user": "postgres"}
    with PostgresServer(options=OPTIONS, **kwargs) as server:
        server.create_database(DATABASE)
        server.psql(
            "CREATE TABLE orders (id int PRIMARY KEY, status text);"
            " INSERT INTO orders SELECT n, 'new' FROM generate_series(1, 9) n",
            DATABASE,
        )
        yield server


@pytest.fixture
def scene(patient_server: PostgresServer) -> Iterator[Scene]:
    scene = Scene(patient_server)
    try:
        yield scene
    finally:
        scene.end()


def update(number: int) -> str:
    return f"UPDATE orders SET status = 'paid' WHERE id = {number}"


def shape(node: BlockingNode) -> Any:
    return f"{node.who} again" if node.again else [node.who, *map(shape, node.waiters)]


def shapes(facts: ServerFacts) -> list[Any]:
    return [shape(root) for root in facts.blocking]


def test_a_chain_of_three_is_one_branch_with_what_each_waits_for(scene: Scene) -> None:
    holder, second, third = (scene.session() for _ in range(3))
    holder.run(update(1))
    second.run(update(2))
    second.start(update(1))
    scene.waiting(second)
    third.start(update(2))
    facts = scene.waiting(second, third)
    assert shapes(facts) == [[holder.pid, [second.pid, [third.pid]]]]
    assert facts.blocking[0].blocks == 2
    root = scene.of(facts, holder)
    assert root.state == "idle in transaction"
    assert root.waits_for is None
    assert root.xact_age_s is not None
    assert root.state_age_s is not None
    assert root.xact_age_s >= root.state_age_s >= 0
    lock = scene.of(facts, second).waits_for
    assert lock is not None
    assert (lock.kind, lock.name) == ("row", "row of orders")
    assert lock.wait_s is not None
    assert 0 <= lock.wait_s < 30
    assert scene.of(facts, second).query == update(1)
    holder.raw.rollback()
    second.ended()
    assert shapes(scene.waiting(third)) == [[second.pid, [third.pid]]]


def test_two_who_share_a_table_lock_are_both_holders(scene: Scene) -> None:
    first, second, waiter = (scene.session() for _ in range(3))
    for session in (first, second):
        session.run("LOCK TABLE orders IN SHARE MODE")
    waiter.start(update(1))
    facts = scene.waiting(waiter)
    low, high = sorted([first.pid, second.pid])
    assert shapes(facts) == [[low, [waiter.pid]], [high, f"{waiter.pid} again"]]
    behind = scene.of(facts, waiter)
    assert behind.behind_count == 2
    assert [(h.who, h.modes, h.queued) for h in behind.behind] == [
        (low, ("SHARE",), False),
        (high, ("SHARE",), False),
    ]


def test_two_who_share_a_row_are_waited_for_one_after_the_other(scene: Scene) -> None:
    """The server names only the one that it waits for at the moment."""
    first, second, waiter = (scene.session() for _ in range(3))
    for session in (first, second):
        session.run("SELECT FROM orders WHERE id = 1 FOR SHARE")
    waiter.start(update(1))
    [[now, _]] = shapes(scene.waiting(waiter))
    assert now in (first.pid, second.pid)
    then = second if now == first.pid else first
    (first if now == first.pid else second).raw.rollback()
    eventually(lambda: shapes(scene.facts()) == [[then.pid, [waiter.pid]]])
    then.raw.rollback()
    waiter.ended()


def test_a_deadlock_is_seen_before_the_server_ends_it(scene: Scene) -> None:
    first, second, third = (scene.session() for _ in range(3))
    for number, session in enumerate((first, second), 1):
        session.run(update(number))
    first.start(update(2))
    scene.waiting(first)
    second.start(update(1))
    scene.waiting(second)
    third.start(update(1))
    facts = scene.waiting(first, second, third)
    [cycle] = facts.cycles
    assert set(cycle) == {first.pid, second.pid}
    [root] = facts.blocking
    assert root.in_cycle
    assert root.blocks == 2
    assert "Deadlock: " in blocking_text(facts)


@pytest.mark.parametrize(
    ("key", "name"),
    [("42", "42"), ("-7", "-7"), ("1, -2", "1, -2"), (str(2**62), str(2**62))],
)
def test_an_advisory_lock_is_named_by_its_key(scene: Scene, key: str, name: str) -> None:
    holder, waiter = scene.session(autocommit=True), scene.session()
    holder.run(f"SELECT pg_advisory_lock({key})")
    waiter.start(f"SELECT pg_advisory_xact_lock({key})")
    facts = scene.waiting(waiter)
    assert shapes(facts) == [[holder.pid, [waiter.pid]]]
    assert scene.of(facts, holder).state == "idle"  # outside a transaction, and yet it holds
    lock = scene.of(facts, waiter).waits_for
    assert lock is not None
    assert (lock.kind, lock.name, lock.mode) == ("advisory", f"advisory lock {name}", "EXCLUSIVE")


def test_lock_table_is_named_with_its_mode(scene: Scene) -> None:
    holder, waiter = scene.session(), scene.session()
    holder.run("SELECT count(*) FROM orders")
    holder.run("LOCK TABLE orders")
    waiter.start("SELECT * FROM orders")
    facts = scene.waiting(waiter)
    lock = scene.of(facts, waiter).waits_for
    assert lock is not None
    assert (lock.kind, lock.name, lock.mode) == ("table", "table orders", "ACCESS SHARE")
    [why] = scene.of(facts, waiter).behind
    assert why.modes == ("ACCESS EXCLUSIVE", "ACCESS SHARE")
    text = blocking_text(facts)
    assert f"{holder.pid} has it in ACCESS EXCLUSIVE" in text
    assert "last: LOCK TABLE orders" in text


def test_a_migration_behind_a_reader_holds_up_all_further_readers(scene: Scene) -> None:
    reader, migration, late = (scene.session() for _ in range(3))
    reader.run("SELECT * FROM orders")
    migration.start("ALTER TABLE orders ADD COLUMN note text")
    scene.waiting(migration)
    late.start("SELECT * FROM orders")
    facts = scene.waiting(migration, late)
    assert shapes(facts) == [[reader.pid, [migration.pid, [late.pid]]]]
    assert not scene.of(facts, migration).behind[0].queued
    assert scene.of(facts, late).behind[0].queued
    assert f"{migration.pid} queues in front of it" in blocking_text(facts)


def test_a_migration_behind_autovacuum_names_it(scene: Scene) -> None:
    scene.server.psql(
        "CREATE TABLE swept (id int) WITH (autovacuum_vacuum_threshold = 0,"
        " autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100,"
        " autovacuum_vacuum_cost_limit = 1);"
        " INSERT INTO swept SELECT generate_series(1, 20000); DELETE FROM swept",
        DATABASE,
    )

    def sweeper() -> BackendFacts | None:
        workers = (b for b in scene.facts().backends if b.kind == "autovacuum worker")
        return next((b for b in workers if "swept" in b.query), None)

    eventually(sweeper)
    migration = scene.session()
    migration.start("ALTER TABLE swept ADD COLUMN note text")
    facts = scene.waiting(migration)
    worker = sweeper()
    assert worker is not None
    assert shapes(facts) == [[worker.pid, [migration.pid]]]
    assert "runs: autovacuum: VACUUM" in blocking_text(facts)
    scene.server.psql(f"SELECT pg_terminate_backend({worker.pid})")
    migration.ended()
    migration.raw.rollback()
    scene.server.psql("DROP TABLE swept", DATABASE)


@pytest.fixture
def prepared(patient_server: PostgresServer) -> Iterator[Callable[[str], None]]:
    """Leaves a transaction prepared by a name, after an update of row 5; undone at the end."""
    names: list[str] = []

    def prepare(name: str) -> None:
        with contextlib.closing(Session(patient_server, autocommit=True)) as session:
            session.run("BEGIN")
            session.run(update(5))
            session.run(f"PREPARE TRANSACTION '{name}'")
        names.append(name)

    yield prepare
    for name in names:
        patient_server.psql(f"ROLLBACK PREPARED '{name}'", DATABASE)


def test_a_prepared_transaction_is_a_holder_by_its_name(
    scene: Scene, prepared: Callable[[str], None]
) -> None:
    prepared("payment 7")
    assert "Prepared transaction 'payment 7'" in blocking_text(scene.facts())
    waiter, second = scene.session(), scene.session()
    waiter.start(update(5))
    scene.waiting(waiter)
    second.start(update(5))
    facts = scene.waiting(waiter, second)
    assert shapes(facts) == [["payment 7", [waiter.pid, [second.pid]]]]
    [transaction] = facts.prepared
    assert transaction.gid == "payment 7"
    assert 0 <= transaction.age_s < 30
    assert (transaction.owner, transaction.database) == (scene.server.user, DATABASE)
    assert "ROLLBACK PREPARED 'payment 7';" in blocking_text(facts)


def test_a_queue_of_many_for_one_row_stays_a_line_each(scene: Scene) -> None:
    holder = scene.session()
    holder.run(update(1))
    queue = [scene.session() for _ in range(25)]
    for session in queue:
        session.start(update(1))
    facts = scene.waiting(*queue)
    [root] = facts.blocking
    assert root.who == holder.pid
    assert root.blocks == 25
    [first] = root.waiters  # it has marked the row; the others queue for the mark
    assert len(first.waiters) == 24
    assert all(len(b.behind) == 1 for b in facts.waiting)


def test_of_very_many_holders_ten_are_named_and_all_are_counted(scene: Scene) -> None:
    readers: list[int] = []
    for _ in range(12):
        reader = scene.session()
        reader.run("SELECT * FROM orders")
        readers.append(reader.pid)
    migration = scene.session()
    migration.start("ALTER TABLE orders ADD COLUMN note text")
    facts = scene.waiting(migration)
    waits = scene.of(facts, migration)
    assert waits.behind_count == 12
    assert [h.who for h in waits.behind] == sorted(readers)[:10]
    assert "and 2 more" in blocking_text(facts)


def test_one_who_waits_for_a_new_row_with_the_same_key_waits_for_its_transaction(
    scene: Scene,
) -> None:
    holder, waiter = scene.session(), scene.session()
    insert = "INSERT INTO orders VALUES (100, 'new')"
    holder.run(insert)
    waiter.start(insert)
    lock = scene.of(scene.waiting(waiter), waiter).waits_for
    assert lock is not None
    assert lock.kind == "transaction"
    assert lock.name.startswith("transaction ")
