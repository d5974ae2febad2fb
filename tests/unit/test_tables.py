"""The pool as a table: who has which connection, what for, and in which lines of code."""

from typing import Any

import pytest

from django_psycopg_pooled.facts.pool import ConnectionSnapshot, PoolSnapshot
from django_psycopg_pooled.tables.pool import WIDTH, pool_table

IDLE: dict[str, Any] = {
    "number": 2,
    "state": "idle",
    "server_pid": 4712,
    "age_s": 120.0,
    "in_state_s": 3.0,
    "uses": 1,
    "thread": None,
}
LENT: dict[str, Any] = {
    "number": 1,
    "state": "lent",
    "server_pid": 4711,
    "age_s": 120.0,
    "in_state_s": 41.2,
    "uses": 12,
    "thread": "web-3",
    "thread_id": 1,
    "label": "POST /checkout",
    "activity": "idle in transaction",
    "borrowed_at": "shop/middleware.py:7 in __call__",
    "last_statement_at": "shop/views.py:90 in checkout",
    "now_at": "shop/payment.py:41 in charge",
    "transaction_s": 41.1,
    "transaction_at": "shop/views.py:88 in checkout",
}


def table(*connections: dict[str, Any]) -> list[str]:
    pool = PoolSnapshot(
        name="default",
        min_size=1,
        max_size=10,
        timeout_s=5.0,
        max_waiting=0,
        requests_waiting=0,
        paused=False,
        closed=False,
        last_failure=None,
        last_failure_ago_s=None,
        connections=tuple(ConnectionSnapshot(**each) for each in connections),
    )
    return pool_table(pool).splitlines()


def test_a_loan_has_its_work_its_transaction_and_its_lines_below_it() -> None:
    assert table(LENT, IDLE) == [
        "Pool 'default': 1 lent, 1 idle, 0 opening of 10; 0 waiting",
        "",
        "#  state  server pid  for     age    uses  thread",
        "1  lent         4711  41.2 s  2 min    12  web-3",
        "   POST /checkout; idle in transaction; transaction 41.1 s, begun at",
        "   shop/views.py:88 in checkout; last statement at shop/views.py:90 in checkout",
        "2  idle         4712  3.0 s   2 min     1",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": None}, "idle in transaction; transaction 41.1 s, begun at shop/views.py:88 in"),
        (
            {"transaction_s": None, "transaction_at": ""},
            "POST /checkout; idle in transaction; last",
        ),
        (
            {"last_statement_at": ""},
            "POST /checkout; idle in transaction; transaction 41.1 s, begun",
        ),
    ],
)
def test_what_is_not_known_is_left_out(changes: dict[str, Any], said: str) -> None:
    assert " ".join(line.strip() for line in table({**LENT, **changes})[4:]).startswith(said)


def test_a_loan_that_has_done_nothing_yet_says_so_in_a_word() -> None:
    nothing = {
        "label": None,
        "activity": "idle",
        "transaction_s": None,
        "transaction_at": "",
        "last_statement_at": "",
    }
    assert table({**LENT, **nothing})[4:] == ["   idle"]


@pytest.mark.parametrize("length", range(1, 60))
def test_it_stays_within_eighty_columns(length: int) -> None:
    place = f"{'shop/' * (length // 5)}{'v' * (length % 5)}.py:88 in checkout"
    lines = table({**LENT, "transaction_at": place, "last_statement_at": place, "label": place})
    assert max(map(len, lines)) <= WIDTH


def test_a_path_that_is_longer_than_a_line_stays_whole() -> None:
    place = f"/srv/{'very-' * 30}long/views.py:88 in checkout"
    assert any(place.split()[0] in line for line in table({**LENT, "transaction_at": place}))


def test_an_empty_pool_is_its_title() -> None:
    assert table() == ["Pool 'default': 0 lent, 0 idle, 0 opening of 10; 0 waiting"]
