"""fork() while other threads are inside what counts, prepares, watches and answers.

tests/server/test_fork.py forks in the midst of loans and connects.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.databases import Databases
from tests.server.processes import PROJECT, Program
from tests.stress.seeds import seeds

Write = Callable[[dict[str, str]], Path]

FORKS = 100
HAS_CONTROL = """
from pathlib import Path
INSTALLED_APPS = ["django_psycopg_pooled"]
DJANGO_PSYCOPG_POOLED = {"CONTROL_DIR": str(Path(__file__).parent / "sockets")}
LOGGING_CONFIG = None
"""

# What both programs need. A child that hangs is ended by its alarm, and says where it hung.
PREAMBLE = """
import faulthandler, gc, itertools, logging, os, random, signal, sys, threading, time, traceback
import warnings
import django
from pathlib import Path
django.setup()
from django.db import connection, connections, transaction
from django_psycopg_pooled import pools
from django_psycopg_pooled.control.client import ask_all
from django_psycopg_pooled.control.protocol import Request
from django_psycopg_pooled.management.process import project
from django_psycopg_pooled.execution import watched
from tests.server.support import eventually
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
logging.disable(logging.CRITICAL)  # an idle transaction is logged, and not what is tested
faulthandler.register(signal.SIGALRM, chain=True)
sockets = Path(__file__).parent / "sockets"
pool = pools["default"]
PREPARED = "SELECT %s::text, pg_backend_pid(), {}"
executed = itertools.count()  # next() of it is atomic
def execute(sql, params=None):
    with connection.cursor() as cursor:
        next(executed)
        cursor.execute(sql, params)
        return cursor.fetchone()
def ask(tag, number):
    answer, backend, *_ = execute(PREPARED.format(number), [tag])
    assert answer == tag, (answer, tag)
    return backend
def ask_plainly(tag):
    answer, backend = execute(f"SELECT '{tag}', pg_backend_pid()")
    assert answer == tag, (answer, tag)
    return backend
def answers(what, **args):
    [reply] = ask_all([sockets], Request(what, args, project()), pid=os.getpid()).replies
    assert reply.error is None, reply
    assert reply.pid == os.getpid()
    return reply.answer
def listens():
    return [*sockets.glob(f"{os.getpid()}-*.sock")]
def calls():
    return sum(facts.calls for facts in pool.queries.top(100_000))
def look():
    pool.prepared()
    pool.as_table()
    pool.queries.as_table()
    return pool.idle_in_tx_stacks()
def live(number):
    \"\"\"All that a child does, and that must be its own.\"\"\"
    global executed
    executed = itertools.count()
    own = set()
    tag = f"child {number}"
    for count in range(4):
        own.add(ask(tag, count % 2))  # texts that the parent executes, too
        own.add(ask_plainly(tag))
        connection.close()
    with transaction.atomic():
        own.add(ask(tag, f"{number} + {number}"))  # and one of its own
        assert "idle in transaction" in look()
    assert any(facts.hits for facts in pool.prepared())
    connection.close()
    assert not own & parents, own & parents
    assert len(own) == 1, own
    assert calls() == next(executed)
    eventually(listens, 5)
    process = answers("status")["process"]
    assert process["pid"] == os.getpid(), process
    listed = answers("queries", n=1000, by="calls")["pools"][0]["statements"]
    assert sum(one["calls"] for one in listed) == calls(), listed
def child(number):
    status = 1
    signal.alarm(10)
    try:
        live(number)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)
def ended(child):
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        codes[child] = os.waitstatus_to_exitcode(status)
    return found
def wait_for(child):
    try:
        eventually(lambda: ended(child), 25)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
parents, codes = set(), {}
"""

HAMMERED = """
FORKS, SEED = int(sys.argv[1]), sys.argv[2]
watched.FOLD_AT = 1  # so that executions are counted all the while
stop, wrong = threading.Event(), []
def hammer(work, number):
    mine = random.Random(f"{SEED} {number}")
    try:
        for count in itertools.count():
            if stop.is_set():
                break
            work(f"parent {number} {count}", mine)
            connection.close()
    except BaseException:
        wrong.append(traceback.format_exc())
    finally:
        connections.close_all()
def count_and_prepare(tag, mine):
    parents.add(ask(tag, mine.randrange(8)))
def look_up_new_texts(tag, mine):
    parents.add(ask(tag, mine.randrange(10**9)))
def be_idle_in_a_transaction(tag, mine):
    with transaction.atomic():
        before = ask(tag, 1)
        parents.add(before)
        time.sleep(mine.random() * 0.15)
        assert ask(tag, 2) == before
def read_and_drain(tag, mine):
    look()
    calls()
    parents.add(ask_plainly(tag))
    if mine.random() < 0.05:
        pool.drain()  # so that a connect starts the control socket's thread again
    if listens():
        reply = ask_all([sockets], Request("queries", {"n": 5, "by": "calls"}, project()),
                        pid=os.getpid())
WORK = [count_and_prepare, look_up_new_texts, be_idle_in_a_transaction, read_and_drain]
if sys.version_info >= (3, 12):  # 3.11 may hand out frames that it frees just then: docs/limits.md
    sys.setswitchinterval(1e-5)
threads = [
    threading.Thread(target=hammer, args=(work, number), daemon=True)
    for number, work in enumerate(WORK)
]
for thread in threads: thread.start()
under_way = []
for number in range(FORKS):
    forked = os.fork()
    if not forked:
        sys.setswitchinterval(0.005)
        child(number)
    under_way.append(forked)
    if len(under_way) > 3:
        wait_for(under_way.pop(0))
    assert not wrong, wrong[0]
for each in under_way: wait_for(each)
stop.set()
for thread in threads:
    thread.join(20)
    assert not thread.is_alive(), thread
assert not wrong, wrong[0]
assert len(codes) == FORKS
assert set(codes.values()) == {0}, codes
# The parent has counted what it has executed, and nothing else.
assert calls() == next(executed)
assert not [f for f in pool.queries.top(100_000) if "child" in str(f)]
connection.close()
assert pool.snapshot().count("lent") == 0, pool.as_table()
print("all right", flush=True)
"""


def _program(
    databases: Databases, script_folder: Write, code: str, *arguments: str, **pool: Any
) -> Program:
    folder = script_folder({
        **PROJECT,
        "project_settings.py": PROJECT["project_settings.py"] + HAS_CONTROL,
        "script.py": PREAMBLE + code,
    })  # fmt: skip
    options = {
        "prepare": "auto", "prepare_threshold": 1, "max_size": 6, "prepared_max": 5,
        "idle_in_transaction_threshold": 0.05, **pool,
    }  # fmt: skip
    entry = databases.settings(options)
    return Program(folder, "script.py", *arguments, databases={"default": entry})


@pytest.mark.parametrize("seed", seeds())
def test_children_forked_in_the_midst_of_counting_preparing_and_answering_do_all_of_it(
    databases: Databases, script_folder: Write, seed: int
) -> None:
    with _program(databases, script_folder, HAMMERED, str(FORKS), str(seed)) as parent:
        code = parent.end(90)
        text = parent.text()
    assert (code, text) == (0, "all right\n"), text[-6000:]


# Every lock of ours that a thread can hold while another one forks, in turn.
HELD = """
LOCKS = type(threading.Lock()), type(threading.RLock())
def locks():
    \"\"\"(object, attribute) of each lock of ours, found anew: at fork() some are replaced.\"\"\"
    found = []
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith("django_psycopg_pooled."):
            names = [*getattr(thing, "__dict__", ())]
            names += [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
            found += [(thing, name) for name in names
                      if isinstance(getattr(thing, name, None), LOCKS)]
    return found
for count in range(3):
    ask("parent", count)
ask("parent", 2)
with transaction.atomic():
    ask("parent", 7)
connection.close()
eventually(listens, 5)
names = []
for thing, attribute in locks():
    name = f"{type(thing).__name__}.{attribute}"
    lock = getattr(thing, attribute)
    if name in ("Waiter.signal", "Listener._lock") or lock is None:
        continue  # no lock over anything; taken by fork() itself
    held, let_go = threading.Event(), threading.Event()
    def hold():
        with lock:
            held.set()
            let_go.wait(20)
    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    if not held.wait(0.5):
        let_go.set()
        continue
    # Who takes a lock around fork() itself has it a moment later.
    timer = threading.Timer(0.3, let_go.set) if name == "ThreadRuntime._lock" else None
    if timer: timer.start()
    forked = os.fork()
    if not forked:
        child(1)
    let_go.set()
    thread.join(10)
    wait_for(forked)
    names.append((name, codes[forked]))
    print(name, codes[forked], flush=True)
assert len({name for name, _ in names}) >= 6, names
sys.exit(any(code for _, code in names))
"""


def test_a_child_does_all_of_it_whichever_lock_a_thread_of_the_parent_held(
    databases: Databases, script_folder: Write
) -> None:
    with _program(databases, script_folder, HELD, prepare_threshold=2) as parent:
        code = parent.end(90)
        text = parent.text()
    assert code == 0, text[-6000:]
