"""The end of the interpreter while the pool is in use: at once, and in silence. PAINS 8."""

import time

import pytest

from tests.server.databases import Databases
from tests.server.support import run_script

AT_ONCE_S = 1.0  # for machines that are busy

ONE_QUERY = "connection.cursor().execute('SELECT 1')"
# Without it the driver warns at the stock backend's exit.
CLOSED = ONE_QUERY + "; connection.close()"
IN_A_TRANSACTION = """
from django.db import transaction
block = transaction.atomic()
block.__enter__()
connection.cursor().execute("CREATE TEMP TABLE t (a int)")
"""
IN_THE_QUEUE = """
import threading
from tests.server.support import eventually
pool = connection.pool
def borrow():
    try:
        pid()
        threading.Event().wait()
    finally:
        connection.close()
threads = [threading.Thread(target=borrow, daemon=True) for _ in range(6)]
for thread in threads: thread.start()
eventually(lambda: pool.get_stats()["requests_waiting"] == 4)
"""
CONNECTING = """
pool = connection.pool
leases = [pool.checkout() for _ in range(2)]
for lease in leases: pool.checkin(lease)
pool.drain()
import threading
threads = [threading.Thread(target=pool.getconn, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
"""
IN_A_STATEMENT = """
import threading
from tests.server.support import eventually
def sleep():
    connection.cursor().execute("SELECT pg_sleep(2)")
threading.Thread(target=sleep, daemon=True).start()
pid()
def asleep():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return cursor.fetchone() == (1,)
eventually(asleep)
"""
STORIES = {
    "an open transaction": IN_A_TRANSACTION,
    "threads in the queue": IN_THE_QUEUE,
    "connects under way": CONNECTING,
    "a statement under way": IN_A_STATEMENT,
}
# Says when the script has done its work; the test takes the time of the rest.
END = """
import sys, time
print(time.time())
sys.exit(3)
"""


def seconds_to_end(story: str, entry: dict[str, object]) -> float:
    """How long the interpreter takes after *story*; it must end as told, and say nothing."""
    done = run_script(story + END, {"default": entry}, "-X", "dev", "-W", "error")
    ended = time.time()
    assert (done.returncode, done.stderr) == (3, "")
    return ended - float(done.stdout)


@pytest.mark.parametrize("num_workers", [3, 0])
@pytest.mark.parametrize("story", STORIES)
def test_the_interpreter_ends_at_once_and_in_silence_with(
    databases: Databases, story: str, num_workers: int
) -> None:
    """PAINS 8."""
    entry = databases.settings({"num_workers": num_workers, "max_size": 2})
    assert seconds_to_end(STORIES[story], entry) < AT_ONCE_S


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_script_with_one_query_ends_about_as_fast_as_on_the_stock_backend(
    databases: Databases, num_workers: int
) -> None:
    """PAINS 8. The budget is 50 ms; the bound is wider, for machines that are busy."""
    pooled = databases.settings({"num_workers": num_workers})
    stock = databases.settings(ENGINE="django.db.backends.postgresql")
    ours = min(seconds_to_end(ONE_QUERY, pooled) for _ in range(3))
    theirs = min(seconds_to_end(CLOSED, stock) for _ in range(3))
    assert ours - theirs < 0.5
