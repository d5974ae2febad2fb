"""No connect of another thread is under way while a process forks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from django_psycopg_pooled import forking
from django_psycopg_pooled.clock import SystemClock
from django_psycopg_pooled.pool import connects as connects_module
from django_psycopg_pooled.pool.connects import Connects

PATIENCE_S = 10.0


@contextmanager
def elsewhere(connects: Connects) -> Iterator[threading.Event]:
    """A connect in another thread, which goes on until the event is set, or the block ends."""
    begun, may_end = threading.Event(), threading.Event()

    def connect() -> None:
        with connects.one():
            begun.set()
            may_end.wait(PATIENCE_S)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    assert begun.wait(PATIENCE_S)
    try:
        yield may_end
    finally:
        may_end.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_who_forks_waits_for_a_connect_of_another_thread() -> None:
    connects = Connects()
    with elsewhere(connects) as may_end:
        threading.Timer(0.1, may_end.set).start()
        began = time.monotonic()
        connects.hold(PATIENCE_S)
        assert 0.05 < time.monotonic() - began < PATIENCE_S / 2
        assert may_end.is_set()


def test_who_forks_waits_for_no_connect_that_is_older_than_the_patience() -> None:
    connects = Connects()
    with elsewhere(connects) as may_end:
        began = time.monotonic()
        connects.hold(0.1)
        assert time.monotonic() - began < PATIENCE_S / 2
        assert not may_end.is_set()


def test_who_forks_in_a_connect_of_its_own_does_not_wait_for_it() -> None:
    connects = Connects()
    with connects.one():
        began = time.monotonic()
        connects.hold(PATIENCE_S)
        assert time.monotonic() - began < PATIENCE_S / 2


@pytest.mark.parametrize("forks", [1, 2])
def test_a_connect_begins_when_nobody_forks_any_more(forks: int) -> None:
    connects, connected = Connects(), threading.Event()

    def connect() -> None:
        with connects.one():
            connected.set()

    for _ in range(forks):
        connects.hold(PATIENCE_S)
    thread = threading.Thread(target=connect)
    thread.start()
    for _ in range(forks):
        assert not connected.wait(0.05)
        connects.go_on()
    assert connected.wait(PATIENCE_S)
    thread.join()


def test_a_child_begins_with_none_under_way() -> None:
    connects = Connects()
    with connects.one():
        connects.hold(PATIENCE_S)
        forking._restart_all()
        with elsewhere(connects):
            pass
    connects.hold(PATIENCE_S)


def test_a_signals_handler_may_fork_while_its_thread_begins_a_connect() -> None:
    connects = Connects()
    with connects._lock:
        connects.hold(PATIENCE_S)
        connects.go_on()


def test_a_connect_that_fails_is_under_way_no_more() -> None:
    connects = Connects()

    def fail() -> None:
        with pytest.raises(OSError, match="refused"), connects.one():
            raise OSError("refused")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    began = time.monotonic()
    connects.hold(PATIENCE_S)
    assert time.monotonic() - began < PATIENCE_S / 2


def connects_in_a_thread(connects: Connects) -> bool:
    """Whether another thread may connect, if not at once."""
    connected = threading.Event()

    def connect() -> None:
        with connects.one():
            connected.set()

    threading.Thread(target=connect, daemon=True).start()
    return connected.wait(PATIENCE_S)


def test_a_fork_whose_end_is_never_told_holds_connects_up_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Python prints what a signal's handler raises in a hook of fork(), and goes on."""
    monkeypatch.setattr(connects_module, "FORK_S", 0.1)
    connects = Connects()
    began = time.monotonic()
    connects.hold(0.1)
    assert connects_in_a_thread(connects)
    assert time.monotonic() - began > 0.15


def test_a_fork_whose_begin_was_never_told_holds_nobody_up() -> None:
    connects = Connects()
    connects.go_on()
    assert connects_in_a_thread(connects)
    connects.hold(PATIENCE_S)
    connects.go_on()
    assert connects_in_a_thread(connects)


def test_who_says_that_it_forks_and_connects_instead_does_not_wait_for_itself() -> None:
    connects = Connects()
    connects.hold(PATIENCE_S)
    began = time.monotonic()
    with connects.one():
        assert time.monotonic() - began < PATIENCE_S / 2


def test_an_exception_while_it_waits_does_not_have_it_fork_in_the_midst_of_a_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connects = Connects()
    with elsewhere(connects) as may_end:

        class Struck(SystemClock):
            """A signal's handler raises in the first sleep, and the connect ends in the second."""

            sleeps = 0

            def sleep(self, seconds: float) -> None:  # type: ignore[override]
                self.sleeps += 1
                if self.sleeps == 1:
                    raise KeyboardInterrupt
                may_end.set()
                time.sleep(seconds)

        monkeypatch.setattr(connects_module, "SYSTEM_CLOCK", Struck())
        with pytest.raises(KeyboardInterrupt):
            connects.hold(PATIENCE_S)
        assert may_end.is_set()
        assert not connects._under_way
