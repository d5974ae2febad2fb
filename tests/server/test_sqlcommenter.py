"""Comments in statements that tell the server's log whose they are."""

import pytest
from django import get_version
from django.db import transaction
from django.test.utils import CaptureQueriesContext

from django_psycopg_pooled.execution.comments import Commenter
from django_psycopg_pooled.tracking.labels import Work, begin
from tests.server.databases import Databases
from tests.server.support import pool_of, value

SHOWN = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() AND %s = %s"
FRAMEWORK = f"django%3A{get_version()}"


@pytest.fixture(autouse=True)
def _no_work_is_left() -> object:
    yield
    begin(None)


def test_a_statement_names_the_route_that_executes_it(databases: Databases) -> None:
    connection = databases.add({"sqlcommenter": True})
    begin(Work("GET /orders/<int:pk>/"))
    text = value(connection, SHOWN, 1, 1)
    assert text.endswith(
        "AND 1 = 1 /*db_driver='django_psycopg_pooled',"
        f"framework='{FRAMEWORK}',route='%2Forders%2F%3Cint%3Apk%3E%2F'*/"
    )


def test_a_task_is_named_as_an_action_and_nothing_as_nothing(databases: Databases) -> None:
    connection = databases.add({"sqlcommenter": True})
    begin(Work("task shop.tasks.bill"))
    assert "/*action='task%20shop.tasks.bill',db_driver=" in value(connection, SHOWN, 1, 1)
    begin(Work("GET", unfinished=True))
    assert value(connection, SHOWN, 1, 1).endswith(f",framework='{FRAMEWORK}'*/")


def test_a_text_without_parameters_has_the_same_comment(databases: Databases) -> None:
    connection = databases.add({"sqlcommenter": True})
    begin(Work("GET /100%/"))
    text = value(connection, "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert text.endswith("route='%2F100%25%2F'*/")


def test_without_the_option_there_is_none(databases: Databases) -> None:
    begin(Work("GET /orders/"))
    assert "/*" not in value(databases.add(), SHOWN, 1, 1)


def test_prepared_statements_carry_none_and_are_shared_by_all_routes(databases: Databases) -> None:
    connection = databases.add({"sqlcommenter": True, "prepare": "auto", "prepare_threshold": 1})
    for route in ("/a/", "/b/", "/c/"):
        begin(Work(f"GET {route}"))
        value(connection, "SELECT %s::int + 1", 1)
    [facts] = pool_of(connection).prepared()
    assert facts.state == "prepared"
    assert facts.hits == 2
    assert value(connection, "SELECT count(*) FROM pg_prepared_statements") == 1


def test_the_figures_do_not_know_of_comments(databases: Databases) -> None:
    connection = databases.add({"sqlcommenter": True})
    for route in ("/a/", "/b/"):
        begin(Work(f"GET {route}"))
        value(connection, "SELECT %s::int + 1", 1)
    [facts] = pool_of(connection).queries.top()
    assert (facts.text, facts.calls) == ("SELECT %s::int + ?", 2)


def test_a_hostile_label_cannot_leave_the_comment(databases: Databases) -> None:
    connection = databases.add({"sqlcommenter": True})
    begin(Work("GET /*/'; DROP TABLE x; --*/%s%(a)s"))
    with transaction.atomic(using=connection.alias), CaptureQueriesContext(connection) as captured:
        assert value(connection, "SELECT %s::int", 1) == 1
    assert "DROP TABLE" not in captured[-1]["sql"]


def test_what_is_no_string_is_left_alone() -> None:
    query = b"SELECT 1"
    assert Commenter("x").commented(query, None) is query
