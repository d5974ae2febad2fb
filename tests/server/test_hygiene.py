"""What a borrower leaves in the server session is invisible to the next one. PAINS 26, 27, 28."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3, sql
from django.db.backends.signals import connection_created

from devtools.postgres import PostgresServer
from django_psycopg_pooled.backends.postgresql import base
from django_psycopg_pooled.drivers.protocol import TransactionStatus
from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from django_psycopg_pooled.pool import hygiene
from tests.server.databases import END_ALL, Databases, looked_after
from tests.server.support import DATABASE, borrow, eventually, in_thread, pool_of, value, wrapper

if is_psycopg3:
    import psycopg
    from psycopg.rows import dict_row
    from psycopg.types.json import set_json_loads

    class DriverCursor(psycopg.Cursor[Any]):
        """A cursor class of the user's own."""
else:
    import psycopg2.extensions
    import psycopg2.extras

    class DriverCursor(psycopg2.extensions.cursor):  # type: ignore[no-redef]
        """A cursor class of the user's own."""


only_psycopg3 = pytest.mark.skipif(not is_psycopg3, reason="psycopg2 has nothing like it")
only_psycopg2 = pytest.mark.skipif(is_psycopg3, reason="psycopg 3 has nothing like it")

# Everything by which one session can be told from another.
FINGERPRINT = {
    "settings": "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'plpgsql.%'",
    "own settings": "SELECT nullif(current_setting('shop.tenant', true), '')",
    "who": "SELECT current_user::text, session_user::text, current_setting('role')",
    "channels": "SELECT pg_listening_channels()",
    "locks": "SELECT classid, objid, mode FROM pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "cursors": "SELECT name FROM pg_cursors WHERE name <> ''",
    "prepared": "SELECT name FROM pg_prepared_statements WHERE from_sql",
    "relations": "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()",
    "types": "SELECT typname FROM pg_type WHERE typnamespace = pg_my_temp_schema()",
}


def fingerprint(connection: PooledWrapper) -> dict[str, Any]:
    """What this borrower can see of the session it got."""
    connection.ensure_connection()
    raw = connection.connection
    found: dict[str, Any] = {"status": DRIVER.status(raw).name, "autocommit": raw.autocommit}
    with connection.cursor() as cursor:
        for name, query in FINGERPRINT.items():
            cursor.execute(query)
            found[name] = sorted(cursor.fetchall())
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What is in one of two fingerprints only."""
    found = {}
    for name in one.keys() | other.keys():
        if one[name] != other[name]:
            found[name] = [r for r in [*one[name], *other[name]] if r not in one[name]
                           or r not in other[name]]  # fmt: skip
    return found


class Spy:
    """Counts what the pool sends to reset sessions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        reset = DRIVER.reset

        def spying(connection: Any, text: str) -> bool:
            self.sent.append(text)
            return reset(connection, text)

        monkeypatch.setattr(DRIVER, "reset", spying, raising=False)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def somebody(server: PostgresServer) -> Iterator[None]:
    """A role that may not do much, and functions that do more than their callers say."""
    server.psql(
        "CREATE ROLE somebody;"
        " CREATE FUNCTION sets() RETURNS text LANGUAGE sql AS"
        " $$SELECT set_config('work_mem', '5MB', false)$$;"
        " CREATE PROCEDURE sets_too() LANGUAGE sql AS $$SELECT sets()$$;"
        " CREATE TABLE copied (a int); GRANT ALL ON copied TO somebody",
        DATABASE,
    )
    yield
    server.psql(
        "DROP TABLE copied; DROP PROCEDURE sets_too; DROP FUNCTION sets; DROP ROLE somebody",
        DATABASE,
    )


def run(connection: PooledWrapper, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def give_back(connection: PooledWrapper) -> int:
    """Close, and borrow the same session again; its process id."""
    before = borrow(connection)
    connection.close()
    assert borrow(connection) == before, "the session was not kept"
    return before


def seen_by_the_next(
    connection: PooledWrapper, leave: Mapping[str, Callable[[PooledWrapper], object]]
) -> dict[str, Any]:
    """What the next borrower of the same session sees of each; nothing, if all is well."""
    fresh = fingerprint(connection)
    seen = {}
    for name, action in leave.items():
        action(connection)
        assert differences(fresh, fingerprint(connection)), f"{name} leaves nothing to be seen"
        give_back(connection)
        seen[name] = differences(fresh, fingerprint(connection))
    return {name: found for name, found in seen.items() if found}


# ---- kinds of traces

TRACES = {
    "SET": ["SET work_mem = '5MB'"],
    "SET SESSION": ["SET SESSION work_mem TO '5MB'"],
    "a setting of one's own": ["SET shop.tenant = '7'"],
    "search_path": ["SET search_path = pg_catalog"],
    "SET NAMES": ["SET NAMES 'LATIN1'"],
    "transaction characteristics": ["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
    "SET ROLE": ["SET ROLE somebody"],
    "SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION somebody"],
    "a role in a role": ["SET SESSION AUTHORIZATION somebody", "SET ROLE somebody"],
    "time zone": ["SET TIME ZONE 'Asia/Tokyo'"],
    "set_config": ["SELECT set_config('shop.tenant', '7', false)"],
    "set_config of a role": ["SELECT set_config('role', 'somebody', false)"],
    "UPDATE pg_settings": ["UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'"],
    "temporary table": ["CREATE TEMP TABLE t (a int)"],
    "SELECT INTO TEMP": ["SELECT 1 AS a INTO TEMP t"],
    "CREATE TEMP AS": ["CREATE TEMPORARY TABLE t AS SELECT 1 AS a"],
    "temporary view": ["CREATE TEMP VIEW v AS SELECT 1 AS a"],
    "pg_temp": ["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
    "search_path to pg_temp": ["SET search_path = pg_temp", "CREATE TABLE t (a int)"],
    "a temporary table of another role": ["SET ROLE somebody", "CREATE TEMP TABLE t (a int)"],
    "advisory lock": ["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_lock(1)"],
    "shared advisory lock": ["SELECT pg_try_advisory_lock_shared(1, 2)"],
    "LISTEN": ["LISTEN a"],
    "PREPARE": ["PREPARE a AS SELECT 1"],
    "PREPARE with an odd name": ["PREPARE \"a'b c\" AS SELECT 1"],
    "WITH HOLD": ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"],
    "a cursor over a temporary table": [
        "CREATE TEMP TABLE t AS SELECT generate_series(1, 9) AS a",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t; COMMIT",
    ],
    "DO": ["DO $$BEGIN PERFORM set_config('work_mem', '5MB', false); END$$"],
    "CALL": ["CALL sets_too()"],
    "several statements": ["SELECT 1; SET work_mem = '5MB'; SELECT 2"],
    "behind comments": ["-- SELECT 1\n/* BEGIN /* ; */ */ SET /* x */ work_mem = '5MB' --"],
    "behind a CTE": [
        "WITH a AS MATERIALIZED (SELECT set_config('work_mem', '5MB', false)) SELECT * FROM a"
    ],
    "EXPLAIN ANALYZE": ["EXPLAIN ANALYZE SELECT pg_advisory_lock(3)"],
    "all at once": [
        "SET ROLE somebody; SET search_path = pg_temp; LISTEN a; PREPARE a AS SELECT 1",
        "SELECT pg_try_advisory_lock(1) AS a INTO TEMP t",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    ],
}  # fmt: skip


@pytest.mark.parametrize("how", ["dirty", "always"])
def test_the_next_borrower_sees_nothing_of_what_statements_leave(
    databases: Databases, how: str
) -> None:
    def leaving(statements: list[str]) -> Callable[[PooledWrapper], None]:
        return lambda connection: run(connection, *statements)

    traces = {name: leaving(statements) for name, statements in TRACES.items()}
    connection = databases.add({"max_size": 1, "reset": how}, TIME_ZONE="Europe/Madrid")
    assert seen_by_the_next(connection, traces) == {}


@pytest.mark.parametrize("how", ["dirty", "always"])
def test_an_assumed_role_and_a_time_zone_come_back(databases: Databases, how: str) -> None:
    connection = databases.add(
        {"max_size": 1, "reset": how}, options={"assume_role": "somebody"}, TIME_ZONE="Asia/Tokyo"
    )
    fresh = fingerprint(connection)
    assert fresh["who"] == [("somebody", databases.server.user, "somebody")]
    for statement in ("RESET ROLE", "SET SESSION AUTHORIZATION somebody", "SET ROLE pg_monitor",
                      "RESET ALL", "SET SESSION AUTHORIZATION DEFAULT"):  # fmt: skip
        run(connection, statement, "SET TIME ZONE 'Africa/Cairo'")
        give_back(connection)
        assert differences(fresh, fingerprint(connection)) == {}, statement
    connection.close()
    pool_of(connection).close()


def test_a_session_that_no_reset_brings_back_is_closed(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    fresh = fingerprint(connection)
    in_a_block = "DO $$BEGIN EXECUTE $a$Load 'plpgsql'$a$; END$$"
    statements = ("DISCARD ALL", "DEALLOCATE ALL", "DISCARD PLANS", "LOAD 'plpgsql'", in_a_block)
    for statement in statements:
        before = borrow(connection)
        run(connection, statement)
        connection.close()
        assert borrow(connection) != before, statement
        assert differences(fresh, fingerprint(connection)) == {}


@pytest.mark.parametrize("how", ["dirty", "always"])
def test_nobody_knows_what_random_says_to_the_next_borrower(databases: Databases, how: str) -> None:
    connection = databases.add({"max_size": 1, "reset": how})
    seen = set()
    seedings = (
        "SELECT setseed(0.5)", "SET seed = 0.5", "SELECT set_config('seed', '0.5', false)",
        "SELECT set_config('seed', '0.5', true)",
    )  # fmt: skip
    for seeding in seedings:
        run(connection, seeding)
        known = value(connection, "SELECT random()")
        run(connection, seeding)
        give_back(connection)
        seen.add(value(connection, "SELECT random()"))
        assert known not in seen, seeding
    assert len(seen) == len(seedings)


# ---- ways in which a statement reaches the server

SETS = "SELECT set_config('work_mem', '5MB', false)"


def _by_copy(connection: PooledWrapper) -> None:
    statement = f"COPY ({SETS}) TO STDOUT"
    with connection.cursor() as cursor:
        if is_psycopg3:
            with cursor.copy(statement) as copy:
                list(copy)
        else:
            with open("/dev/null", "w") as nowhere:
                cursor.copy_expert(statement, nowhere)


def _by_named_cursor(connection: PooledWrapper) -> None:
    with transaction.atomic(using=connection.alias), connection.connection.cursor("c") as cursor:
        cursor.execute(SETS)
        cursor.fetchall()


def _by_cursor_of_another_class(connection: PooledWrapper) -> None:
    raw = connection.connection
    if is_psycopg3:
        cursor = raw.cursor(row_factory=dict_row)
    else:
        cursor = raw.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    with cursor:
        cursor.execute(SETS)
        assert cursor.fetchone() == {"set_config": "5MB"}


def _by_changed_factory(connection: PooledWrapper) -> None:
    connection.connection.cursor_factory = DriverCursor
    with connection.connection.cursor() as cursor:
        assert isinstance(cursor, DriverCursor)
        cursor.execute(SETS)


def _raw(connection: PooledWrapper, query: Any) -> None:
    with connection.connection.cursor() as cursor:
        cursor.execute(query)


def _by_executemany(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("SELECT set_config('work_mem', %s, false)", [("6MB",), ("5MB",)])


def _by_pipeline(connection: PooledWrapper) -> None:
    with connection.connection.pipeline():
        connection.connection.execute("BEGIN")
        connection.connection.execute(SETS)
        connection.connection.execute("COMMIT")


def _by_block(connection: PooledWrapper) -> None:
    raw = connection.connection
    with raw.transaction() if is_psycopg3 else raw:
        _raw(connection, SETS)


def _by_parameters(connection: PooledWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config(%s, %s, %s)", ["work_mem", "5MB", False])


def _composed(connection: PooledWrapper) -> None:
    query = sql.SQL("SET {} = {}").format(sql.Identifier("work_mem"), sql.Literal("5MB"))
    with connection.cursor() as cursor:
        cursor.execute(query)


WAYS: dict[str, Callable[[PooledWrapper], object]] = {
    "parameters": _by_parameters,
    "a composed statement": _composed,
    "bytes": lambda connection: _raw(connection, SETS.encode()),
    "executemany": _by_executemany,
    "the driver's connection": lambda connection: _raw(connection, SETS),
    "a cursor of another class": _by_cursor_of_another_class,
    "a changed cursor_factory": _by_changed_factory,
    "COPY": _by_copy,
    "a named cursor": _by_named_cursor,
    "a with block of the driver's": _by_block,
}
if is_psycopg3:
    WAYS |= {
        "connection.execute": lambda connection: connection.connection.execute(SETS),
        "stream": lambda connection: list(connection.connection.cursor().stream(SETS)),
        "a pipeline": _by_pipeline,
    }
else:
    WAYS |= {
        "callproc": lambda connection: connection.connection.cursor().callproc(
            "set_config", ["work_mem", "5MB", False]
        ),
        "execute_values": lambda connection: psycopg2.extras.execute_values(
            connection.connection.cursor(),
            "SELECT set_config('work_mem', a, false) FROM (VALUES %s) AS t (a)",
            [("5MB",)],
        ),
    }


def test_a_statement_is_noticed_by_whatever_way_it_comes(databases: Databases) -> None:
    assert seen_by_the_next(databases.add({"max_size": 1}), WAYS) == {}


def test_what_a_borrower_of_the_pools_own_methods_leaves_is_undone(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    pool = pool_of(connection)
    with pool.connection() as raw, raw.cursor() as cursor:
        cursor.execute("SET work_mem = '5MB'")
    lent = pool.getconn()
    with lent.cursor() as cursor:
        cursor.execute("SHOW work_mem")
        assert cursor.fetchone() != ("5MB",)
        cursor.execute("LISTEN a")
    pool.putconn(lent)
    assert fingerprint(connection)["channels"] == []


@only_psycopg2
def test_the_drivers_own_reset_takes_nothing_from_the_next_borrower(databases: Databases) -> None:
    connection = databases.add({"max_size": 1}, options={"assume_role": "somebody"})
    fresh = fingerprint(connection)
    connection.connection.reset()
    connection.close()
    assert differences(fresh, fingerprint(connection)) == {}
    connection.close()
    pool_of(connection).close()


# ---- cursors

SERIES = "SELECT generate_series(1, 5000)"


@pytest.mark.parametrize("by", ["wrapper", "driver"])
def test_a_held_cursor_that_nobody_closed_is_gone(databases: Databases, by: str) -> None:
    connection = databases.add({"max_size": 1})
    fresh = fingerprint(connection)
    if by == "wrapper":
        cursor = connection.chunked_cursor()  # what .iterator() uses
    else:
        cursor = connection.connection.cursor("mine", withhold=True)
    cursor.execute(SERIES)
    assert cursor.fetchmany(2) == [(1,), (2,)]
    assert fingerprint(connection)["cursors"]
    give_back(connection)
    assert differences(fresh, fingerprint(connection)) == {}
    cursor.close()


@pytest.mark.parametrize("held", [True, False])
def test_a_cursor_that_outlives_its_loan_does_nothing_to_the_next_borrower(
    databases: Databases, held: bool
) -> None:
    """A generator of .iterator() that is collected late closes its cursor, whoever works then."""
    connection = databases.add({"max_size": 1})
    with contextlib.nullcontext() if held else transaction.atomic(using=connection.alias):
        late = connection.chunked_cursor()
        late.execute(SERIES)
        late.fetchmany(2)
    connection.close()

    def work() -> Any:
        other = wrapper(connection.alias)
        with transaction.atomic(using=other.alias):
            first = value(other, "SELECT 1")
            late.close()
            return first + value(other, "SELECT 1")

    assert in_thread(work) == 2


# ---- transactions


def test_a_setting_that_was_rolled_back_costs_no_reset(databases: Databases, spy: Spy) -> None:
    connection = databases.add({"max_size": 1})
    fresh = fingerprint(connection)
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=connection.alias):
        run(connection, "SET work_mem = '5MB'", "CREATE TEMP TABLE t (a int)", "LISTEN a")
        raise ZeroDivisionError
    give_back(connection)
    assert spy.sent == []
    assert differences(fresh, fingerprint(connection)) == {}


@pytest.mark.parametrize("end", ["open", "failed"])
def test_an_open_or_failed_transaction_is_rolled_back_with_what_it_set(
    databases: Databases, spy: Spy, end: str
) -> None:
    connection = databases.add({"max_size": 1})
    fresh = fingerprint(connection)
    run(connection, "BEGIN", "SET work_mem = '5MB'", "CREATE TEMP TABLE t (a int)")
    if end == "failed":
        with pytest.raises(DatabaseError):
            run(connection, "SELECT 1/0")
    give_back(connection)
    assert spy.sent == []
    assert differences(fresh, fingerprint(connection)) == {}


def test_what_a_rollback_leaves_is_undone(databases: Databases, spy: Spy) -> None:
    connection = databases.add({"max_size": 1})
    fresh = fingerprint(connection)
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=connection.alias):
        run(connection, "SELECT pg_advisory_lock(1)", "PREPARE a AS SELECT 1")
        raise ZeroDivisionError
    assert differences(fresh, fingerprint(connection)).keys() == {"locks", "prepared"}
    give_back(connection)
    assert len(spy.sent) == 1
    assert differences(fresh, fingerprint(connection)) == {}


def _commit_atomic(connection: PooledWrapper) -> None:
    with transaction.atomic(using=connection.alias):
        run(connection, "SET work_mem = '5MB'")


def _commit_by_sql(connection: PooledWrapper) -> None:
    run(connection, "BEGIN", "SET work_mem = '5MB'", "COMMIT")


def _commit_and_chain(connection: PooledWrapper) -> None:
    run(connection, "BEGIN", "SET work_mem = '5MB'", "COMMIT AND CHAIN")


def _commit_in_one_text(connection: PooledWrapper) -> None:
    run(connection, "BEGIN; SET work_mem = '5MB'; COMMIT; BEGIN")


def _commit_raw(connection: PooledWrapper) -> None:
    connection.set_autocommit(False)
    run(connection, "SET work_mem = '5MB'")
    connection.connection.commit()


def _commit_outer_savepoint(connection: PooledWrapper) -> None:
    with transaction.atomic(using=connection.alias):
        run(connection, "SET work_mem = '5MB'")
        with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=connection.alias):
            run(connection, "SET work_mem = '6MB'")
            raise ZeroDivisionError


def _then_nothing(_: PooledWrapper) -> None:
    """The connection goes back as it is."""


def _then_roll_back(connection: PooledWrapper) -> None:
    if DRIVER.status(connection.connection) is not TransactionStatus.IDLE:
        run(connection, "SELECT 1", "ROLLBACK")
        return
    if not connection.get_autocommit():
        run(connection, "SELECT 1")
        connection.rollback()
        return
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=connection.alias):
        run(connection, "SELECT 1")
        raise ZeroDivisionError


def _then_roll_back_by_sql(connection: PooledWrapper) -> None:
    if connection.get_autocommit():  # else psycopg2 loses count
        run(connection, "ROLLBACK", "BEGIN", "SELECT 1", "ROLLBACK")


def _then_leave_open(connection: PooledWrapper) -> None:
    run(connection, "BEGIN", "SELECT 1")


def _begin_lazily(connection: PooledWrapper) -> None:
    idle = DRIVER.status(connection.connection) is TransactionStatus.IDLE
    if connection.get_autocommit() and idle:
        connection.set_autocommit(False)


def _then_leave_a_copy_open(connection: PooledWrapper) -> None:
    """A transaction that begins with something else than execute()."""
    _begin_lazily(connection)
    if is_psycopg3:
        with connection.cursor() as cursor, cursor.copy("COPY copied TO STDOUT") as copy:
            list(copy)
    else:
        with open("/dev/null", "w") as nowhere, connection.cursor() as cursor:
            cursor.copy_to(nowhere, "copied")


def _then_leave_an_object_open(connection: PooledWrapper) -> None:
    _begin_lazily(connection)
    if not connection.get_autocommit():  # psycopg2 wants one that it has begun itself
        connection.connection.lobject(0, "w")


COMMITS = {
    "atomic": _commit_atomic,
    "SQL": _commit_by_sql,
    "COMMIT AND CHAIN": _commit_and_chain,
    "one text": _commit_in_one_text,
    "the driver": _commit_raw,
    "atomic around a rolled back one": _commit_outer_savepoint,
}
LATER = {
    "nothing": _then_nothing,
    "a rollback": _then_roll_back,
    "a rollback by SQL": _then_roll_back_by_sql,
    "an open transaction": _then_leave_open,
    "an open transaction with a COPY": _then_leave_a_copy_open,
}
if not is_psycopg3:
    LATER["an open transaction with a large object"] = _then_leave_an_object_open


@pytest.mark.parametrize("commit", COMMITS.values(), ids=COMMITS.keys())
def test_what_was_committed_is_undone_whatever_is_rolled_back_after_it(
    databases: Databases,
    spy: Spy,
    commit: Callable[[PooledWrapper], None],
) -> None:
    connection = databases.add({"max_size": 1})
    for number, (name, later) in enumerate(LATER.items(), 1):
        borrow(connection)
        commit(connection)
        later(connection)
        give_back(connection)
        assert len(spy.sent) == number, name
        assert value(connection, "SHOW work_mem") == "4MB", name


@only_psycopg3
def test_a_connection_in_the_middle_of_a_copy_is_closed(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    before = borrow(connection)
    copying = connection.cursor().copy("COPY copied FROM STDIN")
    copy = copying.__enter__()
    copy.write(b"1\n")
    connection.close()
    assert borrow(connection) != before
    assert value(connection, "SELECT count(*) FROM copied") == 0
    with contextlib.suppress(Exception):
        copying.__exit__(None, None, None)


def _begin_in_two_phases(raw: Any) -> None:
    raw.autocommit = False
    raw.tpc_begin(raw.xid(1, "a", "b"))
    with raw.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_a_transaction_in_two_phases_that_failed_is_not_the_next_borrowers(
    databases: Databases,
) -> None:
    """The server's default is to prepare no transactions."""
    connection = databases.add({"max_size": 1})
    borrow(connection)
    raw = connection.connection
    _begin_in_two_phases(raw)
    with pytest.raises(DRIVER.Error, match="prepared transactions are disabled"):
        raw.tpc_prepare()
    connection.close()
    with transaction.atomic(using=connection.alias):
        run(connection, "INSERT INTO copied VALUES (7)")
    assert value(connection, "DELETE FROM copied RETURNING a") == 7


@only_psycopg3
@pytest.mark.parametrize("how", ["dirty", "always", "never"])
def test_an_iterator_that_was_not_read_to_its_end_keeps_nobody_waiting(
    databases: Databases, how: str
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5, "reset": how, "configure": listen})
    before = borrow(connection)
    run(connection, "NOTIFY a")
    notifies = connection.connection.notifies()
    next(notifies)
    connection.close()
    assert in_thread(lambda: borrow(wrapper(connection.alias))) != before
    with pytest.raises(DRIVER.Error, match="closed"):
        next(notifies)


def listen(raw: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute("LISTEN a")


# ---- what a borrower changed on the driver's connection


def _json_as_text(raw: Any) -> None:
    if is_psycopg3:
        set_json_loads(lambda _: "theirs", raw)
    else:
        psycopg2.extras.register_default_json(raw, loads=lambda _: "theirs")


def _never(*_: object) -> None:
    raise AssertionError("another borrower's handler was called")


ATTRIBUTES: dict[str, Callable[[Any], object]] = {
    "autocommit": lambda raw: setattr(raw, "autocommit", False),
    "cursor_factory": lambda raw: setattr(raw, "cursor_factory", DriverCursor),
    "isolation_level": lambda raw: setattr(raw, "isolation_level", 3),
    "deferrable": lambda raw: setattr(raw, "deferrable", True),
    "adapters": _json_as_text,
}
if is_psycopg3:
    ATTRIBUTES |= {
        "read_only": lambda raw: setattr(raw, "read_only", True),
        "row_factory": lambda raw: setattr(raw, "row_factory", dict_row),
        "server_cursor_factory": lambda raw: setattr(
            raw, "server_cursor_factory", psycopg.ServerCursor
        ),
        "prepare_threshold": lambda raw: setattr(raw, "prepare_threshold", 0),
        "prepared_max": lambda raw: setattr(raw, "prepared_max", 1),
        "notice handlers": lambda raw: raw.add_notice_handler(_never),
        "notify handlers": lambda raw: raw.add_notify_handler(_never),
    }
else:
    ATTRIBUTES |= {
        "readonly": lambda raw: setattr(raw, "readonly", True),
        "encoding": lambda raw: raw.set_client_encoding("LATIN1"),
        "set_session": lambda raw: raw.set_session("SERIALIZABLE", autocommit=False),
        "set_session in autocommit": lambda raw: raw.set_session("SERIALIZABLE", readonly=True),
    }
READABLE = (
    "autocommit", "cursor_factory", "isolation_level", "deferrable", "readonly", "encoding",
    "read_only", "row_factory", "server_cursor_factory", "prepare_threshold", "prepared_max",
)  # fmt: skip


def as_it_looks(connection: PooledWrapper) -> dict[str, Any]:
    """What the next borrower finds on the driver's connection."""
    connection.ensure_connection()
    raw = connection.connection
    found = {name: getattr(raw, name) for name in READABLE if hasattr(raw, name)}
    found["json"] = value(connection, "SELECT '{}'::json")
    run(connection, "DO $$BEGIN RAISE WARNING 'x'; END$$", "LISTEN a", "NOTIFY a")
    with connection.connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS a")
        found["row"] = type(cursor.fetchone())
    return found


def test_the_next_borrower_finds_the_drivers_connection_unchanged(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    fresh_session, fresh = fingerprint(connection), as_it_looks(connection)
    for name, change in ATTRIBUTES.items():
        change(connection.connection)
        connection.close()
        assert as_it_looks(connection) == fresh, name
        assert differences(fresh_session, fingerprint(connection)).keys() == {"channels"}, name


def test_a_changed_attribute_costs_no_round_trip(databases: Databases, spy: Spy) -> None:
    connection = databases.add({"max_size": 1})
    borrow(connection)
    _json_as_text(connection.connection)
    connection.connection.autocommit = False
    give_back(connection)
    assert spy.sent == []


def test_what_a_listener_was_told_is_not_there_for_the_next_borrower(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    run(connection, "LISTEN a", "NOTIFY a, 'secret'", "SELECT 1")
    give_back(connection)
    raw = connection.connection
    if is_psycopg3:
        assert list(raw.notifies(timeout=0)) == []
    else:
        raw.poll()
        assert raw.notifies == []


@only_psycopg2
def test_notices_are_read_by_the_borrower_whom_they_were_for(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    notice = "DO $$BEGIN RAISE WARNING 'secret'; END$$"
    mine: list[str] = []
    run(connection, notice)
    assert "secret" in connection.connection.notices[0]
    give_back(connection)
    assert connection.connection.notices == []
    connection.connection.notices = mine
    connection.connection.notifies = mine
    give_back(connection)
    run(connection, notice, "LISTEN a", "NOTIFY a")
    assert mine == []


@only_psycopg2
def test_a_cursor_factory_that_is_no_class_hides_nothing(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})

    def make(*args: Any) -> Any:
        return psycopg2.extras.DictCursor(*args)

    borrow(connection)
    with connection.connection.cursor(cursor_factory=make) as cursor:
        cursor.execute("SET work_mem = '5MB'")
    give_back(connection)
    assert value(connection, "SHOW work_mem") == "4MB"


@only_psycopg2
def test_what_was_committed_in_two_phases_is_undone(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    borrow(connection)
    raw = connection.connection
    _begin_in_two_phases(raw)
    with raw.cursor() as cursor:
        cursor.execute("SET work_mem = '5MB'")
    raw.tpc_commit()
    _then_leave_a_copy_open(connection)
    connection.close()
    assert value(connection, "SHOW work_mem") == "4MB"


def test_dates_can_be_read_after_a_reset_whatever_style_the_server_writes(
    databases: Databases,
) -> None:
    databases.server.psql(f"ALTER DATABASE {DATABASE} SET datestyle = 'German'")
    try:
        connection = databases.add({"max_size": 1})
        for _ in range(2):
            assert str(value(connection, "SELECT '2024-02-01'::date")) == "2024-02-01"
            run(connection, "SET work_mem = '5MB'")
            give_back(connection)
    finally:
        databases.server.psql(f"ALTER DATABASE {DATABASE} RESET datestyle")


# ---- what it costs


@pytest.fixture(scope="module")
def logging_server() -> Iterator[PostgresServer]:
    """A server of our own, that logs each statement before it answers."""
    with PostgresServer(options={"log_statement": "all"}) as server:
        server.create_database(DATABASE)
        server.psql("CREATE ROLE somebody")
        yield server


@pytest.fixture
def logged(logging_server: PostgresServer) -> Iterator[Databases]:
    yield from looked_after(Databases(logging_server))


class Log:
    """What a server was asked since."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._from = server.log.stat().st_size

    def statements(self) -> list[str]:
        with self._server.log.open() as file:
            file.seek(self._from)
            lines = [line.partition("  statement: ")[2] for line in file]
        return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "UTC", None])
def test_a_fresh_connection_sends_no_set_for_its_time_zone(
    logged: Databases, zone: str | None
) -> None:
    """PAINS 28: a SET pins a connection of RDS Proxy, and costs a round trip anywhere."""
    log = Log(logged.server)
    connection = logged.add(TIME_ZONE=zone)
    assert value(connection, "SHOW timezone") == (zone or "UTC")
    # Once for each pool it is asked who answers: a pooler would be noticed so.
    assert log.statements() == ["SELECT pg_catalog.pg_backend_pid()", "SHOW timezone"]
    connection.close()
    pool_of(connection).drain()
    log = Log(logged.server)
    assert value(connection, "SHOW timezone") == (zone or "UTC")
    assert log.statements() == ["SHOW timezone"]


def test_a_clean_borrower_costs_no_round_trip(logged: Databases) -> None:
    connection = logged.add({"max_size": 1}, TIME_ZONE="Asia/Tokyo")
    borrow(connection)
    connection.close()
    log = Log(logged.server)
    for _ in range(3):
        assert value(connection, "SELECT 1") == 1
        connection.close()
    with transaction.atomic(using=connection.alias):
        run(connection, "SET LOCAL work_mem = '5MB'", "SELECT set_config('a.b', 'c', true)")
    connection.close()
    borrow(connection)
    assert log.statements() == [
        *["SELECT 1"] * 3,
        "BEGIN",
        "SET LOCAL work_mem = '5MB'",
        "SELECT set_config('a.b', 'c', true)",
        "COMMIT",
    ]


def test_a_dirty_borrower_costs_one_round_trip_that_undoes_no_more_than_needed(
    logged: Databases,
) -> None:
    connection = logged.add({"max_size": 1}, TIME_ZONE="Asia/Tokyo")
    borrow(connection)
    log = Log(logged.server)
    run(connection, "LISTEN a", "SET work_mem = '5MB'")
    connection.close()
    assert value(connection, "SHOW timezone") == "Asia/Tokyo"
    [reset] = log.statements()[2:-1]
    assert reset == "RESET ALL; UNLISTEN *"


@only_psycopg3
@pytest.mark.parametrize("how", ["dirty", "always"])
def test_a_reset_keeps_what_the_driver_has_prepared(databases: Databases, how: str) -> None:
    options = {"prepare_threshold": 5, "server_side_binding": True}  # Django prepares nothing
    connection = databases.add({"max_size": 1, "reset": how}, options=options)
    connection.ensure_connection()
    raw = connection.connection

    def prepared() -> list[Any]:
        found: list[Any] = raw.execute(
            "SELECT name, from_sql FROM pg_prepared_statements ORDER BY from_sql"
        ).fetchall()
        return found

    raw.execute("SELECT 4711", prepare=True)
    run(connection, *TRACES["all at once"])
    run(connection, "RESET ROLE")
    [ours, theirs] = prepared()
    assert (ours[1], theirs) == (False, ("a", True))
    give_back(connection)
    assert prepared() == [ours]
    assert raw.execute("SELECT 4711", prepare=True).fetchone() == (4711,)


# ---- the option `reset`


def test_functions_that_set_inside_are_seen_by_always_only(databases: Databases) -> None:
    """What docs/limits.md says of "dirty", and what "always" is for."""
    seen = {}
    for how in ("dirty", "always"):
        connection = databases.add({"max_size": 1, "reset": how})
        assert value(connection, "SELECT sets()") == "5MB"
        give_back(connection)
        seen[how] = value(connection, "SHOW work_mem")
    assert seen == {"dirty": "5MB", "always": "4MB"}


def test_always_resets_a_clean_session_too(databases: Databases, spy: Spy) -> None:
    connection = databases.add({"max_size": 1, "reset": "always"})
    for _ in range(2):
        assert value(connection, "SELECT 1") == 1
        connection.close()
    assert len(spy.sent) == 2


def test_the_answer_to_a_reset_is_read_when_the_driver_allows(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With psycopg 3 close() does not wait for the server, and the next borrower reads."""
    connection = databases.add({"max_size": 1, "reset": "always", "check_timeout": 10})
    before = borrow(connection)
    pool = pool_of(connection)
    monkeypatch.setattr(hygiene, "reset_sql", lambda _: "SELECT pg_sleep(0.3)")
    busy = f"pid = {before} AND state = 'active'"
    connection.close()
    assert pool.snapshot().count("idle") == 1
    assert databases.server.backends(busy) == is_psycopg3
    assert borrow(connection) == before
    assert databases.server.backends(busy) == 0
    assert value(connection, "SELECT 1") == 1
    assert pool.get_stats()["connections_num"] == 1


def test_a_reset_does_not_stand_in_for_the_users_check(databases: Databases) -> None:
    checked: list[object] = []
    connection = databases.add({"max_size": 1, "reset": "always", "check": checked.append})
    borrow(connection)
    before = len(checked)
    give_back(connection)
    assert len(checked) == before + 1


@pytest.mark.parametrize("how", ["dirty", "always"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_session_that_ends_around_its_reset_is_replaced(
    databases: Databases, how: str, when: str
) -> None:
    connection = databases.add({"max_size": 1, "reset": how})
    before = borrow(connection)
    run(connection, "SET work_mem = '5MB'")
    if when == "before":
        databases.server.terminate_backends(DATABASE)
    connection.close()
    if when == "after":
        databases.server.terminate_backends(DATABASE)
    assert value(connection, "SHOW work_mem") == "4MB"
    assert borrow(connection) != before


FAILURES = {
    "an error": "RESET ALL; SELECT 1/0",
    "a statement_timeout": "SET statement_timeout = 50; SELECT pg_sleep(30)",
    "no answer in time": "SELECT pg_sleep(30)",
}


@pytest.mark.parametrize("how", ["dirty", "always"])
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_connection_whose_reset_fails_is_closed(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, how: str, failure: str
) -> None:
    """PAINS 27: fail closed."""
    connection = databases.add({"max_size": 1, "reset": how, "check_timeout": 0.3})
    before = borrow(connection)
    monkeypatch.setattr(hygiene, "reset_sql", lambda _: failure)
    run(connection, "SET ROLE somebody")
    connection.close()
    assert value(connection, "SELECT current_user::text") == databases.server.user
    assert borrow(connection) != before
    assert pool_of(connection).snapshot().size == 1
    databases.server.psql(END_ALL)  # the server does not know yet that nobody waits for it


def test_never_leaves_the_session_as_it_is_but_for_transactions(
    databases: Databases, spy: Spy
) -> None:
    connection = databases.add({"max_size": 1, "reset": "never"})
    run(connection, "SET work_mem = '5MB'", "BEGIN", "SET work_mem = '6MB'")
    give_back(connection)
    assert value(connection, "SHOW work_mem") == "5MB"
    assert spy.sent == []


def test_a_callable_runs_at_each_return_outside_a_transaction(
    databases: Databases, spy: Spy
) -> None:
    seen = []

    def reset(raw: Any) -> None:
        seen.append(DRIVER.status(raw))
        with raw.cursor() as cursor:
            cursor.execute("DISCARD ALL")

    connection = databases.add({"max_size": 1, "reset": reset}, TIME_ZONE="Asia/Tokyo")
    fresh = fingerprint(connection)
    give_back(connection)
    run(connection, *TRACES["all at once"])
    give_back(connection)
    run(connection, "BEGIN", "SET LOCAL work_mem = '5MB'")
    give_back(connection)
    assert differences(fresh, fingerprint(connection)) == {}
    assert seen == [TransactionStatus.IDLE] * 3
    assert spy.sent == []


# ---- what a reset must not take


def _set_cost(raw: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute("SET cpu_tuple_cost = 7")


@pytest.mark.parametrize("how", ["dirty", "always"])
def test_what_the_configure_hook_set_survives_a_reset(databases: Databases, how: str) -> None:
    connection = databases.add({"max_size": 1, "reset": how, "configure": _set_cost})
    run(connection, "SET cpu_tuple_cost = 8", "SET work_mem = '5MB'")
    give_back(connection)
    assert value(connection, "SHOW cpu_tuple_cost") == "7"
    assert value(connection, "SHOW work_mem") == "4MB"


@pytest.mark.parametrize("when", ["session", "checkout"])
@pytest.mark.parametrize("how", ["dirty", "always"])
def test_what_receivers_of_connection_created_set_survives_a_reset(
    databases: Databases, how: str, when: str
) -> None:
    connection = databases.add({"max_size": 1, "reset": how, "connection_created": when})

    def receive(connection: PooledWrapper, **_: object) -> None:
        run(connection, "SET cpu_tuple_cost = 7")

    connection_created.connect(receive)
    try:
        run(connection, "SET cpu_tuple_cost = 8", "SET work_mem = '5MB'")
        for _ in range(2):
            give_back(connection)
            assert value(connection, "SHOW cpu_tuple_cost") == "7"
            assert value(connection, "SHOW work_mem") == "4MB"
    finally:
        connection_created.disconnect(receive)


def test_what_a_receiver_sets_once_a_session_costs_no_reset(databases: Databases, spy: Spy) -> None:
    connection = databases.add({"max_size": 1, "connection_created": "session"})

    def receive(connection: PooledWrapper, **_: object) -> None:
        run(connection, "SET cpu_tuple_cost = 7")

    connection_created.connect(receive)
    try:
        for _ in range(3):
            assert value(connection, "SHOW cpu_tuple_cost") == "7"
            connection.close()
    finally:
        connection_created.disconnect(receive)
    assert spy.sent == []


class SetsUpItsSessions(base.DatabaseWrapper):
    """A project's own backend."""

    def _configure_connection(self, connection: Any) -> bool:
        changed = super()._configure_connection(connection)
        _set_cost(connection)
        return bool(changed)


@pytest.mark.parametrize("how", ["dirty", "always"])
def test_a_subclass_that_sets_up_its_sessions_does_so_again_after_a_reset(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    module = types.ModuleType("sets_up_its_sessions.base")
    module.DatabaseWrapper = SetsUpItsSessions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    connection = databases.add({"max_size": 1, "reset": how}, ENGINE="sets_up_its_sessions")
    run(connection, "SET cpu_tuple_cost = 8")
    give_back(connection)
    assert value(connection, "SHOW cpu_tuple_cost") == "7"


# ---- hooks


def test_hooks_run_at_each_loan_in_their_order(databases: Databases) -> None:
    order: list[tuple[str, str]] = []

    def noting(name: str) -> Callable[[Any], None]:
        return lambda raw: order.append((name, DRIVER.status(raw).name))

    connection = databases.add({
        "max_size": 1, "on_checkout": noting("on_checkout"),
        "on_checkin": noting("on_checkin"), "reset": noting("reset"),
    })  # fmt: skip
    for _ in range(2):
        run(connection, "BEGIN")
        connection.close()
    assert order == [("on_checkout", "IDLE"), ("on_checkin", "INTRANS"), ("reset", "IDLE")] * 2


def test_what_hooks_set_is_undone_at_the_end_of_the_loan(databases: Databases) -> None:
    """PAINS 27: an identity for row-level security, given and taken with the loan."""
    tenants = iter(["7", "8"])

    def give(raw: Any) -> None:
        with raw.cursor() as cursor:
            cursor.execute("SELECT set_config('shop.tenant', %s, false)", [next(tenants)])

    def spoil(raw: Any) -> None:
        with raw.cursor() as cursor:
            cursor.execute("SET work_mem = '5MB'")

    connection = databases.add({"max_size": 1, "on_checkout": give, "on_checkin": spoil})
    assert value(connection, "SELECT current_setting('shop.tenant')") == "7"
    give_back(connection)
    assert value(connection, "SELECT current_setting('shop.tenant')") == "8"
    assert value(connection, "SHOW work_mem") == "4MB"


def _refuse(_: object) -> None:
    raise PermissionError("not today")


def test_a_failing_on_checkout_reaches_the_request_and_loses_no_slot(databases: Databases) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5, "on_checkout": _refuse})
    pool = pool_of(connection)
    for _ in range(3):
        with pytest.raises(PermissionError, match="not today"):
            connection.ensure_connection()
        assert connection.connection is None
    assert pool.snapshot().count("lent") == 0
    pool.configure(on_checkout=None)
    assert value(connection, "SELECT 1") == 1


def _begin(raw: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute("BEGIN")


def _turn_autocommit_off(raw: Any) -> None:
    raw.autocommit = False


@pytest.mark.parametrize("hook", [_begin, _turn_autocommit_off])
def test_an_on_checkout_that_leaves_a_transaction_open_is_refused_before_writes_are_lost(
    databases: Databases, hook: Callable[[Any], None]
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5, "on_checkout": hook})
    pool = pool_of(connection)
    for _ in range(2):
        with pytest.raises(OptionsError, match=r"`on_checkout` of the pool .* left a transac"):
            connection.ensure_connection()
        assert connection.connection is None
    eventually(lambda: databases.server.backends("xact_start IS NOT NULL") == 0)
    pool.configure(on_checkout=None)
    assert value(connection, "SELECT 1") == 1


@pytest.mark.parametrize("hook", ["on_checkin", "reset"])
def test_a_failing_hook_of_a_return_closes_the_connection_and_loses_no_slot(
    databases: Databases, hook: str
) -> None:
    connection = databases.add({"max_size": 1, "timeout": 5, hook: _refuse})
    pids = set()
    for _ in range(3):
        pids.add(borrow(connection))
        connection.close()
    assert len(pids) == 3
    assert pool_of(connection).snapshot().count("lent") == 0
