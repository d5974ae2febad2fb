"""Symptom in, file and line out: twelve ways to hold a database up, each named within 5 s.

The lines that must be named carry a mark: `# <- transfer begins`.
"""

import contextlib
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from django.db import DatabaseError, models, transaction
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from django_psycopg_pooled.integration.database_pool import DatabasePool
from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program, project_environ
from tests.server.support import (
    PREAMBLE,
    ROOT,
    Call,
    eventually,
    in_thread,
    pool_of,
    run_python,
    value,
    wrapper,
)
from tests.server.test_gevent import GREEN

Write = Callable[[dict[str, str]], Path]

HERE = "tests/server/test_who_holds.py"
WITHIN_S = 5.0
SOON = {"idle_in_transaction_threshold": 0.3, "timeout": 10}


class Account(models.Model):
    name = models.CharField(max_length=50)
    amount = models.IntegerField(default=0)
    objects: "models.Manager[Account]" = models.Manager()

    class Meta:
        app_label = "holding"
        db_table = "accounts"


class Bank:
    """Two aliases for one database with a table of accounts, and what is said about them."""

    def __init__(self, databases: Databases, log: pytest.LogCaptureFixture) -> None:
        self.databases = databases
        self._log = log
        self.victims: list[Call] = []
        self.main = databases.add(SOON)
        self.alias = self.main.alias
        with self.main.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS accounts")
            cursor.execute("CREATE TABLE accounts (id serial PRIMARY KEY, name text, amount int)")
            cursor.execute(
                "INSERT INTO accounts (name, amount) SELECT n, 0 FROM generate_series(1, 9) n"
            )
        self.main.close()

    @property
    def pool(self) -> DatabasePool:
        pool = pool_of(self.main)
        assert isinstance(pool, DatabasePool)
        return pool

    @contextlib.contextmanager
    def held_by(self, culprit: Callable[["Bank", Event], object]) -> Iterator[None]:
        """A thread that holds something until the end; it waits for the event meanwhile."""
        done = Event()
        call = Call(lambda: culprit(self, done), "culprit")
        try:
            yield
        finally:
            done.set()
            call.outcome()

    def wants(self, sql: str) -> None:
        """Somebody wants what is held, and waits until the end of the test at the longest."""

        def want() -> None:
            value(wrapper(self.alias), sql)

        waiting = self.locked_out()
        self.victims.append(Call(want, "victim"))
        eventually(lambda: self.locked_out() > waiting)

    def wants_when_idle(self, sql: str) -> None:
        """wants(), as soon as somebody is idle in a transaction."""
        eventually(lambda: self.databases.server.backends("state = 'idle in transaction'"))
        self.wants(sql)

    def locked_out(self) -> int:
        return self.databases.server.backends("wait_event_type = 'Lock'")

    def logged(self) -> str:
        return _in_one_line(self._log.text)

    def blocking(self) -> str:
        return _in_one_line(self.pool.blocking())


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def line(mark: str) -> str:
    """The place of the line that carries this mark."""
    with open(__file__) as file:
        [number] = [n for n, s in enumerate(file, 1) if s.rstrip().endswith(f"# <- {mark}")]
    return f"{HERE}:{number} in "


def assert_named(say: Callable[[], str], *expected: str) -> None:
    """What *say* says has all of that within 5 s."""
    began = time.monotonic()
    while missing := [text for text in expected if text not in say()]:
        assert time.monotonic() < began + WITHIN_S, f"{missing} not in: {say()}"
        time.sleep(0.05)


@pytest.fixture
def bank(databases: Databases, caplog: pytest.LogCaptureFixture) -> Iterator[Bank]:
    bank = Bank(databases, caplog)
    yield bank
    for victim in bank.victims:
        victim.outcome()


# ---- the twelve


def test_a_thread_that_never_gives_back(databases: Databases, caplog: Any) -> None:
    connection = databases.add({"max_size": 1, "leak_threshold": 0.3, "timeout": 0.8})
    done = Event()

    def poller() -> None:
        value(wrapper(connection.alias), "SELECT 1")  # <- leak borrows
        done.wait(20)  # <- leak is now

    call = Call(poller, "poller")
    eventually(lambda: pool_of(connection).snapshot().count("lent"))
    with pytest.raises(DatabaseError) as raised:
        in_thread(lambda: value(wrapper(connection.alias), "SELECT 1"))
    error = _in_one_line(str(raised.value))
    for said in ("thread 'poller', idle, ", f"last statement at {SUPPORT}", line("leak is now")):
        assert said in error
    assert_named(lambda: caplog.text, line("leak borrows"), "has been lent for")
    done.set()
    call.outcome()


SUPPORT = "tests/server/support.py:"


def forgets_autocommit(bank: Bank, done: Event) -> None:
    connection = wrapper(bank.alias)
    connection.set_autocommit(False)  # <- autocommit goes
    Account.objects.using(bank.alias).filter(id=1).update(amount=5)  # <- autocommit updates
    done.wait(20)  # <- autocommit is now
    connection.rollback()


def test_set_autocommit_false_and_never_back(bank: Bank) -> None:
    with bank.held_by(forgets_autocommit):
        assert_named(
            bank.logged,
            "idle in transaction for",
            f"transaction begun at {line('autocommit goes')}",
            f"last statement at {line('autocommit updates')}",
            f"thread is now at {line('autocommit is now')}",
        )


def all_accounts(alias: str) -> Iterator[Account]:
    with transaction.atomic(alias):  # <- generator begins
        yield from Account.objects.using(alias).iterator(chunk_size=2)  # <- generator reads


def reads_the_first(bank: Bank, done: Event) -> None:
    accounts = all_accounts(bank.alias)
    next(accounts)
    done.wait(20)  # <- generator is now
    accounts.close()  # type: ignore[attr-defined]


def test_a_generator_with_a_server_side_cursor_that_nobody_finishes(bank: Bank) -> None:
    with bank.held_by(reads_the_first):
        assert_named(
            bank.logged,
            f"transaction begun at {line('generator begins')}",
            f"last statement at {line('generator reads')}",
            f"thread is now at {line('generator is now')}",
        )


def saves(bank: Bank, done: Event) -> None:
    def on_save(sender: Any, instance: Account, **kwargs: Any) -> None:
        with transaction.atomic(bank.alias):  # <- receiver begins
            Account.objects.using(bank.alias).filter(id=2).update(amount=1)  # <- receiver updates
            done.wait(20)  # <- receiver is now

    post_save.connect(on_save, sender=Account)
    try:
        Account.objects.using(bank.alias).create(name="new")  # <- receiver is called
    finally:
        post_save.disconnect(on_save, sender=Account)


def test_a_receiver_of_post_save_that_opens_a_transaction_and_sleeps(bank: Bank) -> None:
    with bank.held_by(saves):
        bank.wants_when_idle("UPDATE accounts SET amount = 7 WHERE id = 2 RETURNING 1")
        assert_named(
            bank.logged,
            f"transaction begun at {line('receiver begins')}",
            f"last statement at {line('receiver updates')}",
            f"thread is now at {line('receiver is now')}",
            f"from {line('receiver is called')}",
        )
        assert_named(
            bank.blocking,
            "row of accounts",
            f"ours: culprit; transaction begun at {line('receiver begins')}",
            "ours: victim",
        )


def test_two_aliases_of_one_database_that_wait_for_each_other_in_one_thread(bank: Bank) -> None:
    other = bank.databases.add(SOON).alias
    ended: list[object] = []

    def transfers() -> None:
        with transaction.atomic(bank.alias):  # <- alias begins
            Account.objects.using(bank.alias).filter(id=1).update(amount=5)  # <- alias updates
            try:
                Account.objects.using(other).filter(id=1).update(amount=6)  # <- alias waits
            except DatabaseError as error:
                ended.append(error)

    call = Call(transfers, "transfer")
    assert_named(
        bank.logged,
        f"transaction begun at {line('alias begins')}",
        f"last statement at {line('alias updates')}",
        f"thread is now at {line('alias waits')}",
    )
    assert_named(bank.blocking, f"ours: transfer; transaction begun at {line('alias begins')}")
    bank.databases.server.psql(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    )
    call.outcome()
    assert len(ended) == 1


def locks_by_advice(bank: Bank, done: Event) -> None:
    with wrapper(bank.alias).cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(42)")  # <- advice is taken
    done.wait(20)  # <- advice is now
    with wrapper(bank.alias).cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(42)")


def test_an_advisory_lock_that_is_held_without_a_transaction(bank: Bank) -> None:
    with bank.held_by(locks_by_advice):
        eventually(lambda: bank.databases.server.psql("SELECT 1 FROM pg_locks WHERE objid = 42"))
        bank.wants("SELECT pg_advisory_lock(42)::text")
        assert_named(
            bank.blocking,
            "advisory lock",
            f"ours: culprit; last statement at {line('advice is taken')}",
            f"now at {line('advice is now')}",
            "ours: victim",
        )


def locks_the_table(bank: Bank, done: Event) -> None:
    with transaction.atomic(bank.alias):  # <- table begins
        with wrapper(bank.alias).cursor() as cursor:
            cursor.execute("LOCK TABLE accounts")  # <- table is locked
        done.wait(20)  # <- table is now


def test_a_table_that_is_locked(bank: Bank) -> None:
    with bank.held_by(locks_the_table):
        bank.wants_when_idle("SELECT count(*) FROM accounts")
        assert_named(
            bank.blocking,
            "table accounts",
            f"transaction begun at {line('table begins')}",
            f"last statement at {line('table is locked')}",
            f"now at {line('table is now')}",
            "ours: victim",
        )


def reads_in_a_transaction(bank: Bank, done: Event) -> None:
    with transaction.atomic(bank.alias):  # <- reader begins
        Account.objects.using(bank.alias).count()  # <- reader counts
        done.wait(20)  # <- reader is now


MIGRATION = """
from django.db import models
class Account(models.Model):
    class Meta:
        app_label, db_table = "holding", "accounts"
field = models.IntegerField(null=True)
field.set_attributes_from_name("points")
with connection.schema_editor() as editor:
    editor.add_field(Account, field)
"""


def test_a_migration_that_waits_behind_a_reader_and_holds_up_all_others(
    bank: Bank, script_folder: Write
) -> None:
    folder = script_folder({"migration.py": PREAMBLE + MIGRATION})
    entry = bank.databases.settings({"max_size": 2})
    with contextlib.ExitStack() as culprit, contextlib.ExitStack() as programs:
        culprit.enter_context(bank.held_by(reads_in_a_transaction))
        eventually(lambda: bank.databases.server.backends("state = 'idle in transaction'"))
        migration = Program(folder, "migration.py", databases={"default": entry})
        programs.enter_context(migration)
        eventually(bank.locked_out)
        bank.wants("SELECT count(*) FROM accounts")
        assert_named(
            bank.blocking,
            f"ours: culprit; transaction begun at {line('reader begins')}",
            f"last statement at {line('reader counts')}",
            f"now at {line('reader is now')}",
            'runs: ALTER TABLE "accounts" ADD COLUMN "points"',
            "ours: victim",
        )
        found = bank.blocking()
        order = [found.index(word) for word in ("culprit", "ALTER TABLE", "victim")]
        assert order == sorted(order)
        culprit.close()
        assert migration.end() == 0


def ignores_an_error(bank: Bank, done: Event) -> None:
    connection = wrapper(bank.alias)
    with contextlib.suppress(DatabaseError), transaction.atomic(bank.alias):  # <- failed begins
        try:
            value(connection, "SELECT 1 / 0")  # <- failed by
        except DatabaseError:
            done.wait(20)  # <- failed is now


def test_a_failed_transaction_that_is_kept_open(bank: Bank) -> None:
    with bank.held_by(ignores_an_error):
        assert_named(
            bank.logged,
            f"transaction begun at {line('failed begins')}",
            line("failed by"),
            f"thread is now at {line('failed is now')}",
        )
        [loan] = bank.pool.idle_in_transaction(0.1)
        assert loan.activity == "idle in transaction (aborted)"


def listens(bank: Bank, done: Event) -> None:
    with transaction.atomic(bank.alias), wrapper(bank.alias).cursor() as cursor:  # <- ear begins
        cursor.execute("LISTEN orders")  # <- ear listens
        while not done.wait(0.05):  # <- ear is now
            pass


def test_a_loop_that_listens_in_a_transaction(bank: Bank) -> None:
    """It would never hear anything: notifications come between transactions."""
    with bank.held_by(listens):
        assert_named(
            bank.logged,
            f"transaction begun at {line('ear begins')}",
            f"last statement at {line('ear listens')}",
            f"thread is now at {line('ear is now')}",
        )


# ---- in other processes: Celery, uvicorn, gevent


TASKS = """
from pathlib import Path
import time
from celery import Celery
here = Path(__file__).parent
for name in ("queue", "control"):
    (here / name).mkdir(exist_ok=True)
app = Celery("tasks", broker="filesystem://")
app.conf.update(broker_transport_options={
    "data_folder_in": str(here / "queue"), "data_folder_out": str(here / "queue"),
    "control_folder": str(here / "control"), "polling_interval": 0.02,
})
import django
django.setup()
from django.db import connection, transaction

def gateway():
    time.sleep(20)

@app.task
def bill():
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        gateway()

if __name__ == "__main__":
    from tasks import bill
    bill.delay()
"""
WORKER = (
    "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=1",
    "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING",
)  # fmt: skip
LABELS = "INSTALLED_APPS = ['django_psycopg_pooled']\n"


def place_in(source: str, text: str, name: str) -> str:
    """The place of the line with *text* in a file of that name."""
    [number] = [n for n, s in enumerate(source.splitlines(), 1) if s.strip().startswith(text)]
    return f"{name}:{number} in "


def test_a_celery_task_that_sleeps_in_a_transaction(
    databases: Databases, script_folder: Write
) -> None:
    settings = PROJECT["project_settings.py"] + LABELS
    folder = script_folder({**PROJECT, "tasks.py": TASKS, "project_settings.py": settings})
    setup = {"default": databases.settings(SOON)}
    with Program(folder, "tasks.py", databases=setup) as client:
        assert client.end() == 0
    with Program(folder, *WORKER, databases=setup) as worker:
        eventually(lambda: databases.server.backends("state = 'idle in transaction'"), 20)
        assert_named(
            lambda: _in_one_line(worker.text()),
            "(task tasks.bill)",
            "transaction begun at " + place_in(TASKS, "with transaction", "tasks.py"),
            "last statement at " + place_in(TASKS, "cursor.execute", "tasks.py"),
            "thread is now at " + place_in(TASKS, "time.sleep", "tasks.py"),
        )


VIEWS = """
import time
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path
from project_urls import pool

def gateway():
    time.sleep(20)

def charge(number):
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [number])
        gateway()

async def pay(request, number):
    await sync_to_async(charge)(number)
    return HttpResponse()

urlpatterns = [path("pool/", pool), path("pay/<int:number>/", pay)]
"""
ASGI = """
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""
UVICORN = (
    "-m", "uvicorn", "--lifespan=off", "--host=127.0.0.1", "--port={port}", "--log-level=warning",
    "project_asgi:application",
)  # fmt: skip


def test_an_async_view_that_sleeps_in_a_transaction(
    databases: Databases, script_folder: Write
) -> None:
    settings = PROJECT["project_settings.py"] + LABELS + "ROOT_URLCONF = 'views'\n"
    files = {"views.py": VIEWS, "project_asgi.py": ASGI, "project_settings.py": settings}
    folder = script_folder({**PROJECT, **files})
    with Program(folder, *UVICORN, databases={"default": databases.settings(SOON)}) as server:
        server.wait_until_it_serves()
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET /pay/5/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert_named(
            lambda: _in_one_line(server.text()),
            "(GET /pay/<int:number>/)",
            "transaction begun at " + place_in(VIEWS, "with transaction", "views.py"),
            "last statement at " + place_in(VIEWS, "cursor.execute", "views.py"),
            "thread is now at " + place_in(VIEWS, "time.sleep", "views.py"),
        )
        client.close()


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent
GREEN
PREAMBLE
from django.db import transaction
def gateway():
    gevent.sleep(20)
def charge():
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        gateway()
gevent.spawn(charge)
gevent.sleep(1.5)
print(connection.pool.as_table())
print([loan.now_at for loan in connection.pool.idle_in_transaction(0.5)])
"""


def test_a_greenlet_that_sleeps_in_a_transaction(
    databases: Databases, script_folder: Write
) -> None:
    """Where it waits, although Python knows only the frame of the greenlet that runs."""
    source = GREENLETS.replace("GREEN\n", GREEN).replace("PREAMBLE\n", PREAMBLE)
    folder = script_folder({"story.py": source})
    with Program(folder, "story.py", databases={"default": databases.settings(SOON)}) as program:
        assert_named(
            lambda: _in_one_line(program.text()),
            "transaction begun at " + place_in(source, "with transaction", "story.py"),
            "last statement at " + place_in(source, "cursor.execute", "story.py"),
            "thread is now at " + place_in(source, "gevent.sleep(20)", "story.py"),
        )
        assert program.end() == 0
        assert place_in(source, "gevent.sleep(20)", "story.py") in program.text().splitlines()[-1]


# ---- the example shop, under gunicorn: the log and the terminal, with the default options


SENDING = "example/shop/sending.py"
GUNICORN = (
    "-m", "gunicorn", "-c", str(ROOT / "example/gunicorn_conf.py"), "-b", "127.0.0.1:{port}",
    "example.wsgi",
)  # fmt: skip


SHOP_SETTINGS = """
from pathlib import Path
from example.settings import *
DJANGO_PSYCOPG_POOLED = {"CONTROL_DIR": str(Path(__file__).parent / "sockets")}
"""


def shop_environ(databases: Databases, folder: Path) -> dict[str, str]:
    entry = databases.server.django_settings("shop")
    connection = {f"SHOP_DB_{name}": entry[name] for name in entry}
    return {
        **connection,
        "DJANGO_SETTINGS_MODULE": "shop_settings",
        "SHOP_BACKEND": "pooled",
        "COLUMNS": "160",
        "SHOP_CARRIER_MS": "20000",
        "PYTHONPATH": project_environ(folder, {})["PYTHONPATH"],
    }


class Visitor:
    """Somebody who looks at an order of the shop, and then acts on it without waiting."""

    def __init__(self, port: int) -> None:
        self._port = port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/1/", timeout=20) as page:
            cookie = page.headers["Set-Cookie"]
        self._token = cookie.partition("csrftoken=")[2].partition(";")[0]

    def posts(self, path: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self._port))
        head = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Cookie: csrftoken={self._token}",
                f"X-CSRFToken: {self._token}", "Content-Length: 0", "", "")  # fmt: skip
        client.sendall("\r\n".join(head).encode())
        return client


def test_the_shop_names_who_holds_an_order_in_its_log_and_in_the_terminal(
    databases: Databases, script_folder: Write
) -> None:
    """Sending asks the carrier within a transaction; cancelling waits for it."""
    databases.server.create_database("shop")
    folder = script_folder({"shop_settings.py": SHOP_SETTINGS})
    environ = shop_environ(databases, folder)

    def manage(*arguments: str) -> str:
        done = run_python("-m", "example.manage", *arguments, environ=environ, cwd=folder)
        assert done.returncode in (0, 1), done.stderr  # 1: there is something wrong
        return _in_one_line(done.stdout)

    manage("migrate", "-v0")
    manage("fill_shop", "--orders=3", "--customers=3", "--products=5", "--reviews=0")
    databases.server.psql("UPDATE shop_order SET status = 'placed'", "shop")
    source = (ROOT / SENDING).read_text()
    began, carrier = place_in(source, "with transaction", SENDING), "example/shop/carrier.py:"
    last = place_in(source, "return sum(", SENDING)
    with Program(folder, *GUNICORN, databases={}, environ=environ) as gunicorn:
        eventually(lambda: "Booting worker" in gunicorn.text())
        visitor = Visitor(gunicorn.port)
        with contextlib.ExitStack() as clients:
            clients.enter_context(visitor.posts("/orders/1/send/"))
            eventually(lambda: databases.server.backends("state = 'idle in transaction'"))
            clients.enter_context(visitor.posts("/orders/1/cancel/"))
            eventually(lambda: databases.server.backends("wait_event_type = 'Lock'"))
            assert_named(
                lambda: _in_one_line(gunicorn.text()),
                "(POST /orders/<int:pk>/send/)",
                f"transaction begun at {began}",
                f"thread is now at {carrier}",
                "last statement at ",
                "idle in transaction blocks others",
            )
            idle, blocking = manage("pools", "idle"), manage("pools", "blocking")
    for said in ("POST /orders/<int:pk>/send/", f"began at: {began}", f"now at: {carrier}"):
        assert said in idle
    assert last in idle
    waits = place_in(source, "return bool(", SENDING)
    for said in (began, carrier, "row of shop_order", "POST /orders/<int:pk>/cancel/", waits):
        assert said in blocking


# ---- decorators and views: the user's function, not the decorator's


def _begins_in(bank: Bank, call: Callable[[], object]) -> str:
    """The line that is named for the transaction that *call* opens in this thread."""
    found: list[str] = []
    _probes.append(lambda: found.append(_transaction_at(bank)))
    try:
        call()
    finally:
        _probes.clear()
    return found[0]


_probes: list[Callable[[], object]] = []


def _transaction_at(bank: Bank) -> str:
    value(wrapper(bank.alias), "SELECT 1")
    [loan] = [c for c in bank.pool.connections() if c.state == "lent"]
    return loan.transaction_at


def look() -> HttpResponse:
    _probes[0]()
    return HttpResponse()


def test_a_decorated_function_is_named_also_below_other_decorators(bank: Bank) -> None:
    atomic = transaction.atomic(bank.alias)

    @atomic
    def charge() -> None:  # charge
        look()

    def view(request: HttpRequest) -> HttpResponse:  # view
        return look()

    request = RequestFactory().get("/")
    assert ".charge" in _begins_in(bank, charge)
    named = _begins_in(bank, lambda: atomic(never_cache(view))(request))
    assert named.endswith("<locals>.view")


def test_a_class_based_view_is_named_by_its_method(bank: Bank) -> None:
    atomic = transaction.atomic(bank.alias)

    class Pay(View):
        def post(self, request: HttpRequest) -> HttpResponse:
            return look()

    class Dispatched(Pay):
        @method_decorator(atomic)
        def dispatch(self, *args: Any, **kwargs: Any) -> Any:
            return super().dispatch(*args, **kwargs)

    request = RequestFactory().post("/")
    requested = atomic(Pay.as_view())  # as by ATOMIC_REQUESTS
    assert _begins_in(bank, lambda: requested(request)).endswith(".Pay.post")
    named = _begins_in(bank, lambda: Dispatched.as_view()(request))
    assert named.endswith(".Dispatched.dispatch")
