"""release="transaction": what gives a connection back between statements, and what keeps it.

PAINS 14 (pinned for the whole request), 29 (named cursors), 7 (commands that outlive the server).
"""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.core.signals import request_finished
from django.db import (
    DatabaseError,
    Error,
    IntegrityError,
    connections,
    models,
    reset_queries,
    transaction,
)
from django.db.backends.signals import connection_created
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext, override_settings

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import (
    Call,
    borrow,
    eventually,
    in_thread,
    pool_of,
    run_script,
    value,
    wrapper,
)

EARLY = {"release": "transaction", "max_size": 1, "timeout": 5}
PID = "SELECT pg_backend_pid()"


class Author(models.Model):
    name = models.CharField(max_length=20, unique=True)
    objects: ClassVar[models.Manager["Author"]] = models.Manager()

    class Meta:
        app_label = "release"


class Book(models.Model):
    author = models.ForeignKey(Author, models.CASCADE)
    price = models.IntegerField(default=0)
    objects: ClassVar[models.Manager["Book"]] = models.Manager()

    class Meta:
        app_label = "release"


@pytest.fixture
def connection(databases: Databases) -> PooledWrapper:
    """An alias with one connection, which goes back between transactions."""
    return databases.add(EARLY)


@pytest.fixture
def library(databases: Databases, connection: PooledWrapper) -> Iterator[PooledWrapper]:
    """The same with ten authors and their books."""
    with connection.schema_editor() as editor:
        editor.create_model(Author)
        editor.create_model(Book)
    authors = [Author(name=f"author {n}") for n in range(10)]
    Author.objects.using(connection.alias).bulk_create(authors)
    Book.objects.using(connection.alias).bulk_create(Book(author=a, price=3) for a in authors)
    assert is_back(connection)
    yield connection
    connection.close()
    databases.server.psql("DROP TABLE release_book; DROP TABLE release_author", "tests")


def is_back(connection: PooledWrapper) -> bool:
    """Whether this thread has given its connection back, and nobody else has one."""
    lent = pool_of(connection).snapshot().count("lent")
    assert (connection.connection is None) == (lent == 0)
    return lent == 0


def pid(connection: PooledWrapper) -> int:
    return int(value(connection, PID))


def run(connection: PooledWrapper, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def authors(connection: PooledWrapper) -> "models.QuerySet[Author]":
    return Author.objects.using(connection.alias)


def kept_by(connection: PooledWrapper, sql: str) -> bool:
    """Whether *sql*, and a statement after it, are executed in one session that stays here."""
    run(connection, sql)
    held = DRIVER.server_pid(connection.connection)
    return pid(connection) == held and not is_back(connection)


# ---- what gives it back


def test_twenty_threads_share_one_connection_while_each_waits_for_something_else(
    connection: PooledWrapper,
) -> None:
    """PAINS 14: with release="request" this takes 20 x 0.2 s; measured: 0.25 s."""
    run(connection, "SELECT 1")

    def view() -> int:
        mine = wrapper(connection.alias)
        one = value(mine, "SELECT 1")
        time.sleep(0.2)  # the API that the view calls
        return int(one) + int(value(mine, "SELECT 1"))

    began = time.monotonic()
    calls = [Call(view) for _ in range(20)]
    assert [call.outcome() for call in calls] == [2] * 20
    assert time.monotonic() - began < 3
    assert pool_of(connection).get_stats()["connections_num"] == 1


def test_by_default_a_thread_keeps_its_connection_until_close(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    run(connection, "SELECT 1")
    assert not is_back(connection)


def by_select(db: PooledWrapper) -> object:
    return list(authors(db))


def by_failing(db: PooledWrapper) -> object:
    with pytest.raises(IntegrityError):
        authors(db).bulk_create([Author(name="author 1")])
    with pytest.raises(DatabaseError):
        run(db, "SELECT * FROM no_such_table")
    return None


def by_prefetching(db: PooledWrapper) -> object:
    books = Book.objects.using(db.alias).prefetch_related("author")
    assert sorted(book.author.name for book in books)[0] == "author 0"
    return None


def by_creating(db: PooledWrapper) -> object:
    assert authors(db).get_or_create(name="author 1")[1] is False
    assert authors(db).get_or_create(name="new")[1] is True
    assert authors(db).update_or_create(name="new", defaults={"name": "newer"})[1] is False
    return None


def by_locking(db: PooledWrapper) -> object:
    with transaction.atomic(using=db.alias):
        author = authors(db).select_for_update().get(name="author 1")
        author.save()
    return None


def by_iterating(db: PooledWrapper) -> object:
    assert len(list(authors(db).iterator(chunk_size=3))) == 10
    with transaction.atomic(using=db.alias):
        assert len(list(authors(db).iterator(chunk_size=3))) == 10
    return None


def by_deleting(db: PooledWrapper) -> object:
    assert Book.objects.using(db.alias).filter(author__name="author 1").delete()[0] == 1
    assert authors(db).filter(name="author 2").update(name="other") == 1
    return None


def by_raw_queries(db: PooledWrapper) -> object:
    raw = Author.objects.using(db.alias).raw("SELECT * FROM release_author ORDER BY id")
    assert raw.columns == ["id", "name"]
    assert raw[0].name == "author 0"
    return None


def by_explaining_and_inspecting(db: PooledWrapper) -> object:
    assert "Scan" in authors(db).explain()
    assert "release_author" in db.introspection.table_names()
    assert db.pg_version > 0
    return None


@pytest.mark.parametrize(
    "use",
    [
        by_select,
        by_failing,
        by_prefetching,
        by_creating,
        by_locking,
        by_iterating,
        by_deleting,
        by_raw_queries,
        by_explaining_and_inspecting,
        lambda db: Book.objects.using(db.alias).aggregate(Sum("price")),
        lambda db: authors(db).first(),
        lambda db: authors(db).exists() and authors(db).count(),
        lambda db: authors(db).bulk_update(list(authors(db)), ["name"], batch_size=3),
        lambda db: Book.objects.using(db.alias).select_related("author").in_bulk(),
    ],
)
def test_the_connection_is_back_after_each_thing_that_the_orm_does(
    library: PooledWrapper, use: Callable[[PooledWrapper], object]
) -> None:
    use(library)
    assert is_back(library)
    assert pool_of(library).get_stats()["returns_bad"] == 0


def test_a_cursor_that_nobody_closes_gives_the_connection_back_when_it_is_gone(
    connection: PooledWrapper,
) -> None:
    cursor = connection.cursor()
    cursor.execute(PID)
    assert not is_back(connection)
    del cursor
    assert is_back(connection)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_the_drivers_own_cursor_keeps_the_connection_when_djangos_is_gone(
    library: PooledWrapper, named: bool, debug: bool
) -> None:
    """psycopg 3's execute() returns it: a statement by it must not run in another's session."""
    with override_settings(DEBUG=debug):
        raw = (library.chunked_cursor() if named else library.cursor()).cursor
    assert not is_back(library)
    run(library, "SELECT 1")
    assert not is_back(library)
    raw.execute("SELECT generate_series(1, 10)")
    assert raw.fetchone()[0] == 1
    raw.close()
    del raw
    assert is_back(library)
    assert pool_of(library).get_stats()["returns_bad"] == 0


def test_copy_keeps_the_session_also_by_a_cursor_that_nobody_else_has(
    library: PooledWrapper, tmp_path: Any
) -> None:
    """As in the drivers' documents: the rows must not go to a session that is another's by then."""
    if DRIVER.name == "psycopg":
        with library.cursor().copy("COPY release_author FROM STDIN") as copy:
            assert not is_back(library)
            copy.write_row((100, "new"))
        del copy
    else:
        copy_expert = library.cursor().copy_expert
        assert not is_back(library)
        (tmp_path / "rows").write_text("100\tnew\n")
        with (tmp_path / "rows").open() as file:
            copy_expert("COPY release_author FROM STDIN", file)
        del copy_expert
    assert is_back(library)
    assert authors(library).get(pk=100).name == "new"


def test_the_drivers_own_cursor_gives_back_in_the_collector_too(connection: PooledWrapper) -> None:
    cycle: list[Any] = [connection.cursor().cursor]
    cycle.append(cycle)
    del cycle
    assert not is_back(connection)
    gc.collect()
    assert connection.connection is None
    assert in_thread(lambda: pid(wrapper(connection.alias)))


class Slotted:
    """A cursor of somebody's own, of a kind that has no weak references."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def test_a_cursor_that_cannot_be_referred_to_weakly_counts_as_long_as_djangos(
    connection: PooledWrapper,
) -> None:
    made = connection.create_cursor
    with mock.patch.object(connection, "create_cursor", lambda name=None: Slotted(made(name))):
        cursor = connection.cursor()
    cursor.execute(PID)
    assert not is_back(connection)
    del cursor
    assert is_back(connection)


def test_closing_one_cursor_twice_does_not_count_twice(connection: PooledWrapper) -> None:
    first, second = connection.cursor(), connection.cursor()
    first.close()
    first.close()
    assert not is_back(connection)
    second.execute(PID)
    second.close()
    assert is_back(connection)


def test_a_cursor_of_an_earlier_loan_does_not_end_the_present_one(
    connection: PooledWrapper,
) -> None:
    old = connection.cursor()
    connection.close()
    with connection.cursor() as cursor:
        old.close()
        del old
        assert not is_back(connection)
        cursor.execute(PID)
    assert is_back(connection)


def test_close_in_the_middle_gives_back_once(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute(PID)
        connection.close()
        assert is_back(connection)
    assert is_back(connection)
    with transaction.atomic(using=connection.alias):
        run(connection, "SELECT 1")
        connection.close()
    assert pid(connection)
    assert is_back(connection)


# ---- transactions


def test_a_transaction_keeps_its_session_through_all_its_blocks(
    connection: PooledWrapper,
) -> None:
    def block(**how: Any) -> Any:
        return transaction.atomic(using=connection.alias, **how)

    with block(durable=True):
        first = pid(connection)
        with block():
            assert pid(connection) == first
        with block(savepoint=False):
            assert pid(connection) == first
        sid = connection.savepoint()
        assert sid
        connection.savepoint_rollback(sid)
        with pytest.raises(ZeroDivisionError), block():
            raise ZeroDivisionError
        assert pid(connection) == first
        assert not is_back(connection)
    assert is_back(connection)


def test_an_exception_in_a_transaction_rolls_back_and_gives_back(library: PooledWrapper) -> None:
    @transaction.atomic(using=library.alias)
    def create() -> None:
        authors(library).create(name="lost")
        authors(library).create(name="author 1")

    with pytest.raises(IntegrityError):
        create()
    assert is_back(library)
    assert not authors(library).filter(name="lost").exists()


def test_autocommit_switched_off_keeps_the_session_until_it_is_on_again(
    connection: PooledWrapper,
) -> None:
    connection.set_autocommit(False)
    first = pid(connection)
    connection.commit()
    assert pid(connection) == first
    connection.rollback()
    assert not is_back(connection)
    connection.set_autocommit(True)
    assert is_back(connection)


def test_a_transaction_begun_by_sql_keeps_the_session_until_its_end(
    connection: PooledWrapper,
) -> None:
    run(connection, "BEGIN")
    first = pid(connection)
    with pytest.raises(DatabaseError):
        run(connection, "SELECT 1 / 0")
    assert not is_back(connection)
    run(connection, "ROLLBACK")
    assert is_back(connection)
    assert pid(connection) == first


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_djangos_own_end_of_a_transaction_begun_by_sql_gives_back(
    connection: PooledWrapper, end: str
) -> None:
    run(connection, "BEGIN")
    run(connection, "SELECT 1")
    getattr(connection, end)()
    if DRIVER.name == "psycopg":
        assert is_back(connection)
    else:  # psycopg2 ends nothing that it has not begun
        assert not is_back(connection)
        run(connection, "COMMIT")
    assert is_back(connection)
    assert pid(connection)
    assert is_back(connection)


def test_hooks_run_once_after_commit_and_may_query(library: PooledWrapper) -> None:
    seen: list[int] = []

    def hook() -> None:
        seen.append(authors(library).count())

    with transaction.atomic(using=library.alias):
        authors(library).create(name="new")
        transaction.on_commit(hook, using=library.alias)
    assert seen == [11]
    assert is_back(library)
    transaction.on_commit(hook, using=library.alias)
    assert seen == [11, 11]
    assert is_back(library)


def test_nothing_is_held_while_a_hook_outside_a_transaction_runs(
    connection: PooledWrapper,
) -> None:
    held: list[bool] = []
    run(connection, "SELECT 1")
    transaction.on_commit(lambda: held.append(not is_back(connection)), using=connection.alias)
    assert held == [False]


def test_nothing_is_held_while_the_hooks_of_a_transaction_run(connection: PooledWrapper) -> None:
    """They call others, and take long: measured with twenty threads, 0.3 s instead of 4.5 s."""

    def view() -> bool:
        mine, held = wrapper(connection.alias), []

        def hook() -> None:
            held.append(mine.connection is not None)
            time.sleep(0.2)

        with transaction.atomic(using=mine.alias):
            run(mine, "SELECT 1")
            transaction.on_commit(hook, using=mine.alias)
        return held == [False]

    began = time.monotonic()
    calls = [Call(view) for _ in range(20)]
    assert all(call.outcome() for call in calls)
    assert time.monotonic() - began < 3


def test_hooks_run_in_their_order_and_borrow_anew(library: PooledWrapper) -> None:
    seen: list[Any] = []

    def inner() -> None:
        seen.append(("inner", library.in_atomic_block, is_back(library)))

    def outer() -> None:
        seen.append(("outer", authors(library).count(), is_back(library)))
        with transaction.atomic(using=library.alias):
            authors(library).create(name="by a hook")
            transaction.on_commit(inner, using=library.alias)
        seen.append(("after", authors(library).count(), is_back(library)))

    with transaction.atomic(using=library.alias):
        authors(library).create(name="new")
        transaction.on_commit(outer, using=library.alias)
        transaction.on_commit(lambda: seen.append("last"), using=library.alias)
    assert seen == [("outer", 11, True), ("inner", False, True), ("after", 12, True), "last"]


@pytest.mark.parametrize("release", ["request", "transaction", None])
def test_a_hook_that_raises_stops_the_later_ones_unless_it_is_robust(
    databases: Databases, release: str | None
) -> None:
    """As in stock; and the connection is back."""
    connection = databases.add({**EARLY, "release": release} if release else False)
    ran: list[str] = []

    def fail() -> None:
        ran.append("failed")
        raise ZeroDivisionError

    def block(robust: bool) -> None:
        with transaction.atomic(using=connection.alias):
            run(connection, "SELECT 1")
            transaction.on_commit(fail, using=connection.alias, robust=robust)
            transaction.on_commit(lambda: ran.append("last"), using=connection.alias)

    block(robust=True)
    assert ran == ["failed", "last"]
    with pytest.raises(ZeroDivisionError):
        block(robust=False)
    assert ran == ["failed", "last", "failed"]
    if release == "transaction":
        assert is_back(connection)
    with transaction.atomic(using=connection.alias):
        run(connection, "SELECT 1")
    assert ran == ["failed", "last", "failed"]
    assert connection.get_autocommit()


# ---- named cursors, PAINS 29


def test_transactions_within_an_iteration_leave_its_cursor_alone(library: PooledWrapper) -> None:
    for count, author in enumerate(authors(library).order_by("id").iterator(chunk_size=2)):
        with transaction.atomic(using=library.alias):
            author.name = f"renamed {count}"
            author.save()
        assert not is_back(library)
    assert authors(library).filter(name__startswith="renamed").count() == 10
    assert is_back(library)


@pytest.mark.parametrize("inside", [False, True])
def test_an_iteration_that_is_broken_off_gives_the_connection_back(
    library: PooledWrapper, inside: bool
) -> None:
    def look_at_one() -> str:
        for author in authors(library).order_by("id").iterator(chunk_size=2):
            assert not is_back(library)
            return author.name
        return ""

    if inside:
        with transaction.atomic(using=library.alias):
            assert look_at_one() == "author 0"
    else:
        assert look_at_one() == "author 0"
    assert is_back(library)
    assert value(library, "SELECT count(*) FROM pg_cursors WHERE name <> ''") == 0


def test_an_abandoned_iteration_in_a_cycle_comes_back_to_whoever_needs_it(
    library: PooledWrapper,
) -> None:
    """PAINS 29: collected by the garbage collector, in this thread."""
    rows: Any = iter(authors(library).iterator(chunk_size=2))
    next(rows)
    cycle: list[Any] = [rows]
    cycle.append(cycle)
    del rows, cycle
    gc.collect()
    assert in_thread(lambda: pid(wrapper(library.alias)))
    assert pid(library)
    assert is_back(library)


COLLECT_UNDER_THE_LOCK = """
import gc
if {named}:
    left = connection.chunked_cursor()
    left.execute("SELECT generate_series(1, 10)")
    rows = (row for row in left)
    next(rows)
else:
    left = connection.cursor()
cycle = [left]
cycle.append(cycle)
left = rows = None
del cycle
with connection.pool._core.lock:
    gc.collect()
for _ in range(3):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
assert connection.connection is None
connections.close_all()
"""


@pytest.mark.parametrize("named", [False, True])
def test_the_collector_may_end_a_cursor_while_this_thread_is_inside_the_pool(
    databases: Databases, named: bool
) -> None:
    """Collection can begin at any allocation, so also under the pool's lock: that would hang."""
    entry = databases.settings(EARLY)
    done = run_script(COLLECT_UNDER_THE_LOCK.format(named=named), {"default": entry}, timeout=20)
    assert done.returncode == 0, done.stderr


def test_a_cursor_collected_in_another_thread_leaves_the_connection_to_its_owner(
    connection: PooledWrapper,
) -> None:
    left: list[Any] = [connection.cursor()]
    in_thread(left.clear)
    assert not is_back(connection)
    assert pid(connection)
    assert is_back(connection)


# ---- what keeps it beside that


@pytest.mark.parametrize(
    "sql",
    [
        "SET work_mem = '1MB'",
        "SELECT set_config('work_mem', '1MB', false)",
        "LISTEN news",
        "CREATE TEMP TABLE mine (n int)",
        "SELECT pg_advisory_lock(1)",
        "PREPARE mine AS SELECT 1",
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    ],
)
def test_a_session_with_traces_is_kept_until_close_and_is_clean_then(
    connection: PooledWrapper, sql: str
) -> None:
    assert kept_by(connection, sql)
    with transaction.atomic(using=connection.alias):
        run(connection, "SELECT 1")
    assert not is_back(connection)
    connection.close()
    assert is_back(connection)
    assert value(connection, "SHOW work_mem") == "4MB"
    assert is_back(connection)


def test_set_local_keeps_nothing(connection: PooledWrapper) -> None:
    with transaction.atomic(using=connection.alias):
        run(connection, "SET LOCAL work_mem = '1MB'")
    assert is_back(connection)


def test_a_pin_keeps_the_session_and_may_be_nested(connection: PooledWrapper) -> None:
    pool = pool_of(connection)
    with pool.pin():
        with pool.pin():
            first = pid(connection)
        assert pool.pinned
        assert pid(connection) == first
        assert not is_back(connection)
        assert not in_thread(lambda: pool.pinned)
    assert not pool.pinned
    assert is_back(connection)
    assert pid(connection) == first


def test_a_pin_ends_with_an_exception(connection: PooledWrapper) -> None:
    pool = pool_of(connection)
    with contextlib.suppress(ZeroDivisionError), pool.pin():
        run(connection, "SELECT 1")
        raise ZeroDivisionError
    assert not pool.pinned
    assert is_back(connection)


def test_the_end_of_a_pin_leaves_what_keeps_the_connection_otherwise(
    connection: PooledWrapper,
) -> None:
    pool = pool_of(connection)
    with transaction.atomic(using=connection.alias):
        with pool.pin():
            run(connection, "SELECT 1")
        assert not is_back(connection)
    assert is_back(connection)
    with pool.pin():
        run(connection, "SET work_mem = '1MB'")
    assert value(connection, "SHOW work_mem") == "1MB"


def forget_all(raw: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute("DISCARD ALL")


@pytest.mark.parametrize("reset", ["dirty", "always", "never", forget_all])
def test_a_request_keeps_what_it_has_set_until_its_end_whatever_is_reset_then(
    databases: Databases, reset: Any
) -> None:
    connection = databases.add({**EARLY, "reset": reset})
    run(connection, "SET work_mem = '1MB'")
    assert value(connection, "SHOW work_mem") == "1MB"
    connection.close()
    run(connection, "CREATE TEMP TABLE mine (a int)")
    run(connection, "INSERT INTO mine VALUES (1)")
    connection.close()
    assert value(connection, "SELECT pg_try_advisory_lock(7)")
    assert value(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 1
    run(connection, "SELECT pg_advisory_unlock(7)")
    connection.close()
    assert is_back(connection)


def test_whoever_asks_for_the_drivers_connection_keeps_it_until_close(
    connection: PooledWrapper,
) -> None:
    run(connection, "SELECT 1")
    first = borrow(connection)
    raw = connection.connection
    run(connection, "SELECT 1")
    with transaction.atomic(using=connection.alias):
        run(connection, "SELECT 1")
    assert connection.connection is raw
    connection.close()
    assert is_back(connection)
    assert pid(connection) == first
    assert is_back(connection)


def in_a_cursor(connection: PooledWrapper, ask: Callable[[], object]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(PID)
        ask()


def in_a_transaction(connection: PooledWrapper, ask: Callable[[], object]) -> None:
    with transaction.atomic(using=connection.alias):
        ask()


def in_a_hook(connection: PooledWrapper, ask: Callable[[], object]) -> None:
    with transaction.atomic(using=connection.alias):
        transaction.on_commit(ask, using=connection.alias)


@pytest.mark.parametrize("inside", [in_a_cursor, in_a_transaction, in_a_hook])
def test_whoever_asks_for_it_while_something_else_holds_it_keeps_it_until_close(
    connection: PooledWrapper, inside: Callable[[PooledWrapper, Callable[[], object]], None]
) -> None:
    first: list[int] = []
    inside(connection, lambda: first.append(borrow(connection)))
    assert not is_back(connection)
    assert pid(connection) == first[0]
    assert not is_back(connection)
    connection.close()
    inside(connection, lambda: run(connection, "SELECT 1"))
    assert is_back(connection)


def test_copy_keeps_the_session_until_its_end(library: PooledWrapper, tmp_path: Any) -> None:
    with library.cursor() as cursor:
        if DRIVER.name == "psycopg":
            with cursor.copy("COPY release_author TO STDOUT") as copy:
                next(iter(copy))
                assert not is_back(library)
                rows = 1 + sum(1 for _ in copy)
        else:
            with (tmp_path / "rows").open("w+") as file:
                cursor.copy_expert("COPY release_author TO STDOUT", file)
                file.seek(0)
                rows = len(file.readlines())
        assert not is_back(library)
    assert rows == 10
    assert is_back(library)


# ---- signals, logs, several aliases


class Heard:
    def __init__(self) -> None:
        self.pids: list[int] = []

    def __call__(self, connection: PooledWrapper, **_: object) -> None:
        self.pids.append(pid(connection))


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    connection_created.connect(heard)
    yield heard
    connection_created.disconnect(heard)


def test_connection_created_is_sent_once_a_request(connection: PooledWrapper, heard: Heard) -> None:
    for requests in (1, 2):
        for _ in range(3):
            run(connection, "SELECT 1")
        with transaction.atomic(using=connection.alias):
            run(connection, "SELECT 1")
        assert is_back(connection)
        assert len(heard.pids) == requests
        request_finished.send(sender=None)


def test_what_a_receiver_does_to_the_drivers_connection_holds_for_the_request(
    databases: Databases,
) -> None:
    """django.contrib.postgres registers types so: a session without them would give other rows."""
    connection = databases.add({**EARLY, "max_size": 2})

    def receive(connection: PooledWrapper, **_: object) -> None:
        connection.connection.cursor_factory = type(
            "Mine", (connection.connection.cursor_factory,), {}
        )

    connection_created.connect(receive)
    try:
        for _ in range(2):
            with connection.cursor() as cursor:
                assert type(cursor.cursor).__name__ == "Mine"
    finally:
        connection_created.disconnect(receive)


def test_queries_are_logged_and_counted_over_several_sessions(connection: PooledWrapper) -> None:
    with override_settings(DEBUG=True):
        reset_queries()
        run(connection, "SELECT 1")
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [2])
            cursor.executemany("SELECT %s", [[3]])
        assert is_back(connection)
        logged = [query["sql"] for query in connection.queries]
        assert logged[:2] == ["SELECT 1", "SELECT 2"]
    with CaptureQueriesContext(connection) as queries, transaction.atomic(using=connection.alias):
        run(connection, "SELECT 4")
    assert [query["sql"] for query in queries] == ["BEGIN", "SELECT 4", "COMMIT"]


def test_each_alias_gives_back_its_own(databases: Databases, connection: PooledWrapper) -> None:
    other = databases.add(EARLY, TIME_ZONE="Europe/Paris")
    with transaction.atomic(using=connection.alias):
        first = pid(connection)
        assert pid(other) != first
        assert is_back(other)
        assert not is_back(connection)
    assert is_back(connection)


def test_two_aliases_of_one_pool_count_their_own_cursors(
    databases: Databases, connection: PooledWrapper
) -> None:
    copy = connection.copy()
    pool_of(connection).resize(0, 2)
    assert pool_of(copy) is pool_of(connection)
    with copy.cursor() as cursor:
        cursor.execute(PID)
        run(connection, "SELECT 1")
        assert connection.connection is None
        assert copy.connection is not None
    assert is_back(connection)


# ---- threads that use another's wrapper


def test_a_foreign_thread_that_was_refused_does_not_take_the_connection_with_it(
    connection: PooledWrapper,
) -> None:
    def intrude() -> None:
        with pytest.raises(DatabaseError, match="thread"):
            connection.cursor()

    Call(intrude).outcome()
    pool = pool_of(connection)
    gc.collect()

    def next_one() -> int:
        with wrapper(connection.alias).cursor() as cursor:
            cursor.execute(PID)
            mine = int(cursor.fetchone()[0])
            assert connection.connection is None or DRIVER.server_pid(connection.connection) != mine
        return mine

    pool.configure(max_size=2)
    held = connection.connection
    assert in_thread(next_one)
    assert in_thread(next_one)
    assert connection.connection is held
    assert pid(connection)
    assert is_back(connection)


def test_a_shared_connection_is_given_back_by_its_owner_only(connection: PooledWrapper) -> None:
    connection.inc_thread_sharing()
    try:
        first = Call(lambda: pid(connection)).outcome()
        assert pid(connection) == first
        assert is_back(connection)
    finally:
        connection.dec_thread_sharing()


def test_threads_that_connect_one_wrapper_at_once_keep_nothing(connection: PooledWrapper) -> None:
    """The later one's connection takes the place of the first one's, whose cursor is open."""
    pool = pool_of(connection)
    pool.configure(max_size=2)
    connection.inc_thread_sharing()
    opened, done = threading.Event(), threading.Event()

    def other() -> None:
        with connection.cursor() as cursor:
            opened.set()
            assert done.wait(10)
            cursor.execute(PID)

    def serve() -> None:
        eventually(lambda: pool.get_stats()["requests_waiting"] == 2)
        pool.putconn(lent.pop())
        assert opened.wait(10)
        pool.putconn(lent.pop())

    lent = [pool.getconn(), pool.getconn()]
    try:
        first = Call(other)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        server = Call(serve)
        with connection.cursor() as cursor:
            cursor.execute(PID)
            done.set()
            first.outcome()
        server.outcome()
        assert connection.connection is None
        eventually(lambda: pool.snapshot().count("lent") == 0)
    finally:
        connection.dec_thread_sharing()


# ---- the server goes, PAINS 7


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.create_database("tests")
        yield server


@pytest.fixture
def own(own_server: PostgresServer) -> Iterator[PooledWrapper]:
    databases = Databases(own_server)
    connection = databases.add(EARLY)
    yield connection
    connection.close()
    connection.close_pool()
    databases.remove()


def test_a_loop_goes_on_after_a_restart_of_the_server_between_two_statements(
    own_server: PostgresServer, own: PooledWrapper
) -> None:
    """PAINS 7: without close_old_connections()."""
    first = pid(own)
    own_server.restart()
    assert pid(own) != first
    assert is_back(own)


@pytest.mark.parametrize("how", ["statement", "transaction", "named cursor"])
def test_only_what_was_under_way_fails_when_the_session_is_ended(
    own_server: PostgresServer, own: PooledWrapper, how: str
) -> None:
    """PAINS 7: the next turn of the loop gets another session, without close_old_connections()."""
    end = "SELECT pg_terminate_backend(pg_backend_pid())"

    def use() -> None:
        if how == "statement":
            run(own, end)
        elif how == "transaction":
            with transaction.atomic(using=own.alias):
                run(own, end)
        else:
            with own.chunked_cursor() as cursor:
                cursor.execute("SELECT generate_series(1, 10)")
                own_server.terminate_backends("tests")
                cursor.fetchall()

    with pytest.raises(DatabaseError):
        use()
    assert pid(own)
    assert is_back(own)


def test_a_session_with_traces_that_was_ended_is_not_replaced_in_silence(
    own: PooledWrapper,
) -> None:
    """What was SET is gone: the next statement must not run as if it still held."""
    run(own, "SET work_mem = '1MB'")
    with pytest.raises(DatabaseError):
        run(own, "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(Error):
        pid(own)
    own.close()
    assert pid(own)


def test_threads_that_mix_everything_never_lose_the_one_connection(
    library: PooledWrapper,
) -> None:
    pool = pool_of(library)
    pool.configure(max_size=2)
    stop = threading.Event()

    def work() -> int:
        mine, turns = wrapper(library.alias), 0
        while not stop.is_set():
            by_select(mine)
            by_locking(mine)
            with transaction.atomic(using=mine.alias):
                first = pid(mine)
                assert pid(mine) == first
            next(iter(authors(mine).iterator(chunk_size=2)))
            with pool.pin():
                first = pid(mine)
                assert pid(mine) == first
            assert mine.connection is None
            turns += 1
        return turns

    calls = [Call(work) for _ in range(6)]
    eventually(lambda: pool.get_stats()["requests_num"] > 500)
    stop.set()
    assert all(call.outcome() for call in calls)
    assert not pool.snapshot().count("lent")
    assert pool.get_stats()["returns_bad"] == 0
    assert connections[library.alias] is library
