"""The threads of a pool: there when needed, gone when not."""

import threading
import time

import pytest

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.runtime import threads
from django_psycopg_pooled.runtime.threads import ThreadRuntime


@pytest.fixture(autouse=True)
def _linger_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LINGER_S", 0.05)


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pool-test"]


def _all_end() -> bool:
    for thread in _threads():
        thread.join(5)
    return not _threads()


def test_tasks_submitted_together_run_together() -> None:
    runtime = ThreadRuntime("test", 1, SYSTEM_CLOCK)
    together = threading.Barrier(8, timeout=5)
    done = threading.Semaphore(0)

    def task() -> None:
        together.wait()
        done.release()

    for _ in range(8):
        runtime.submit(task)
    for _ in range(8):
        assert done.acquire(timeout=5)
    assert _all_end(), "threads without work stay"


def test_a_thread_serves_task_after_task() -> None:
    runtime = ThreadRuntime("test", 1, SYSTEM_CLOCK)
    used: list[int] = []
    done = threading.Event()

    def task() -> None:
        used.append(threading.get_ident())
        done.set()

    for _ in range(5):
        done.clear()
        runtime.submit(task)
        assert done.wait(5)
        time.sleep(0.005)  # into its rest, which has no sign to wait for
    assert len(set(used)) == 1
    assert _all_end()


def test_timers_run_at_their_time_in_their_order_and_keep_one_thread() -> None:
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    began = time.monotonic()
    ran: list[tuple[str, float]] = []
    done = threading.Event()

    def late() -> None:
        ran.append(("late", time.monotonic()))
        done.set()

    runtime.call_at(began + 0.3, late)
    runtime.call_at(began + 0.1, lambda: ran.append(("early", time.monotonic())))
    assert done.wait(5)
    assert [name for name, _ in ran] == ["early", "late"]
    assert ran[0][1] - began >= 0.1
    assert ran[1][1] - began >= 0.3
    assert _all_end()


def test_a_stopped_runtime_finishes_what_it_has_drops_its_timers_and_ends_its_threads() -> None:
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    ran: list[str] = []
    runtime.call_at(time.monotonic() + 60, lambda: ran.append("timer"))
    assert len(_threads()) == 1
    runtime.stop()
    assert _all_end()
    runtime.submit(lambda: ran.append("after"))
    runtime.call_at(0.0, lambda: ran.append("timer after"))
    assert ran == ["after"], "what comes too late runs in the caller's thread, to clean up"


def test_without_a_thread_to_be_had_the_work_is_done_in_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    ran: list[int] = []
    runtime.submit(lambda: ran.append(threading.get_ident()))
    assert ran == [threading.get_ident()]


def test_many_threads_submitting_at_once_lose_no_task() -> None:
    runtime = ThreadRuntime("test", 2, SYSTEM_CLOCK)
    ran = threading.Semaphore(0)

    def submit_many() -> None:
        for _ in range(200):
            runtime.submit(ran.release)

    submitters = [threading.Thread(target=submit_many) for _ in range(8)]
    for thread in submitters:
        thread.start()
    for _ in range(1600):
        assert ran.acquire(timeout=5)
    for thread in submitters:
        thread.join()
    assert _all_end()


def test_a_pause_ends_resting_threads_and_resume_keeps_the_timers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # whoever else is here
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    done = threading.Event()
    runtime.call_at(time.monotonic() + 0.2, done.set)
    assert len(_threads()) == 1
    runtime.pause(5.0)
    assert _threads() == []
    runtime.resume()
    assert _threads() == [], "Python counts threads just after a fork()"
    runtime.call_at(0.0, lambda: None)
    assert done.wait(5)
    assert _all_end()


def test_work_that_comes_during_a_pause_is_done() -> None:
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    runtime.pause(5.0)
    done = threading.Event()
    runtime.submit(done.set)
    assert done.wait(5)
    assert _all_end()
    runtime.resume()


def test_a_pause_does_not_wait_for_a_thread_at_work_longer_than_it_may() -> None:
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(10)

    runtime.submit(work)
    assert begun.wait(5)
    before = time.monotonic()
    runtime.pause(0.05)
    assert time.monotonic() - before < 5
    end.set()
    runtime.resume()
    assert _all_end()


def test_a_pause_whose_end_is_never_told_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python prints what a signal's handler raises in a hook of fork(), and goes on."""
    monkeypatch.setattr(threads, "FORK_S", 0.1)
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    runtime.pause(0.0)
    time.sleep(0.15)
    done = threading.Event()
    runtime.call_at(time.monotonic() + 0.1, done.set)
    assert done.wait(5)
    assert _all_end()


def test_in_a_process_with_other_threads_the_timers_go_on_by_themselves_after_a_fork() -> None:
    """Python warns of the others anyway."""
    runtime = ThreadRuntime("test", 3, SYSTEM_CLOCK)
    done, end = threading.Event(), threading.Event()
    other = threading.Thread(target=end.wait, args=(10,))
    other.start()
    runtime.call_at(time.monotonic() + 0.1, done.set)
    runtime.pause(5.0)
    assert _threads() == []
    runtime.resume()
    assert done.wait(5)
    end.set()
    other.join()
    assert _all_end()
