"""Settings of DATABASES that shape a session: they hold for every borrower, not only the first."""

import datetime
import os
import socket
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import InternalError, connections, transaction
from django.db.backends.postgresql.psycopg_any import IsolationLevel, is_psycopg3
from django.test import override_settings

from django_psycopg_pooled.integration.parameters import KEEPALIVE, in_force
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import ABSENT, Databases
from tests.server.support import borrow, eventually, in_thread, pool_of, value, wrapper

NOON = "SELECT '2026-07-01 12:00:00+00'::timestamptz"
UTC_NOON = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)


def again(connection: PooledWrapper) -> PooledWrapper:
    """The second borrower of the same server session."""
    first = borrow(connection)
    connection.close()
    assert borrow(connection) == first
    return connection


def time_zone(connection: PooledWrapper) -> str:
    return str(value(connection, "SHOW timezone"))


def test_the_time_zone_of_a_database_holds_for_every_borrower(databases: Databases) -> None:
    connection = databases.add(TIME_ZONE="Asia/Tokyo")
    assert time_zone(connection) == "Asia/Tokyo"
    assert time_zone(again(connection)) == "Asia/Tokyo"
    noon = value(connection, NOON)
    assert noon == UTC_NOON
    assert noon.utcoffset() == datetime.timedelta(hours=9)


def test_without_one_the_session_runs_in_utc(databases: Databases) -> None:
    assert time_zone(again(databases.add())) == "UTC"


def test_without_use_tz_the_session_runs_in_the_projects_time_zone(databases: Databases) -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="America/Lima"):
        connection = databases.add()
        assert time_zone(again(connection)) == "America/Lima"
        assert value(connection, NOON) == datetime.datetime(2026, 7, 1, 7)


@pytest.mark.parametrize("give_back", [False, True])
def test_a_changed_time_zone_reaches_the_connection_in_use_and_the_next_ones(
    databases: Databases, give_back: bool
) -> None:
    connection = databases.add()
    borrow(connection)
    if give_back:
        connection.close()
    with override_settings(USE_TZ=False, TIME_ZONE="America/Lima"):
        assert time_zone(connection) == "America/Lima"
        assert value(connection, NOON) == datetime.datetime(2026, 7, 1, 7)
        connection.close()
        assert time_zone(again(connection)) == "America/Lima"
    assert time_zone(connection) == "UTC"
    assert value(connection, NOON) == UTC_NOON
    connection.close()
    assert time_zone(connection) == "UTC"
    assert value(connection, NOON) == UTC_NOON


def test_a_thread_that_comes_after_a_change_never_gets_the_old_time_zone(
    databases: Databases,
) -> None:
    connection = databases.add()
    borrow(connection)
    with override_settings(USE_TZ=False, TIME_ZONE="America/Lima"):
        assert in_thread(lambda: time_zone(wrapper(connection.alias))) == "America/Lima"
    assert in_thread(lambda: time_zone(wrapper(connection.alias))) == "UTC"
    connection.close()
    assert time_zone(connection) == "UTC"


def test_a_connection_whose_time_zone_was_changed_in_use_is_not_lent_by_its_old_pool(
    databases: Databases,
) -> None:
    connection = databases.add()
    first = borrow(connection)
    old = pool_of(connection)
    with override_settings(USE_TZ=False, TIME_ZONE="America/Lima"):
        assert time_zone(connection) == "America/Lima"
        connection.close()
    assert connection.pool is old
    assert time_zone(connection) == "UTC"
    assert borrow(connection) != first


def test_connections_in_a_time_zone_that_is_gone_do_not_stay_on_the_server(
    databases: Databases,
) -> None:
    connection = databases.add()
    borrow(connection)
    for zone in ("America/Lima", "Asia/Tokyo", "Africa/Cairo"):
        with override_settings(USE_TZ=False, TIME_ZONE=zone):
            assert time_zone(connection) == zone
            connection.close()
            borrow(connection)
    connection.close()
    borrow(connection)
    eventually(lambda: databases.server.backends() == 1)


def test_a_time_zone_needs_use_tz_as_with_stock(databases: Databases) -> None:
    with override_settings(USE_TZ=False):
        connection = databases.add(TIME_ZONE="Asia/Tokyo")
        with pytest.raises(ImproperlyConfigured, match="cannot set TIME_ZONE"):
            connection.ensure_connection()


def test_datetimes_are_loaded_in_the_databases_time_zone_over_a_second_loan(
    databases: Databases,
) -> None:
    connection = databases.add(TIME_ZONE="Europe/Madrid")
    assert value(connection, NOON).tzinfo == zoneinfo.ZoneInfo("Europe/Madrid")
    assert value(again(connection), NOON).tzinfo == zoneinfo.ZoneInfo("Europe/Madrid")


def test_an_assumed_role_holds_for_every_borrower(databases: Databases) -> None:
    databases.server.psql("CREATE ROLE assumed")
    try:
        connection = databases.add(options={"assume_role": "assumed"})
        assert value(connection, "SELECT current_user") == "assumed"
        assert value(again(connection), "SELECT current_user") == "assumed"
        connection.close()
        pool_of(connection).close()
    finally:
        databases.server.psql("DROP ROLE assumed")


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE_READ", "READ_COMMITTED"])
def test_an_isolation_level_holds_for_every_borrower(databases: Databases, level: str) -> None:
    connection = databases.add(options={"isolation_level": IsolationLevel[level]})
    for _ in range(2):
        with transaction.atomic(using=connection.alias):
            shown = value(connection, "SHOW transaction_isolation")
        assert shown == level.lower().replace("_", " ")
        assert connection.isolation_level == IsolationLevel[level]
        again(connection)


def test_the_default_isolation_level_is_known_as_with_stock(databases: Databases) -> None:
    connection = databases.add()
    borrow(connection)
    assert connection.isolation_level == IsolationLevel.READ_COMMITTED


def test_an_invalid_isolation_level_is_refused_in_djangos_words(databases: Databases) -> None:
    connection = databases.add({"timeout": 5}, options={"isolation_level": -1})
    with pytest.raises(ImproperlyConfigured, match="Invalid transaction isolation level -1"):
        connection.ensure_connection()


@pytest.mark.skipif(not is_psycopg3, reason="psycopg2 has no binding on the server")
@pytest.mark.parametrize("bind_on_server", [True, False])
def test_server_side_binding_holds_for_every_borrower(
    databases: Databases, bind_on_server: bool
) -> None:
    connection = databases.add(options={"server_side_binding": bind_on_server})
    for _ in range(2):
        assert value(connection, "SELECT %s::int + 1", 41) == 42
        text = value(
            connection,
            "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() AND %s = 4711",
            4711,
        )
        assert ("$1" in text) is bind_on_server
        again(connection)


def test_options_of_libpq_reach_the_session(databases: Databases) -> None:
    options = {"application_name": "shop", "options": "-c work_mem=5MB"}
    connection = databases.add(options=options)
    assert value(connection, "SHOW application_name") == "shop"
    assert value(again(connection), "SHOW work_mem") == "5MB"


def test_autocommit_false_holds_for_every_borrower(databases: Databases) -> None:
    connection = databases.add({"max_size": 1}, AUTOCOMMIT=False)
    databases.server.psql("CREATE TABLE IF NOT EXISTS kept (n int)", "tests")
    try:
        for _ in range(2):
            borrow(connection)
            assert not connection.get_autocommit()
            assert connection.connection.autocommit is False
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO kept VALUES (1)")
            assert databases.server.psql("SELECT count(*) FROM kept", "tests") == ["0"]
            connection.close()
        borrow(connection)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        assert databases.server.psql("SELECT count(*) FROM kept", "tests") == ["1"]
        assert pool_of(connection).get_stats()["connections_num"] == 1
        connection.close()
    finally:
        databases.server.psql("DROP TABLE kept", "tests")


def test_a_session_setting_of_the_configure_hook_holds_for_every_borrower(
    databases: Databases,
) -> None:
    connection = databases.add({"configure": set_work_mem})
    assert value(connection, "SHOW work_mem") == "7MB"
    assert value(again(connection), "SHOW work_mem") == "7MB"


def set_work_mem(raw: object) -> None:
    with raw.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SET work_mem = '7MB'")


def test_options_that_change_under_an_alias_get_a_session_of_their_own(
    databases: Databases,
) -> None:
    connection = databases.add(options={"application_name": "before"})
    assert value(connection, "SHOW application_name") == "before"
    connection.close()
    connection.settings_dict["OPTIONS"]["application_name"] = "after"
    assert value(connection, "SHOW application_name") == "after"
    connection.close()
    eventually(lambda: databases.server.backends() == 1)


def test_a_subclass_that_sets_up_its_sessions_is_honoured(databases: Databases) -> None:
    connection = databases.add(ENGINE="tests.server.backends.with_work_mem")
    assert connections[connection.alias] is connection
    assert value(connection, "SHOW work_mem") == "9MB"
    assert value(again(connection), "SHOW work_mem") == "9MB"


def test_a_setting_survives_a_time_zone_change_in_another_thread(databases: Databases) -> None:
    connection = databases.add(TIME_ZONE="Asia/Tokyo")
    check: Callable[[], str] = lambda: time_zone(wrapper(connection.alias))  # noqa: E731
    assert time_zone(connection) == "Asia/Tokyo"
    assert in_thread(check) == "Asia/Tokyo"


def test_the_plan_cache_mode_of_a_pool_holds_for_every_borrower_and_after_a_reset(
    databases: Databases,
) -> None:
    connection = databases.add(pool={"plan_cache_mode": "force_custom_plan"})
    assert value(connection, "SHOW plan_cache_mode") == "force_custom_plan"
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = auto")
    assert value(again(connection), "SHOW plan_cache_mode") == "force_custom_plan"


# Where libpq finds `options`, in the order in which it looks; each hides the ones after it.
SOURCES = ["given", "service", "PGSERVICE", "PGOPTIONS"]
THEIRS = "-c search_path=theirs -c work_mem=7MB"


@pytest.fixture
def put(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PooledWrapper]:
    """Makes an alias for which the user has put parameters into the source of that name."""

    def put(source: str, pool: Any = ABSENT, **params: str) -> PooledWrapper:
        if source == "given":
            return databases.add(pool, options=params)
        if source == "PGOPTIONS":
            monkeypatch.setenv("PGOPTIONS", params["options"])
            return databases.add(pool)
        file = tmp_path / "services.conf"
        file.write_text("\n".join(["[shop]", *(f"{key}={params[key]}" for key in params)]) + "\n")
        monkeypatch.setenv("PGSERVICEFILE", str(file))
        if source == "service":
            return databases.add(pool, options={"service": "shop"})
        monkeypatch.setenv("PGSERVICE", "shop")
        return databases.add(pool)

    return put


def settings_of(connection: PooledWrapper) -> dict[str, str]:
    names = ("search_path", "work_mem", "plan_cache_mode", "idle_in_transaction_session_timeout")
    return {name: value(connection, f"SHOW {name}") for name in names}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("zone", ["UTC", "America/Lima"])
def test_settings_among_libpqs_options_hold_wherever_they_are_and_after_a_reset(
    put: Callable[..., PooledWrapper], source: str, zone: str
) -> None:
    pool = {"plan_cache_mode": "force_custom_plan", "idle_in_transaction_timeout": 50}
    connection = put(source, pool, options=f"{THEIRS} -c timezone={zone}")
    assert time_zone(connection) == "UTC"
    first = settings_of(connection)
    assert list(first.values()) == ["theirs", "7MB", "force_custom_plan", "50s"]
    with connection.cursor() as cursor:
        cursor.execute(
            "SET search_path = mine; SET work_mem = '9MB'; SET plan_cache_mode = auto;"
            " SET idle_in_transaction_session_timeout = 7; SET timezone = 'Asia/Tokyo'"
        )
    assert time_zone(again(connection)) == "UTC"
    assert settings_of(connection) == first


def test_options_of_the_user_hide_those_of_the_environment_as_with_stock(
    put: Callable[..., PooledWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", THEIRS)
    for options in ("-c search_path=own", ""):
        connection = put("given", options=options)
        assert value(connection, "SHOW work_mem") == "4MB"


def test_a_time_zone_of_the_environment_does_not_come_back_by_a_reset(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    connection = databases.add()
    assert time_zone(connection) == "UTC"
    with connection.cursor() as cursor:
        cursor.execute("SET work_mem = '9MB'")
    assert time_zone(again(connection)) == "UTC"


@pytest.mark.parametrize("source", SOURCES)
def test_who_asks_for_sessions_that_only_read_keeps_them_after_a_refused_write(
    put: Callable[..., PooledWrapper], source: str
) -> None:
    connection = put(source, options="-c default_transaction_read_only=on")
    for _ in range(2):
        with connection.cursor() as cursor, pytest.raises(InternalError, match="read-only"):
            cursor.execute("CREATE TABLE refused ()")
        again(connection)


def socket_option(connection: PooledWrapper, name: int) -> int:
    connection.ensure_connection()
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as line:
        return line.getsockopt(socket.IPPROTO_TCP, name)


@pytest.mark.parametrize("source", SOURCES[:3])
def test_keepalives_of_the_user_hold_wherever_they_are_and_ours_beside_them(
    put: Callable[..., PooledWrapper], source: str
) -> None:
    connection = put(source, keepalives_idle="77", tcp_user_timeout="4321")
    assert socket_option(connection, socket.TCP_KEEPIDLE) == 77
    assert socket_option(connection, socket.TCP_USER_TIMEOUT) == 4321
    assert socket_option(connection, socket.TCP_KEEPINTVL) == KEEPALIVE["keepalives_interval"]
    assert socket_option(connection, socket.TCP_KEEPCNT) == KEEPALIVE["keepalives_count"]


def test_a_unix_socket_of_a_service_needs_no_keepalives(
    put: Callable[..., PooledWrapper], databases: Databases
) -> None:
    connection = put("service", application_name="shop")
    connection.settings_dict["HOST"] = str(databases.server.data.parent)
    assert value(connection, "SELECT inet_server_addr() IS NULL") is True
    assert value(connection, "SHOW application_name") == "shop"


def test_the_environments_limit_for_a_connect_holds(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "9")
    connection = databases.add()
    borrow(connection)
    assert in_force(connection.connection)["connect_timeout"] == "9"
