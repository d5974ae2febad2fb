"""close() gives back, the next query borrows again: when, and which connection."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from django_psycopg_pooled.integration.driver import DRIVER
from tests.server.databases import Databases
from tests.server.support import (
    borrow,
    eventually,
    fill,
    in_thread,
    pool_of,
    value,
    wrapper,
)

served: list[tuple[str, int]] = []


def view(request: HttpRequest, alias: str) -> HttpResponse:
    pid = value(wrapper(alias), "SELECT pg_backend_pid()")
    served.append((alias, pid))
    return HttpResponse(str(pid))


urlpatterns = [path("<alias>/", view)]


@pytest.fixture
def site() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        yield


def request(alias: str) -> int:
    """One request through Django's WSGI handler, which sends request_started and _finished."""
    environ = RequestFactory().get(f"/{alias}/").environ
    with contextlib.closing(WSGIHandler()(environ, start_response)) as response:
        return int(b"".join(response))


def start_response(status: str, *_: object) -> Callable[[bytes], object]:
    assert status == "200 OK"
    return len


def test_a_connection_is_used_again_after_close(databases: Databases) -> None:
    connection = databases.add()
    first = borrow(connection)
    connection.close()
    assert connection.connection is None
    assert borrow(connection) == first
    assert pool_of(connection).get_stats()["connections_num"] == 1


def test_another_thread_gets_the_connection_that_was_given_back(databases: Databases) -> None:
    connection = databases.add()
    first = borrow(connection)
    connection.close()
    assert in_thread(lambda: borrow(wrapper(connection.alias))) == first


def test_the_connection_given_back_last_is_lent_first(databases: Databases) -> None:
    connection = databases.add({"min_size": 3, "max_size": 3})
    one, two, three = fill(pool_of(connection), 3)
    assert len({one, two, three}) == 3
    assert borrow(connection) == three
    assert in_thread(lambda: borrow(wrapper(connection.alias))) == two
    assert in_thread(lambda: borrow(wrapper(connection.alias))) == two


def test_nothing_is_sent_to_the_server_to_lend_a_connection_again(databases: Databases) -> None:
    connection = databases.add({"max_size": 1})
    borrow(connection)
    connection.close()
    last_word = "SELECT query_start FROM pg_stat_activity WHERE datname = 'tests'"
    before = databases.server.psql(last_word)
    for _ in range(3):
        borrow(connection)
        connection.close()
    assert databases.server.psql(last_word) == before
    assert len(before) == 1


@pytest.mark.usefixtures("site")
def test_a_request_gives_its_connection_back_at_its_end(databases: Databases) -> None:
    connection = databases.add(CONN_MAX_AGE=0)
    first = request(connection.alias)
    assert connection.connection is None
    assert pool_of(connection).snapshot().count("idle") == 1
    assert request(connection.alias) == first


@pytest.mark.usefixtures("site")
def test_max_age_none_keeps_the_very_object_over_requests(databases: Databases) -> None:
    connection = databases.add(CONN_MAX_AGE=None)
    borrow(connection)
    raw = connection.connection
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is raw
    request(connection.alias)
    assert connection.connection is raw
    assert pool_of(connection).snapshot().count("lent") == 1


def test_a_max_age_that_has_not_passed_keeps_the_connection(databases: Databases) -> None:
    connection = databases.add(CONN_MAX_AGE=600)
    borrow(connection)
    raw = connection.connection
    close_old_connections()
    assert connection.connection is raw


def test_a_max_age_that_has_passed_gives_the_connection_back(databases: Databases) -> None:
    connection = databases.add(CONN_MAX_AGE=0.01)
    first = borrow(connection)

    def given_back() -> bool:
        close_old_connections()
        return connection.connection is None

    eventually(given_back)
    assert borrow(connection) == first


def test_a_kept_connection_that_failed_is_given_up_at_the_end_of_the_request(
    databases: Databases,
) -> None:
    connection = databases.add(CONN_MAX_AGE=None)
    first = borrow(connection)
    databases.server.terminate_backends("tests")
    with pytest.raises(Exception, match=r"terminat|closed"):
        value(connection, "SELECT 1")
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is None
    assert borrow(connection) != first


@pytest.mark.parametrize("max_age", [0, None])
def test_health_checks_may_be_on(databases: Databases, max_age: int | None) -> None:
    connection = databases.add(CONN_HEALTH_CHECKS=True, CONN_MAX_AGE=max_age)
    first = borrow(connection)
    for _ in range(3):
        close_old_connections()
        assert value(connection, "SELECT pg_backend_pid()") == first


def test_health_checks_heal_a_connection_that_is_kept_and_died_between_requests(
    databases: Databases,
) -> None:
    connection = databases.add(CONN_HEALTH_CHECKS=True, CONN_MAX_AGE=None)
    borrow(connection)
    close_old_connections()
    databases.server.terminate_backends("tests")
    close_old_connections()  # a request begins
    assert value(connection, "SELECT 1") == 1


def test_the_connection_is_the_drivers_own_object(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)
    assert type(connection.connection).__module__.split(".")[0] == DRIVER.name
