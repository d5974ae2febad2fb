"""fork() and the end of the interpreter, in processes of their own."""

import time

import pytest

from tests.server.databases import Databases
from tests.server.support import run_script

FORK = """
import os, threading, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
pool = connection.pool
lent = pid()
leases = [pool.checkout() for _ in range(2)]
idle = {DRIVER.server_pid(lease.connection) for lease in leases}
for lease in leases:
    pool.checkin(lease)
before = idle | {lent}
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    status = 1
    try:
        connection.close()  # what it inherited is not its own to give back
        assert pool.snapshot().size == 0, pool.as_table()
        mine = {pid()}
        connection.close()
        assert {pid()} == mine
        other = []
        def borrow():
            other.append(pid())
            connection.close()
        thread = threading.Thread(target=borrow)
        thread.start()
        thread.join()
        mine |= set(other)
        assert len(mine) == 2, mine
        assert not mine & before, (mine, before)
        connections.close_all()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        END_CHILD
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_backend_pid()")
    assert cursor.fetchone() == (lent,)
leases = [pool.checkout() for _ in range(2)]
assert {DRIVER.server_pid(lease.connection) for lease in leases} == idle
for lease in leases:
    with lease.connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    pool.checkin(lease)
connection.close()
assert pool.snapshot().count("lent") == 0
assert pool.get_stats()["connections_lost"] == 0
"""


@pytest.mark.parametrize("num_workers", [3, 0])
@pytest.mark.parametrize("end", ["os._exit(status)", "import sys; sys.exit(status)"])
def test_a_forked_child_and_its_parent_use_connections_of_their_own(
    databases: Databases, num_workers: int, end: str
) -> None:
    entry = databases.settings({"num_workers": num_workers})
    done = run_script(FORK.replace("END_CHILD", end), {"default": entry}, "-X", "dev")
    assert (done.returncode, done.stderr) == (0, "")


WORKERS = """
import multiprocessing, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
context = multiprocessing.get_context("fork")
mine = pid()
def work(_):
    connection.close()  # the wrapper is a copy of the parent's, and says that it is connected
    return pid()
with context.Pool(3) as workers:
    pids = workers.map(work, range(9))
assert mine not in pids, (mine, pids)
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_backend_pid()")
    assert cursor.fetchone() == (mine,)
"""


def test_workers_forked_under_a_lent_connection_get_new_ones(
    databases: Databases,
) -> None:
    done = run_script(WORKERS, {"default": databases.settings()})
    assert (done.returncode, done.stderr) == (0, "")


EXIT = """
lease = connection.pool.checkout()
pid()
connection.pool.checkin(lease)
assert [c.state for c in connection.pool.snapshot().connections] == ["idle", "lent"]
"""
IN_A_THREAD = """
import threading
ready = threading.Event()
def hold():
    pid()
    ready.set()
    threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
ready.wait()
pid()
"""


@pytest.mark.parametrize("num_workers", [3, 0])
@pytest.mark.parametrize("story", [EXIT, IN_A_THREAD, EXIT + "connection.close()", "pid()"])
def test_the_interpreter_ends_at_once_and_in_silence(
    databases: Databases, num_workers: int, story: str
) -> None:
    entry = databases.settings({"num_workers": num_workers})
    code = story + "\nimport time; print(time.time())\n"
    done = run_script(code, {"default": entry}, "-X", "dev", "-W", "error")
    ended = time.time()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout) < 1.0


def test_an_exit_in_the_midst_of_an_exception_says_nothing_of_the_pool(
    databases: Databases,
) -> None:
    code = EXIT + "raise SystemExit(3)\n"
    done = run_script(code, {"default": databases.settings()}, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stderr) == (3, "")
