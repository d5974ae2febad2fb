"""fork() by a process whose pool is in use: nobody reads another's row, nobody hangs. PAINS 1."""

import pytest

from tests.server.databases import Databases
from tests.server.support import run_script

# How a child is waited for. One that hangs is ended by its alarm, and says where it hung.
CHILDREN = """
import contextlib, faulthandler, os, signal, sys, threading, traceback, warnings
from django.db import transaction
from django.db.utils import ProgrammingError
from tests.server.support import eventually
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
def ask(sql, *params):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()
def ended(child):
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        codes[child] = os.waitstatus_to_exitcode(status)
    return found
def wait_for(children):
    try:
        for child in children:
            eventually(lambda: ended(child), 25)
    finally:
        for child in set(children) - set(codes):
            os.kill(child, signal.SIGKILL)
    assert set(codes.values()) == {0}, codes
codes = {}
faulthandler.register(signal.SIGALRM, chain=True)
"""

HAMMERED = """
import json
pool = connection.pool
stop, begun, may_end = threading.Event(), threading.Event(), threading.Event()
seen, wrong = set(), []
def check(tag):
    answer, backend = ask("SELECT %s, pg_backend_pid()", tag)
    seen.add(backend)
    if answer != tag:
        wrong.append((tag, answer))
def hammer(number):
    count = 0
    while not stop.is_set():
        count += 1
        check(f"parent {number} {count}")
        connection.close()
        if number == 0 and count % 40 == 0:
            pool.drain()  # so that connects are under way as well
def hold():
    with transaction.atomic():
        before = ask("SELECT pg_backend_pid(), pg_current_xact_id()::text")
        seen.add(before[0])
        begun.set()
        may_end.wait(60)
        after = ask("SELECT pg_backend_pid(), pg_current_xact_id()::text")
    connection.close()
    if before != after:
        wrong.append((before, after))
def child(number):
    status = 1
    signal.alarm(20)
    try:
        inherited = set(seen)
        seen.clear()
        wrong.clear()
        def work(part):
            for count in range(50):
                check(f"child {number} {part} {count}")
                if count % 3 == 0:
                    connection.close()
            connection.close()
        threads = [threading.Thread(target=work, args=[part]) for part in range(2)]
        for thread in threads: thread.start()
        work("main")  # on the wrapper that says that it is connected
        for thread in threads: thread.join()
        assert not wrong, wrong[:5]
        assert not seen & inherited, seen & inherited
        assert pool.snapshot().size <= 3
        os.write(writer, json.dumps(sorted(seen)).encode() + b"\\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    signal.alarm(0)
    if number % 2:
        os._exit(status)
    sys.exit(status)
main_pid = pid()
seen.add(main_pid)
reader, writer = os.pipe()
threads = [threading.Thread(target=hammer, args=[number], daemon=True) for number in range(4)]
threads.append(threading.Thread(target=hold, daemon=True))
for thread in threads: thread.start()
begun.wait(10)
children = []
for number in range(20):
    forked = os.fork()
    if not forked:
        child(number)
    children.append(forked)
wait_for(children)
stop.set()
may_end.set()
for thread in threads: thread.join(10)
assert not wrong, wrong[:5]
assert ask("SELECT pg_backend_pid()") == (main_pid,)
theirs = set()
for line in os.read(reader, 65536).splitlines():
    own = set(json.loads(line))
    assert not own & theirs
    theirs |= own
assert len(theirs) >= 20
assert not theirs & seen
gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
eventually(lambda: ask(gone, sorted(theirs)) == (0,))
connection.close()
assert pool.snapshot().count("lent") == 0, pool.as_table()
assert pool.get_stats()["connections_lost"] == 0
"""


@pytest.mark.parametrize("num_workers", [3, 0])
def test_children_forked_in_the_midst_of_loans_and_connects_get_their_own_rows_only(
    databases: Databases, num_workers: int
) -> None:
    """PAINS 1. 20 children, 150 queries each; the parent's open transaction goes on, too."""
    options = {"num_workers": num_workers, "max_size": 8, "idle_in_transaction_threshold": 0}
    entry = databases.settings(options)
    done = run_script(CHILDREN + HAMMERED, {"default": entry}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


IN_A_TRANSACTION = """
pool = connection.pool
state = "SELECT pg_backend_pid(), pg_current_xact_id_if_assigned()::text"
with transaction.atomic():
    ask("SELECT pg_current_xact_id(), pg_advisory_xact_lock(4711)")
    before = ask(state)
    forked = os.fork()
    if not forked:
        signal.alarm(20)
        IN_CHILD
    wait_for([forked])
    assert ask(state) == before, (ask(state), before)
    with pool.connection() as other, other.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchone() == (1,)
assert ask("SELECT pg_backend_pid()") == before[:1]
"""
REFUSED = """
        try:
            ask("SELECT 1")
        except ProgrammingError as error:
            os._exit(0 if "atomic block" in str(error) else 2)
        os._exit(1)
"""
SAVEPOINT = """
        try:
            with transaction.atomic():
                ask("SELECT 1")
        except ProgrammingError as error:
            os._exit(0 if "atomic block" in str(error) else 2)
        os._exit(1)
"""


@pytest.mark.parametrize("in_child", [REFUSED, SAVEPOINT], ids=["a query", "a savepoint"])
def test_a_child_forked_in_a_transaction_is_refused_there(
    databases: Databases, in_child: str
) -> None:
    """PAINS 1. The transaction is the parent's; the child is told so, in Django's words."""
    code = CHILDREN + IN_A_TRANSACTION.replace("IN_CHILD", in_child.strip())
    done = run_script(code, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


# Each leaves the block in the child, where Django would commit or roll back.
LEAVING = {
    "os._exit": "os._exit(0)",
    "sys.exit": "sys.exit(0)",
    "close": "connection.close(); sys.exit(0)",
    "rollback": "transaction.set_rollback(True); raise KeyError",
    "commit": "pass",
}
AROUND = """
def story():
    global forked
    with transaction.atomic():
        ask("SELECT pg_current_xact_id(), pg_advisory_xact_lock(4711)")
        before = ask(state)
        forked = os.fork()
        if not forked:
            signal.alarm(20)
            IN_CHILD
            return
        wait_for([forked])
        assert ask(state) == before, (ask(state), before)
    assert ask("SELECT pg_backend_pid()") == before[:1]
state = "SELECT pg_backend_pid(), pg_current_xact_id_if_assigned()::text"
try:
    story()
except KeyError:
    assert not forked
if not forked:
    # Outside the block the child is free to connect.
    assert ask("SELECT 1") == (1,)
    connection.close()
    signal.alarm(0)
"""


@pytest.mark.parametrize("how", LEAVING)
def test_a_child_that_leaves_its_parents_transaction_does_not_end_it(
    databases: Databases, how: str
) -> None:
    """PAINS 1. A COMMIT or ROLLBACK of the child's would go down the parent's socket."""
    code = CHILDREN + AROUND.replace("IN_CHILD", LEAVING[how])
    done = run_script(code, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


DEEP = """
def descend(depth):
    inherited.append(pid())
    forked = os.fork()
    if forked:
        wait_for([forked])
        return
    signal.alarm(20)
    assert ask("SELECT %s", f"depth {depth}") == (f"depth {depth}",)
    assert pid() not in inherited, (pid(), inherited)
    if depth < 3:
        codes.clear()
        descend(depth + 1)
        assert ask("SELECT %s", f"still {depth}") == (f"still {depth}",)
    connection.close()
    os._exit(0)
inherited = []
descend(1)
assert ask("SELECT pg_backend_pid()") == (inherited[0],)
"""


def test_children_of_children_get_connections_of_their_own(databases: Databases) -> None:
    """PAINS 1."""
    done = run_script(CHILDREN + DEEP, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


# A signal's handler raises just before or after the call of POINT, a method.
STRIKES = """
class Strike(Exception): pass
def strike(*_): raise Strike
signal.signal(signal.SIGUSR1, strike)
printed = []
sys.unraisablehook = lambda seen: printed.append(seen.exc_type)
def strike_once(done):
    method = POINT
    def struck(self, *args):
        POINT = method
        if done:
            method(self, *args)
        signal.raise_signal(signal.SIGUSR1)
    POINT = struck
    return method
"""
STRUCK = """
import tempfile
from pathlib import Path
from django_psycopg_pooled.control.listener import LISTENER, Listener
from django_psycopg_pooled.control.service import Service
from django_psycopg_pooled.pool.connects import Connects
from django_psycopg_pooled.runtime.threads import ThreadRuntime
faulthandler.dump_traceback_later(30, exit=True)
def listens():
    return "pool-control" in {thread.name for thread in threading.enumerate()}
def connects():
    pool.drain()
    ask("SELECT 1")
    connection.close()
LISTENER.set_up((Path(tempfile.mkdtemp()),), lambda line: b"{}")
pool = connection.pool
for done in False, True:
    connects()
    eventually(listens)
    strike_once(done)
    forked = os.fork()
    if not forked:
        signal.alarm(20)
        ask("SELECT 1")
        os._exit(0)
    wait_for([forked])
    connects()
    later = threading.Event()
    pool.in_a_while(0.05, later.set)
    assert later.wait(10)
    thread = threading.Thread(target=connects)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    eventually(listens)
assert printed == [Strike, Strike], printed
"""
POINTS = [
    "ThreadRuntime.pause", "Connects.hold", "Connects.go_on", "ThreadRuntime.resume",
    "Service.stop", "Listener._forget_locked",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_signals_handler_that_raises_in_a_hook_of_fork_stops_nothing_for_ever(
    databases: Databases, point: str
) -> None:
    """A timeout or Ctrl-C that strikes just before or after that call. Python prints it."""
    code = CHILDREN + (STRIKES + STRUCK).replace("POINT", point)
    done = run_script(code, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


STRUCK_IN_CHILD = """
from django_psycopg_pooled.pool.connects import CONNECTS, Connects
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.integration.wrapper import PooledWrapper
pool = connection.pool
with pool.dedicated() as line, pool.connection() as raw:
    parents = [DRIVER.server_pid(each) for each in (line.connection, raw)]
    parents.append(pid())
    for done in False, True:
        method = strike_once(done)
        forked = os.fork()
        if not forked:
            signal.alarm(20)
            assert printed == [Strike], printed
            assert line.connection is None
            assert not CONNECTS._forks._until  # the parent's
            assert pool.snapshot().size == 0
            assert pid() not in parents
            os._exit(0)
        POINT = method
        wait_for([forked])
    assert [*(DRIVER.server_pid(each) for each in (line.connection, raw)), pid()] == parents
"""


@pytest.mark.parametrize(
    "point", ["Core.disown", "Connects.restart", "PooledWrapper.leave_what_is_the_parents"]
)
def test_a_signals_handler_that_raises_in_a_new_child_leaves_it_nothing_of_its_parents(
    databases: Databases, point: str
) -> None:
    """As Ctrl-C does, which reaches all processes of a terminal. Python prints it."""
    code = CHILDREN + (STRIKES + STRUCK_IN_CHILD).replace("POINT", point)
    done = run_script(code, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


ON_BOTH_SIDES = """
from django.db import OperationalError
pool = connection.pool
setting = "SELECT current_setting('tests.who')"
def told(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchone()
def fork_beside(raw, cursor):
    told(cursor, "SELECT set_config('tests.who', 'parent', false)")
    forked = os.fork()
    if not forked:
        signal.alarm(20)
        try:
            cursor.execute("SELECT set_config('tests.who', 'child', false)")
        except (OperationalError, DRIVER.Error):
            with contextlib.suppress(DRIVER.Error):
                raw.close()
            assert ask("SELECT 1") == (1,)
            os._exit(0)
        os._exit(1)
    wait_for([forked])
    assert told(cursor, setting) == ("parent",)
    assert told(cursor, setting) == ("parent",)
BESIDE
"""
BESIDE = {
    "Django's": """
with connection.cursor() as cursor:
    fork_beside(connection.connection, cursor)
""",
    "lent by getconn()": """
raw = pool.getconn()
with raw.cursor() as cursor:
    fork_beside(raw, cursor)
pool.putconn(raw)
""",
    "idle": """
with pool.connection() as raw:
    cursor = raw.cursor()
fork_beside(raw, cursor)
cursor.close()
""",
    "dedicated": """
with pool.dedicated() as line:
    with line.connection.cursor() as cursor:
        fork_beside(line.connection, cursor)
""",
}


@pytest.mark.parametrize("whose", BESIDE)
def test_a_childs_use_of_a_cursor_that_was_open_at_the_fork_fails_there_and_sends_nothing(
    databases: Databases, whose: str
) -> None:
    """It would send its query down the parent's socket, and read the parent's rows."""
    code = CHILDREN + ON_BOTH_SIDES.replace("BESIDE", BESIDE[whose])
    done = run_script(code, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


ITERATED = """
from django.db import models
class Thing(models.Model):
    class Meta: app_label, db_table, managed = "tests", "things_to_read", False
sys.unraisablehook = lambda seen: None  # psycopg2 tells that the cursor could not be closed
with connection.cursor() as cursor:
    cursor.execute("CREATE TEMP TABLE things_to_read AS SELECT id FROM generate_series(1, 900) id")
    read = []
    for thing in Thing.objects.order_by("id").iterator(chunk_size=100):
        read.append(thing.id)
        if thing.id == 150:
            forked = os.fork()
            if not forked:
                signal.alarm(20)
                sys.exit(0)
            wait_for([forked])
    assert read == list(range(1, 901)), read[-1]
connection.close()
"""


@pytest.mark.parametrize("release", ["request", "transaction"])
def test_a_child_that_ends_in_its_parents_iterator_does_not_end_that(
    databases: Databases, release: str
) -> None:
    """The generator closes its cursor on the server when the child's stack is unwound."""
    done = run_script(
        CHILDREN + ITERATED, {"default": databases.settings({"release": release})}, "-X", "dev"
    )
    assert (done.returncode, done.stderr) == (0, "")


SILENT = """
pool = connection.pool
silent = pid()
connection.close()
def query():
    assert ask("SELECT 1") == (1,)
    connection.close()
thread = threading.Thread(target=query, daemon=True)
os.kill(silent, signal.SIGSTOP)
try:
    thread.start()
    eventually(lambda: pool._core.watchdog._watched)
    forked = os.fork()
    if not forked:
        os._exit(0)
    wait_for([forked])
    thread.join(10)
    assert not thread.is_alive()
finally:
    os.kill(silent, signal.SIGCONT)
"""


def test_a_check_that_is_under_way_at_a_fork_is_bounded_all_the_same(databases: Databases) -> None:
    entry = databases.settings({"check": True, "check_timeout": 1, "max_size": 3})
    done = run_script(CHILDREN + SILENT, {"default": entry}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


IDLE = """
import logging
heard = []
class Hearing(logging.Handler):
    def emit(self, record): heard.append(record.getMessage())
logging.getLogger("django_psycopg_pooled").addHandler(Hearing())
def heard_of(what):
    return any(what in text for text in heard)
may_end = threading.Event()
other = threading.Thread(target=may_end.wait, args=(30,), daemon=True)
other.start()
with transaction.atomic():
    ask("SELECT 1")
    forked = os.fork()
    if not forked:
        os._exit(0)
    wait_for([forked])
    eventually(lambda: heard_of("idle in transaction"))
    eventually(lambda: heard_of("has been lent for"))
connection.close()
may_end.set()
other.join()
"""


def test_idle_transactions_and_leaks_are_told_of_after_a_fork_too(databases: Databases) -> None:
    """Where the process has other threads. Alone it wakes when something is given back."""
    entry = databases.settings({"idle_in_transaction_threshold": 0.3, "leak_threshold": 1})
    done = run_script(CHILDREN + IDLE, {"default": entry}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")
