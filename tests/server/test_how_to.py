"""Samples of docs/how-to.md, run as they are printed."""

import re
from typing import Any
from unittest import TestCase as Case

import pytest
from django.db import OperationalError, connections
from django.db import connection as this_threads
from django.http import HttpRequest, HttpResponse
from django.test import TransactionTestCase, override_settings
from django.urls import path

from django_psycopg_pooled import pools
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import ROOT, Call, eventually, value
from tests.server.test_testing_kit import run
from tests.server.things import Thing

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END_IT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN orders'"


def sample(mark: str) -> str:
    """The one block of Python with *mark* in it."""
    blocks = BLOCK.findall((ROOT / "docs" / "how-to.md").read_text())
    [found] = [block for block in blocks if mark in block]
    return str(found)


def run_sample(code: str, **names: Any) -> dict[str, Any]:
    """What *code* has defined; *names* are what it leaves to its reader."""
    exec(compile(code, "how-to.md", "exec"), names)
    return names


@pytest.fixture
def default(databases: Databases) -> PooledWrapper:
    """The alias 'default', as samples have it, and a table."""
    connection = databases.add({"max_size": 4}, alias="default")
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS things")
        cursor.execute("CREATE TABLE things (id serial PRIMARY KEY, name varchar(50) UNIQUE)")
    return connection


def test_each_connection_is_set_up(databases: Databases) -> None:
    code = sample("shop.db.set_up")
    set_up = run_sample(code[code.index("def set_up") :])["set_up"]
    assert value(databases.add({"configure": set_up}), "SHOW statement_timeout") == "10s"


def test_notifications_are_heard_also_after_the_connection_was_lost(
    default: PooledWrapper,
) -> None:
    code = sample("LISTEN orders")
    if DRIVER.name != "psycopg":  # whose loop it is
        listen = run_sample(code[code.index("def listen") : code.index("with pools")])["listen"]
        with pools["default"].dedicated(on_connect=listen):
            assert value(default, END_IT) is True
        return
    heard: list[str] = []

    def handle(notify: Any) -> None:
        heard.append(notify.payload)
        if notify.payload == "end":
            raise EOFError

    def notified(text: str) -> bool:
        value(default, "SELECT pg_notify('orders', %s)", text)
        return text in heard

    call = Call(lambda: run_sample(code, pools=pools, handle=handle))
    eventually(lambda: notified("one"))
    value(default, END_IT)
    eventually(lambda: notified("two"))
    eventually(lambda: notified("end"))
    with pytest.raises(EOFError):
        call.outcome()
    default.close()


def number_of_things(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Thing._default_manager.count()))


class Urls:
    urlpatterns = (path("", number_of_things),)


def test_faults_are_caused_and_outlived(default: PooledWrapper) -> None:
    given = {"TransactionTestCase": TransactionTestCase, "OperationalError": OperationalError}
    code = sample("def test_the_server_ends_our_session")
    cases = run_sample(code, **given, Order=Thing, connection=this_threads)["OutageTests"]
    assert issubclass(cases, Case)
    with override_settings(ROOT_URLCONF=Urls):
        assert run(cases, "default") == {}
    connections.close_all()
