"""A loan that lasts too long is logged while it lasts, and once more when it ends. PAINS 20."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.databases import Databases
from tests.server.support import Call, eventually, in_thread, pool_of, value, wrapper

HERE = "tests/server/test_leaks.py"
THRESHOLD_S = 0.6
BEGUN = re.compile(r"has been lent for ([\d.]+) s")
ENDED = re.compile(r"was given back after ([\d.]+) s")


def line_of(name: str) -> int:
    """The number of the line that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line: {name}")]
    return number


class Log:
    """What was said about long loans."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def texts(self, pattern: re.Pattern[str]) -> list[str]:
        texts = [record.getMessage() for record in tuple(self._caplog.records)]
        return [text for text in texts if pattern.search(text)]

    @property
    def begun(self) -> int:
        return len(self.texts(BEGUN))

    @property
    def ended(self) -> list[float]:
        found = [ENDED.search(text) for text in self.texts(ENDED)]
        return [float(match[1]) for match in found if match]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@contextmanager
def held(alias: str) -> Iterator[None]:
    """A thread has a connection of *alias* all the while."""
    holds, end = threading.Event(), threading.Event()

    def hold() -> None:
        with wrapper(alias).cursor() as cursor:  # line: borrowed
            cursor.execute("SELECT 1")
            holds.set()
            end.wait(20)  # line: now
        wrapper(alias).close()

    call = Call(hold, "web-3")
    try:
        assert holds.wait(20)
        yield
    finally:
        end.set()
        call.outcome()


def test_a_slow_but_honest_loan_is_logged_once_and_once_more_when_it_ends(
    databases: Databases, log: Log
) -> None:
    connection = databases.add({"leak_threshold": THRESHOLD_S})
    pool, began = pool_of(connection), time.monotonic()
    with held(connection.alias):
        eventually(lambda: log.begun)
        seen = time.monotonic() - began
        eventually(lambda: time.monotonic() - began > 2 * THRESHOLD_S + 0.6)  # a second look
    lasted = time.monotonic() - began
    assert THRESHOLD_S < seen < THRESHOLD_S + 4  # 0.5 on a machine at rest
    assert log.begun == 1
    [ended] = log.ended
    assert ended == pytest.approx(lasted, abs=1)
    [text] = log.texts(BEGUN)
    assert "(leak_threshold is 0.6 s) to thread 'web-3'" in text
    assert f"borrowed at {HERE}:{line_of('borrowed')} in held.<locals>.hold" in text
    assert f"which is now at {HERE}:{line_of('now')} in held.<locals>.hold" in text
    [text] = log.texts(ENDED)
    assert f"the connection borrowed at {HERE}:{line_of('borrowed')} in" in text
    assert pool.get_stats()["reclaimed"] == 0


def test_loans_below_the_threshold_are_not_logged(databases: Databases, log: Log) -> None:
    connection = databases.add({"leak_threshold": 1})
    until = time.monotonic() + 1.6
    while time.monotonic() < until:
        value(connection, "SELECT pg_sleep(0.05)")
        connection.close()
    assert log.begun == 0
    assert log.ended == []


def test_a_loan_that_is_rolled_back_on_its_return_has_its_end_logged(
    databases: Databases, log: Log
) -> None:
    connection = databases.add({"leak_threshold": THRESHOLD_S})
    connection.set_autocommit(False)
    value(connection, "SELECT 1")
    eventually(lambda: log.begun)
    connection.close()
    assert len(log.ended) == 1


def test_a_threshold_that_is_set_while_running_holds_for_what_is_lent(
    databases: Databases, log: Log
) -> None:
    connection = databases.add(True)
    pool, alias = pool_of(connection), connection.alias
    with held(alias):
        value(connection, f"SELECT pg_sleep({THRESHOLD_S})")
        assert log.begun == 0
        pool.configure(leak_threshold=THRESHOLD_S)
        eventually(lambda: log.begun == 2, 2)  # this thread's, too
        connection.close()
        assert len(log.ended) == 1
        pool.configure(leak_threshold=0)
        assert value(connection, f"SELECT 1 FROM pg_sleep({2 * THRESHOLD_S})") == 1
        connection.close()
    assert log.begun == 2
    assert len(log.ended) == 2


def test_without_threads_a_long_loan_is_logged_when_another_comes_back(
    databases: Databases, log: Log
) -> None:
    """A limit: nobody looks while nobody gives anything back."""
    connection = databases.add({"leak_threshold": THRESHOLD_S, "num_workers": 0})
    alias = connection.alias

    def use() -> bool:
        in_thread(lambda: value(wrapper(alias), "SELECT 1"))
        return bool(log.begun)

    with held(alias):
        eventually(use, 5)
        assert log.begun == 1
        assert log.ended == []
    assert len(log.ended) == 1
    assert log.ended[0] >= THRESHOLD_S
