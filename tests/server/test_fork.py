"""fork() by a process whose pool is in use: nobody reads another's row, nobody hangs. PAINS 1."""

import pytest

from tests.server.databases import Databases
from tests.server.support import run_script

# How a child is waited for. One that hangs is ended by its alarm, and says where it hung.
CHILDREN = """
import faulthandler, os, signal, sys, threading, traceback, warnings
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


STRUCK = """
import tempfile
from pathlib import Path
from django_psycopg_pooled.control.listener import LISTENER, Listener
from django_psycopg_pooled.control.service import Service
from django_psycopg_pooled.pool.connects import Connects
from django_psycopg_pooled.runtime.threads import ThreadRuntime
class Timeout(Exception): pass
def strike(*_): raise Timeout
signal.signal(signal.SIGUSR1, strike)
printed = []
sys.unraisablehook = lambda seen: printed.append(seen.exc_type)
faulthandler.dump_traceback_later(30, exit=True)
def listens():
    return "pool-control" in {thread.name for thread in threading.enumerate()}
def connects():
    pool.drain()
    ask("SELECT 1")
    connection.close()
def strike_once(done):
    method = POINT
    def struck(self, *args):
        POINT = method
        if done:
            method(self, *args)
        signal.raise_signal(signal.SIGUSR1)
    POINT = struck
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
assert printed == [Timeout, Timeout], printed
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
    code = CHILDREN + STRUCK.replace("POINT", point)
    done = run_script(code, {"default": databases.settings()}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")
