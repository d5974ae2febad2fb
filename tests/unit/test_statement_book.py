"""The book of statements: bounded, shared by all threads, and of use for texts that come again."""

import os
import random
import threading

import pytest

from django_psycopg_pooled.session import Effect
from django_psycopg_pooled.statements.book import LONGEST, Book, Record
from django_psycopg_pooled.statements.effects import effects_of

JUDGE = "django_psycopg_pooled.statements.book.effects_of"
THREADS = 8
STEPS = 4000


def _count_judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are judged from now on."""
    judged: list[str] = []

    def judge(sql: str) -> Effect:
        judged.append(sql)
        return effects_of(sql)

    monkeypatch.setattr(JUDGE, judge)
    return judged


def test_a_record_tells_the_text_and_its_effects_as_a_plain_number() -> None:
    record = Book().look_up("SET ROLE admin; LISTEN a")
    assert record.sql == "SET ROLE admin; LISTEN a"
    assert type(record.effects) is int
    assert record.effects == Effect.ROLE | Effect.CHANNELS
    assert not hasattr(record, "__dict__")


def test_a_text_is_judged_once_and_has_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = _count_judged(monkeypatch)
    book = Book()
    first = book.look_up("SELECT 1")
    assert book.look_up("".join(["SELECT", " 1"])) is first
    assert book.look_up("SELECT 2") is not first
    assert judged == ["SELECT 1", "SELECT 2"]


@pytest.mark.parametrize("capacity", [2, 3, 10, 101])
def test_a_book_never_keeps_more_than_its_capacity(capacity: int) -> None:
    book = Book(capacity)
    for n in range(5 * capacity):
        book.look_up(f"SELECT {n}")
        book.look_up(f"SELECT {n // 2}")
        assert len(book) <= capacity
    assert len(book) >= capacity // 2


def test_two_thousand_texts_are_kept_unless_told_otherwise() -> None:
    book = Book()
    for n in range(10_000):
        book.look_up(f"SELECT {n}")
    assert 1000 <= len(book) <= 2000


@pytest.mark.parametrize("capacity", [1, 0, -5])
def test_a_book_without_room_for_two_texts_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=str(capacity)):
        Book(capacity)


def test_texts_in_use_survive_a_flood_of_texts_that_come_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = _count_judged(monkeypatch)
    book = Book(100)
    hot = [f"SELECT {n} FROM hot" for n in range(20)]
    records = [book.look_up(sql) for sql in hot]
    for n in range(2000):
        book.look_up(f"SELECT {n}")
        if n % 20 == 0:
            assert [book.look_up(sql) for sql in hot] == records
    assert len(judged) == len(hot) + 2000


def test_a_text_that_nobody_uses_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(10)
    book.look_up("SELECT old")
    for n in range(10):
        book.look_up(f"SELECT {n}")
    judged = _count_judged(monkeypatch)
    book.look_up("SELECT old")
    assert judged == ["SELECT old"]


def test_a_very_long_text_is_judged_but_not_kept() -> None:
    book = Book()
    listen = "LISTEN a" + " " * LONGEST
    assert book.look_up(listen).effects == Effect.CHANNELS
    assert book.look_up(listen) is not book.look_up(listen)
    assert len(book) == 0
    longest = listen[:LONGEST]
    assert book.look_up(longest) is book.look_up(longest)


def test_a_hit_does_not_wait_for_the_lock() -> None:
    book = Book()
    record = book.look_up("SELECT 1")
    with book._lock:
        assert book.look_up("SELECT 1") is record  # would never return


def test_two_threads_that_judge_the_same_text_share_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(sql: str) -> Effect:
        both.wait()
        return effects_of(sql)

    monkeypatch.setattr(JUDGE, together)
    book = Book()
    found: list[Record] = []
    threads = [
        threading.Thread(target=lambda: found.append(book.look_up("SELECT 1"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 2
    assert found[0] is found[1] is book.look_up("SELECT 1")


def test_a_child_of_fork_is_not_stopped_by_a_lock_that_another_thread_held() -> None:
    book = Book()
    record = book.look_up("SELECT 1")
    with book._lock:  # as if by a thread that the child does not have
        child = os.fork()
        if child == 0:
            same = book.look_up("SELECT 1") is record
            new = book.look_up("LISTEN a").effects == Effect.CHANNELS
            os._exit(0 if same and new else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_many_threads_keep_the_book_in_its_bounds_and_its_records_right() -> None:
    """DPP_STRESS_SEED=N draws the same texts again; the threads interleave as they like."""
    seed = int(os.environ.get("DPP_STRESS_SEED", random.randrange(10**9)))
    print(f"DPP_STRESS_SEED={seed}")
    book = Book(60)
    hot = {f"SELECT {n} FROM hot" for n in range(10)}
    sizes: list[int] = []
    failures: list[object] = []

    def live(number: int) -> None:
        chance = random.Random(seed + number)
        try:
            for step in range(STEPS):
                kind = chance.random()
                sql = (
                    f"SELECT {chance.randrange(10)} FROM hot" if kind < 0.5
                    else f"LISTEN a{chance.randrange(100)}" if kind < 0.8
                    else f"SET a = {number}.{step}"
                )  # fmt: skip
                record = book.look_up(sql)
                expected = {"SEL": 0, "LIS": Effect.CHANNELS, "SET": Effect.SETTINGS}[sql[:3]]
                if record.sql != sql or record.effects != expected:
                    failures.append((record.sql, sql))
                sizes.append(len(book))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=live, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    assert not failures
    assert len(sizes) == THREADS * STEPS
    assert max(sizes) <= 60
    assert not book._young.keys() & book._old.keys(), "a text in two places"
    assert hot & (book._young.keys() | book._old.keys())
