"""What every binding promises the policy of preparing, asked of each on a real server."""

import contextlib
import datetime
import decimal
import importlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.postgres import PostgresServer
from django_psycopg_pooled.drivers.preparing import NAME_PREFIX, Binding, Types, is_refusal
from django_psycopg_pooled.drivers.showing import ShowsStatements
from tests.server.support import DATABASE

BINDINGS = {
    "psycopg": ("psycopg3_binding", "PsycopgBinding"),
    "psycopg2": ("psycopg2_binding", "Psycopg2Binding"),
}
BY_ID = "SELECT id, name FROM bound WHERE id = %s"


@pytest.fixture(params=BINDINGS)
def name(request: pytest.FixtureRequest) -> str:
    """The driver's module; hidden ones are not asked for."""
    driver: str = request.param
    try:
        importlib.import_module(driver)
    except ImportError as error:
        pytest.skip(str(error))
    return driver


@pytest.fixture
def binding(name: str) -> Binding:
    module, kind = BINDINGS[name]
    found = pytest.importorskip(f"django_psycopg_pooled.drivers.{module}")
    made: Binding = getattr(found, kind)()
    return made


@pytest.fixture
def connection(name: str, server: PostgresServer) -> Iterator[Any]:
    """A connection in autocommit whose cursors bind in the client, as Django's do."""
    driver = importlib.import_module(name)
    connection = driver.connect(**server.connect_kwargs(DATABASE))
    connection.autocommit = True
    if name == "psycopg":
        connection.cursor_factory = driver.ClientCursor
    else:
        cursor = driver.extensions.cursor
        connection.cursor_factory = type("Cursor", (ShowsStatements, cursor), {})
    run(connection, "DROP TABLE IF EXISTS bound")
    run(connection, "CREATE TABLE bound (id int, name text)")
    run(connection, "INSERT INTO bound VALUES (1, 'one'), (2, 'two')")
    yield connection
    with contextlib.suppress(driver.Error):
        connection.rollback()
        connection.autocommit = True
        run(connection, "ROLLBACK")
        run(connection, "DROP TABLE bound")
    connection.close()


def run(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def bound(binding: Binding, cursor: Any, sql: str, params: Any) -> tuple[Types, Any]:
    made = binding.bind(cursor, sql, params)
    assert made is not None
    return made


class Prepared:
    """One text, prepared on one cursor's connection."""

    def __init__(
        self, binding: Binding, cursor: Any, sql: str, params: Any, *, mode: str = ""
    ) -> None:
        self.binding, self.cursor, self.sql = binding, cursor, sql
        types, _ = bound(binding, cursor, sql, params)
        types = tuple(binding.unknown if kind is None else kind for kind in types)
        self.statement = binding.statement(f"{NAME_PREFIX}{uuid.uuid4().hex}", sql, types, mode)
        self.params = params

    def prepare(self, *, guarded: bool = False) -> None:
        self.binding.prepare(self.cursor, self.statement, guarded=guarded)

    def run(self, params: Any = None) -> Any:
        _, values = bound(self.binding, self.cursor, self.sql, params or self.params)
        self.binding.run(self.cursor, self.cursor.execute, self.sql, self.statement, values)
        return self.cursor


def names(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE '\\_dpp\\_%'")
        return [name for (name,) in cursor.fetchall()]


def test_the_driver_that_is_installed_can_do_it(binding: Binding) -> None:
    assert binding.unavailable == ""


def test_a_prepared_execution_leaves_the_cursor_as_a_plain_one_does(
    binding: Binding, connection: Any
) -> None:
    plain, cursor = connection.cursor(), connection.cursor()
    plain.execute(BY_ID, (1,))
    prepared = Prepared(binding, cursor, BY_ID, (1,))
    prepared.prepare()
    prepared.run()
    assert [c.name for c in cursor.description] == [c.name for c in plain.description]
    assert [c.type_code for c in cursor.description] == [c.type_code for c in plain.description]
    assert (cursor.rowcount, cursor.statusmessage) == (plain.rowcount, plain.statusmessage)
    assert cursor.fetchall() == plain.fetchall() == [(1, "one")]
    assert prepared.run((2,)).fetchone() == (2, "two")
    assert prepared.run([3]).fetchone() is None


@pytest.mark.parametrize(
    "value",
    [
        1, -1, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**63, -(2**63), 10**30, True, 1.5, -2.0,
        1e300, float("inf"), float("nan"), decimal.Decimal("1.50"), decimal.Decimal("NaN"), "text",
        "", "quote ' back \\ %", b"\x00\xff", datetime.date(2020, 2, 29),
        datetime.datetime(2020, 1, 1, 12, 30, tzinfo=datetime.UTC), datetime.time(1, 2, 3),
        datetime.timedelta(days=-1, seconds=5), None, [1, 2], ["a", None, "b,c"], [1.5, None],
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("expression", ["%s", "pg_typeof(%s)::text", "coalesce(%s, NULL)"])
def test_a_value_means_what_it_means_as_a_literal(
    name: str, binding: Binding, connection: Any, value: Any, expression: str
) -> None:
    sql = f"SELECT {expression}"
    plain, cursor = connection.cursor(), connection.cursor()
    plain.execute(sql, (value,))
    prepared = Prepared(binding, cursor, sql, (value,))
    expected = plain.fetchall()
    if expected == [("unknown",)]:
        # A parameter must get a type from somewhere, which a literal need not.
        with pytest.raises(importlib.import_module(name).Error, match="determine data type"):
            prepared.prepare()
    else:
        prepared.prepare()
        assert [repr(known(v)) for row in prepared.run() for v in row] == [
            repr(known(v)) for row in expected for v in row
        ]


def known(value: Any) -> Any:
    """psycopg2's memoryviews tell their addresses only."""
    return value.tobytes() if isinstance(value, memoryview) else value


def test_the_text_with_its_literals_is_there_for_who_asks(
    name: str, binding: Binding, connection: Any
) -> None:
    def shown(cursor: Any) -> Any:
        """As Django's last_executed_query() reads it."""
        return cursor._query.query if name == "psycopg" else cursor.query

    sql = "SELECT %s, %s, '100%%'"
    plain, cursor = connection.cursor(), connection.cursor()
    plain.execute(sql, ("it's", -5))
    prepared = Prepared(binding, cursor, sql, ("it's", -5))
    prepared.prepare()
    prepared.run()
    assert shown(cursor) == shown(plain)


@pytest.mark.parametrize("params", [None, (), [], {"a": 1}, "text", {1}, (Ellipsis,)], ids=repr)
def test_parameters_that_it_cannot_bind_are_left_to_plain_execution(
    binding: Binding, connection: Any, params: Any
) -> None:
    assert binding.bind(connection.cursor(), BY_ID, params) is None


def test_a_whole_decimal_is_left_to_plain_execution_where_it_is_an_integer(
    binding: Binding, connection: Any
) -> None:
    for whole in ("2", "-2", "0"):
        assert binding.bind(connection.cursor(), BY_ID, (decimal.Decimal(whole),)) is None
    for other in ("2.0", "1E+3", "NaN"):
        assert binding.bind(connection.cursor(), BY_ID, (decimal.Decimal(other),)) is not None


def test_cursors_and_connections_in_another_state_are_left_to_plain_execution(
    name: str, binding: Binding, connection: Any
) -> None:
    cursor = connection.cursor()
    run(connection, "BEGIN")
    assert binding.bind(cursor, BY_ID, (1,)) is not None
    with contextlib.suppress(importlib.import_module(name).Error):
        run(connection, "SELECT 1/0")
    assert binding.bind(cursor, BY_ID, (1,)) is None, "in a failed transaction"
    run(connection, "ROLLBACK")
    named = connection.cursor("named")
    assert binding.bind(named, BY_ID, (1,)) is None
    named.close()
    cursor.close()
    assert binding.bind(cursor, BY_ID, (1,)) is None, "closed"
    cursor = connection.cursor()
    connection.close()
    assert binding.bind(cursor, BY_ID, (1,)) is None, "its connection is closed"


def test_a_cursor_class_whose_execute_does_more_is_left_to_plain_execution(
    binding: Binding, connection: Any
) -> None:
    plain_class: Any = type(connection.cursor())

    class Counting(plain_class):  # type: ignore[misc]
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            return super().execute(*args, **kwargs)

    class Same(plain_class):  # type: ignore[misc]
        pass

    assert binding.bind(connection.cursor(), BY_ID, (1,)) is not None
    for cursor_class, bindable in [(Same, True), (Counting, False)]:
        connection.cursor_factory = cursor_class
        assert (binding.bind(connection.cursor(), BY_ID, (1,)) is not None) is bindable


def test_what_is_prepared_is_there_under_its_name_and_can_be_closed(
    binding: Binding, connection: Any
) -> None:
    cursor = connection.cursor()
    prepared = Prepared(binding, cursor, BY_ID, (1,))
    prepared.prepare()
    assert len(names(connection)) == 1
    binding.close(cursor, prepared.statement)
    assert names(connection) == []
    binding.close(cursor, prepared.statement)
    run(connection, "BEGIN")
    binding.close(cursor, prepared.statement)
    assert prepared_sum(connection) == 2, "the transaction was lost to a close"


def prepared_sum(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 + 1")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_guarded_prepare_that_is_refused_leaves_the_transaction_as_it_was(
    binding: Binding, connection: Any, autocommit: bool
) -> None:
    if autocommit:
        run(connection, "BEGIN")
    else:
        connection.autocommit = False
    cursor = connection.cursor()
    run(connection, "INSERT INTO bound VALUES (3, 'three')")
    assert binding.in_transaction(connection)
    prepared = Prepared(binding, cursor, "SELECT interval %s", ("1 day",))
    with pytest.raises(Exception, match="syntax error") as caught:
        prepared.prepare(guarded=True)
    assert is_refusal(binding.sqlstate(caught.value))
    fine = Prepared(binding, cursor, BY_ID, (3,))
    fine.prepare(guarded=True)
    assert fine.run().fetchone() == (3, "three")
    run(connection, "ROLLBACK")
    assert fine.run().fetchone() is None, "it did not survive the rollback"


def test_outside_autocommit_the_prepare_begins_the_transaction(
    binding: Binding, connection: Any
) -> None:
    connection.autocommit = False
    assert binding.in_transaction(connection)
    prepared = Prepared(binding, connection.cursor(), BY_ID, (1,))
    prepared.prepare(guarded=True)
    prepared.run()
    assert not binding.is_idle(connection)
    connection.rollback()
    assert binding.is_idle(connection)


def test_an_error_is_the_one_that_plain_execution_raises(
    name: str, binding: Binding, connection: Any
) -> None:
    sql = "SELECT 1 / %s"
    cursor = connection.cursor()
    prepared = Prepared(binding, cursor, sql, (1,))
    prepared.prepare()
    with pytest.raises(importlib.import_module(name).DataError) as plain:
        connection.cursor().execute(sql, (0,))
    with pytest.raises(importlib.import_module(name).DataError) as caught:
        prepared.run((0,))
    assert type(caught.value) is type(plain.value)
    assert str(caught.value) == str(plain.value)
    assert binding.sqlstate(caught.value) == "22012"
    assert not binding.is_outdated_plan(caught.value)
    assert prepared.run((1,)).fetchone() == (1,)


def test_a_plan_that_does_not_fit_any_more_is_told_from_other_features_that_are_not_there(
    binding: Binding, connection: Any
) -> None:
    cursor = connection.cursor()
    prepared = Prepared(binding, cursor, "SELECT * FROM bound WHERE id = %s", (1,))
    prepared.prepare()
    run(connection, "ALTER TABLE bound ADD COLUMN more int")
    with pytest.raises(Exception, match="result type") as caught:
        prepared.run()
    assert binding.sqlstate(caught.value) == "0A000"
    assert binding.is_outdated_plan(caught.value)
    assert binding.is_idle(connection)
    with pytest.raises(Exception, match="not implemented") as caught:
        run(connection, "SELECT * FROM elsewhere.public.bound")
    assert binding.sqlstate(caught.value) == "0A000"
    assert not binding.is_outdated_plan(caught.value)


def test_a_statement_that_is_gone_or_there_already_says_so(
    binding: Binding, connection: Any
) -> None:
    prepared = Prepared(binding, connection.cursor(), BY_ID, (1,))
    with pytest.raises(Exception, match="does not exist") as caught:
        prepared.run()
    assert binding.sqlstate(caught.value) == "26000"
    prepared.prepare()
    with pytest.raises(Exception, match="already exists") as caught:
        prepared.prepare()
    assert binding.sqlstate(caught.value) == "42P05"


def test_without_a_pooler_the_session_is_where_we_have_connected_to(
    binding: Binding, connection: Any
) -> None:
    assert not binding.is_elsewhere(connection.cursor())


@pytest.mark.parametrize("inside", [False, True])
def test_without_a_pooler_nobody_keeps_statements_apart_and_the_question_leaves_nothing(
    binding: Binding, connection: Any, inside: bool
) -> None:
    if inside:
        run(connection, "BEGIN")
    assert not binding.keeps_apart(connection.cursor())
    assert binding.is_idle(connection) is not inside
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM pg_prepared_statements")
    assert cursor.fetchone() == (0,)


@pytest.mark.parametrize("inside", [False, True])
def test_a_plan_cache_mode_holds_for_its_statement_alone(
    binding: Binding, connection: Any, inside: bool
) -> None:
    def plans() -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements")
            generic, custom = cursor.fetchone()
            return generic, custom

    if inside:
        run(connection, "BEGIN")
    prepared = Prepared(binding, connection.cursor(), BY_ID, (1,), mode="force_generic_plan")
    prepared.prepare(guarded=inside)
    assert prepared.run().fetchone() == (1, "one")
    assert plans() == (1, 0)
    with connection.cursor() as cursor:
        cursor.execute("SHOW plan_cache_mode")
        assert cursor.fetchone() == ("auto",)


def test_an_error_under_a_plan_cache_mode_leaves_no_mode_behind(
    binding: Binding, connection: Any
) -> None:
    cursor = connection.cursor()
    prepared = Prepared(binding, cursor, "SELECT 1 / %s", (1,), mode="force_generic_plan")
    prepared.prepare()
    for begin, end in [("SELECT 1", "SELECT 1"), ("BEGIN", "ROLLBACK")]:
        run(connection, begin)
        with pytest.raises(Exception, match="division by zero"):
            prepared.run((0,))
        run(connection, end)
        cursor.execute("SHOW plan_cache_mode")
        assert cursor.fetchone() == ("auto",)
