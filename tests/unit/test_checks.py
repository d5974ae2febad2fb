"""The system checks; they connect to nothing."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import checks as django_checks
from django.core.checks import CheckMessage
from django.db import connections
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.test import override_settings

import django_psycopg_pooled
from django_psycopg_pooled import checks
from django_psycopg_pooled.apps import PooledConfig
from django_psycopg_pooled.integration import web_server

ALIAS = "checked"


@pytest.fixture(autouse=True)
def _forget_the_alias_afterwards() -> Iterator[None]:
    yield
    forget_the_alias()


def forget_the_alias() -> None:
    connections.settings.pop(ALIAS, None)
    if hasattr(connections._connections, ALIAS):  # type: ignore[attr-defined]
        del connections[ALIAS]


def run(
    engine: str = "django_psycopg_pooled.backends.postgresql", **entry: Any
) -> list[CheckMessage]:
    """What the checks say of one alias with these settings."""
    forget_the_alias()
    filled = connections.configure_settings(
        {"default": {}, ALIAS: {"ENGINE": engine, "NAME": "x", **copy.deepcopy(entry)}}
    )
    connections.settings[ALIAS] = filled[ALIAS]
    return [m for m in checks.check_databases(None) if ALIAS in m.msg]


def test_the_defaults_are_silent() -> None:
    assert run() == []
    assert run(OPTIONS={"pool": True}) == []


def test_each_wrong_option_is_an_error_of_its_own() -> None:
    first, second = run(OPTIONS={"pool": {"max_sise": 1, "timeout": -1}})
    assert first.id == second.id == "django_psycopg_pooled.E001"
    assert first.msg == (
        "DATABASES['checked']['OPTIONS']['pool']: 'max_sise' is not a pool option;"
        " did you mean 'max_size'?"
    )
    assert "timeout is -1" in second.msg
    assert first.level == django_checks.ERROR


@pytest.mark.parametrize(("age", "words"), [(None, "until it ends"), (60, "for 60 s")])
def test_conn_max_age_is_explained(age: int | None, words: str) -> None:
    [message] = run(CONN_MAX_AGE=age, CONN_HEALTH_CHECKS=True)
    assert message.id == "django_psycopg_pooled.W001"
    assert words in message.msg
    assert message.level == django_checks.WARNING
    assert message.hint is not None
    assert "Set it to 0" in message.hint


def test_conn_health_checks_alone_are_explained() -> None:
    [message] = run(CONN_HEALTH_CHECKS=True)
    assert message.id == "django_psycopg_pooled.I001"
    assert message.level == django_checks.INFO


def test_conn_max_age_keeps_nothing_between_transactions() -> None:
    [message] = run(CONN_MAX_AGE=60, OPTIONS={"pool": {"release": "transaction"}})
    assert message.id == "django_psycopg_pooled.I002"
    assert "CONN_MAX_AGE'] is 60 and keeps nothing" in message.msg
    assert message.level == django_checks.INFO


def test_preparing_beside_binding_on_the_server_is_told() -> None:
    options = {"pool": {"prepare": "auto"}, "server_side_binding": True}
    messages = run(OPTIONS=options)
    if not is_psycopg3:  # Django ignores it there
        assert messages == []
        return
    [message] = messages
    assert message.id == "django_psycopg_pooled.W003"
    assert "nothing is prepared" in message.msg
    assert message.hint is not None
    assert "Remove server_side_binding" in message.hint


@pytest.mark.parametrize(
    "options",
    [
        {"pool": True, "server_side_binding": True},
        {"pool": {"prepare": "auto"}, "server_side_binding": False},
        {"pool": {"prepare": "registered"}},
    ],
)
def test_one_of_the_two_ways_to_bind_is_well(options: dict[str, Any]) -> None:
    assert run(OPTIONS=options) == []


def test_a_timeout_that_forestalls_the_report_is_told() -> None:
    [message] = run(OPTIONS={"pool": {"idle_in_transaction_timeout": 2}})
    assert message.id == "django_psycopg_pooled.W004"
    assert "idle_in_transaction_timeout is 2 s and idle_in_transaction_threshold 3 s" in message.msg
    assert message.hint is not None
    assert "less than 2 s" in message.hint


@pytest.mark.parametrize(
    "pool",
    [
        {"idle_in_transaction_timeout": 10},
        {"idle_in_transaction_timeout": 2, "idle_in_transaction_threshold": 1},
        {"idle_in_transaction_timeout": 2, "idle_in_transaction_threshold": 0},
        {"idle_in_transaction_timeout": 2, "num_workers": 0},
    ],
)
def test_a_timeout_that_forestalls_nothing_is_well(pool: dict[str, Any]) -> None:
    assert run(OPTIONS={"pool": pool}) == []


@pytest.mark.parametrize("cause", ["num_workers", "idle_in_transaction_threshold"])
def test_a_hook_that_is_never_called_is_told(cause: str) -> None:
    [message] = run(OPTIONS={"pool": {"on_idle_in_transaction": print, cause: 0}})
    assert message.id == "django_psycopg_pooled.W005"
    assert f"on_idle_in_transaction is set, and {cause} is 0: it is never called" in message.msg
    assert run(OPTIONS={"pool": {"on_idle_in_transaction": print}}) == []


def test_options_that_cannot_hold_behind_a_pooler_are_told_together() -> None:
    names = ("plan_cache_mode", "idle_in_transaction_timeout")
    pool = {"pooler": "pgbouncer", "plan_cache_mode": "auto", "idle_in_transaction_timeout": 10}
    [message] = run(OPTIONS={"pool": pool})
    assert message.id == "django_psycopg_pooled.W006"
    assert f"so {' and '.join(names)} cannot hold" in message.msg
    assert run(OPTIONS={"pool": {"pooler": "pgbouncer"}}) == []


def test_a_wrong_option_does_not_hide_what_else_is_wrong() -> None:
    ids = [m.id for m in run(CONN_MAX_AGE=60, OPTIONS={"pool": {"max_sise": 1}})]
    assert ids == ["django_psycopg_pooled.E001", "django_psycopg_pooled.W001"]


def test_unpooled_aliases_and_other_engines_are_none_of_its_business() -> None:
    assert run(CONN_MAX_AGE=60, OPTIONS={"pool": False}) == []
    assert run("django.db.backends.postgresql", CONN_MAX_AGE=60) == []


def test_the_app_registers_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[object] = []
    monkeypatch.setattr(django_checks, "register", lambda check, *tags: registered.append(check))
    PooledConfig("django_psycopg_pooled", django_psycopg_pooled).ready()
    assert registered == [checks.check_databases, checks.check_setting]


def test_a_wrong_project_wide_setting_is_an_error() -> None:
    with override_settings(DJANGO_PSYCOPG_POOLED={"CONTROL_DIRR": "/run/shop"}):
        [message] = checks.check_setting(None)
    assert message.id == "django_psycopg_pooled.E002"
    assert "did you mean 'CONTROL_DIR'" in message.msg
    assert checks.check_setting(None) == []


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (["/srv/bin/gunicorn", "shop.wsgi", "-k", "gthread", "--threads", "16"], {}),
        (["gunicorn", "--threads=16", "shop.wsgi"], {}),
        (["/lib/gunicorn/__main__.py", "--threads=16", "shop.wsgi"], {}),
        (["manage.py", "check"], {"GUNICORN_CMD_ARGS": "--workers 3 --threads 16"}),
    ],
)
def test_more_threads_than_connections_are_told(
    argv: list[str], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAINS 12."""
    monkeypatch.setattr("sys.argv", argv)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    [message] = run(OPTIONS={"pool": {"max_size": 4}})
    assert message.id == "django_psycopg_pooled.W002"
    assert "max_size is 4, and gunicorn runs 16 threads" in message.msg
    assert "12 of them may have to wait" in message.msg


def test_as_many_connections_as_threads_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gunicorn", "--threads", "16"])
    assert run(OPTIONS={"pool": {"max_size": 16}}) == []


@pytest.mark.parametrize("argv", [["manage.py", "--threads", "9"], ["gunicorn", "shop"], []])
def test_threads_that_are_not_the_web_servers_are_not_counted(argv: list[str]) -> None:
    assert web_server.server_threads(argv, {}) == 0


def test_arguments_that_gunicorn_itself_could_not_read_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--threads 16 --name 'shop")
    assert run(OPTIONS={"pool": {"max_size": 4}}) == []


@pytest.mark.parametrize(("program", "times"), [("/srv/bin/gunicorn", 1), ("manage.py", 0)])
def test_a_server_process_is_told_once_for_each_alias_and_others_are_not(
    program: str, times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", [program, "shop.wsgi"])
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--threads=16")
    monkeypatch.setattr(web_server, "_looked_at", set())
    for alias in ("default", "other", "default", "other"):
        web_server.hint_once(alias, 4)
    assert caplog.text.count("DATABASES['default']['OPTIONS']['pool']: max_size is 4") == times
    assert len(caplog.records) == 2 * times
