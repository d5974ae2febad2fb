"""The server's sessions as text: what is said of whom, within 80 columns."""

from typing import Any

import pytest

from django_psycopg_pooled.facts.server import (
    AwaitedLock,
    BackendFacts,
    HolderFacts,
    PreparedTransaction,
    ServerFacts,
    Who,
)
from django_psycopg_pooled.server.blocking import blocking_trees
from django_psycopg_pooled.server.locks import awaited, mode_words, strongest_first
from django_psycopg_pooled.tables.server import WIDTH, blocking_text, sessions_table

ROW = AwaitedLock("row", "row of shop_order", "SHARE", 12.1)


def backend(pid: int, **more: Any) -> BackendFacts:
    facts: dict[str, Any] = {
        "pid": pid,
        "backend_start_us": 1_000_000 + pid,
        "database": "shop",
        "user": "shop",
        "application_name": "web",
        "client": "10.0.0.7",
        "kind": "client backend",
        "state": "active",
        "state_change_us": 2_000_000,
        "state_age_s": 12.1,
        "xact_age_s": 12.1,
        "wait_event_type": None,
        "wait_event": None,
        "query": "UPDATE shop_order SET status = ?",
        "asks": False,
        "hidden": False,
    }
    return BackendFacts(**{**facts, **more})


def idle_in_transaction(pid: int, **more: Any) -> BackendFacts:
    return backend(
        pid, **{"state": "idle in transaction", "state_age_s": 41.2, "xact_age_s": 44.0, **more}
    )


def waiter(
    pid: int, *holders: Who | HolderFacts, lock: AwaitedLock = ROW, **more: Any
) -> BackendFacts:
    behind = tuple(
        h if isinstance(h, HolderFacts) else HolderFacts(h, ("EXCLUSIVE",), queued=False)
        for h in holders
    )
    known = {"waits_for": lock, "behind": behind, "behind_count": len(behind)}
    return backend(pid, **{"wait_event_type": "Lock", **known, **more})


def server(*backends: BackendFacts, **more: Any) -> ServerFacts:
    behind: dict[Who, list[Who]] = {b.pid: [h.who for h in b.behind] for b in backends if b.behind}
    trees, cycles = blocking_trees(behind)
    facts: dict[str, Any] = {"prepared": (), "blocking": trees, "cycles": cycles, **more}
    return ServerFacts(99, "shop", "18.0", 0, backends, **facts)


def test_a_chain_is_indented_and_names_our_line() -> None:
    facts = server(idle_in_transaction(4711), waiter(4712, 4711), waiter(4713, 4712))
    assert blocking_text(facts, {4711: "web-3 (POST /checkout), shop/views.py:88"}) == """\
2 sessions wait for locks, the longest for 12.1 s.

4711  idle in transaction for 41.2 s; transaction 44.0 s; user shop, web
      last: UPDATE shop_order SET status = ?
      ours: web-3 (POST /checkout), shop/views.py:88
  4712  waits 12.1 s for row of shop_order; transaction 12.1 s; user shop, web
        runs: UPDATE shop_order SET status = ?
    4713  waits 12.1 s for row of shop_order; transaction 12.1 s; user shop, web
          runs: UPDATE shop_order SET status = ?"""  # fmt: skip


def test_nobody_who_waits_is_said() -> None:
    assert blocking_text(server(backend(1))) == "No session waits for a lock."


def test_a_waiter_with_two_holders_names_the_other_one_below_each() -> None:
    facts = server(idle_in_transaction(1), idle_in_transaction(2), waiter(3, 1, 2))
    text = blocking_text(facts)
    assert "1 session waits for locks" in text
    assert "     also behind 2\n" in text
    assert "  3  stands elsewhere too: see there" in text


def test_holders_beyond_those_that_are_kept_are_counted() -> None:
    facts = server(waiter(3, 1, 2, behind_count=12))
    assert "also behind 2 and 10 more" in blocking_text(facts)


def test_a_table_lock_is_named_with_the_statements_that_take_it() -> None:
    lock = AwaitedLock("table", "table shop_order", "ACCESS SHARE", 3.0)
    holder = HolderFacts(1, ("ACCESS EXCLUSIVE", "ACCESS SHARE"), queued=False)
    text = blocking_text(server(idle_in_transaction(1), waiter(2, holder, lock=lock)))
    assert "2  waits 3.0 s for ACCESS SHARE on table shop_order" in text
    assert "1 has it in ACCESS EXCLUSIVE (ALTER, DROP, TRUNCATE or LOCK TABLE)" in text


def test_one_who_only_queues_in_front_is_told_from_one_who_has_the_lock() -> None:
    lock = AwaitedLock("table", "table shop_order", "ACCESS SHARE", 3.0)
    facts = server(waiter(1, 9), waiter(2, HolderFacts(1, (), queued=True), lock=lock))
    assert "1 queues in front of it" in blocking_text(facts)


def test_an_advisory_lock_is_named_by_its_key() -> None:
    lock = AwaitedLock("advisory", "advisory lock 42", "EXCLUSIVE", None)
    text = blocking_text(server(idle_in_transaction(1), waiter(2, 1, lock=lock)))
    assert "  2  waits for advisory lock 42; transaction" in text
    assert "1 has it in EXCLUSIVE\n" in text


def test_a_deadlock_is_said_in_words() -> None:
    text = blocking_text(server(waiter(1, 2), waiter(2, 1)))
    assert "Deadlock: 1 and 2 wait for each other" in text
    assert "    1  closes the cycle: see there" in text


def test_a_prepared_transaction_is_named_with_the_statement_that_ends_it() -> None:
    facts = server(
        waiter(2, "it's"), prepared=(PreparedTransaction("it's", 7200.0, "shop", "shop"),)
    )
    text = blocking_text(facts)
    assert """Prepared transaction "it's", 2 h old; user shop, database shop""" in text
    assert "COMMIT or ROLLBACK PREPARED 'it''s';" in text


def test_a_prepared_transaction_that_blocks_nobody_is_named_too() -> None:
    text = blocking_text(server(prepared=(PreparedTransaction("gid", 90.0, "shop", "shop"),)))
    assert text.startswith("No session waits for a lock.\n\nPrepared transaction 'gid', 90.0 s old")


def test_a_holder_that_has_ended_meanwhile_and_a_hidden_one_are_said() -> None:
    blank = dict.fromkeys(("state", "state_age_s", "xact_age_s", "kind", "backend_start_us"))
    facts = server(waiter(2, 1), waiter(4, 3), backend(3, hidden=True, query="", **blank))
    text = blocking_text(facts)
    assert "1  has ended meanwhile" in text
    assert "3  hidden; user shop, web\n  4" in text


def test_what_is_cut_off_by_depth_is_counted() -> None:
    chain = [waiter(n + 1, n) for n in range(1, 40)]
    assert "... and 1 behind it, not shown" in blocking_text(server(*chain))


def test_the_table_of_sessions_leaves_out_the_one_that_asks() -> None:
    facts = server(backend(1), backend(2, asks=True), problems=("Something is missing.",))
    assert sessions_table(facts, {1: "web-3"}) == """\
1 session beside this one; PostgreSQL 18.0, database shop

1  active for 12.1 s; transaction 12.1 s; user shop, web
   runs: UPDATE shop_order SET status = ?
   ours: web-3

Something is missing."""  # fmt: skip


def test_what_else_a_session_waits_on_is_said() -> None:
    facts = server(backend(1, wait_event_type="IO", wait_event="DataFileRead"))
    assert "; waits on IO: DataFileRead; " in sessions_table(facts)


def test_no_line_is_longer_than_a_terminal_and_no_statement_makes_a_second_one() -> None:
    long: dict[str, Any] = {"query": "SELECT *\nFROM\t" + "x" * 300, "application_name": "a" * 100}
    chain = [idle_in_transaction(1, **long), *(waiter(n + 1, n, **long) for n in range(1, 30))]
    chain.append(waiter(40, *range(1, 11), behind_count=30, **long))
    chain += [waiter(50, 51), waiter(51, 50)]
    facts = server(*chain, problems=("word " * 60,))
    for text in (blocking_text(facts, {1: "b" * 200}), sessions_table(facts, {1: "b" * 200})):
        assert max(map(len, text.splitlines())) <= WIDTH
        assert "SELECT * FROM xxx" in text


@pytest.mark.parametrize("width", [10, 40, 60, 132])
def test_lines_are_cut_to_the_width_and_sentences_wrapped(width: int) -> None:
    query = "SELECT * FROM " + "x" * 300
    chain = [idle_in_transaction(1), *(waiter(n + 1, n, query=query) for n in range(1, 30))]
    facts = server(*chain, waiter(40, *range(1, 11)), problems=("word " * 60,))
    for show in (blocking_text, sessions_table):
        lines = show(facts, {1: "b " * 200}, width).splitlines()
        assert max(map(len, lines)) <= width
        assert any(line.endswith("xxx...") for line in lines) or width < 40
        assert "".join(lines).count("word") == 60
        assert "".join(lines).count("b ") + "".join(lines).count("b") >= 200


def test_without_a_width_nothing_is_cut() -> None:
    query = "SELECT * FROM " + "x" * 300
    facts = server(idle_in_transaction(1), waiter(2, 1, query=query))
    assert f"runs: {query}\n" in blocking_text(facts, width=None) + "\n"
    assert f"runs: {query}\n" in sessions_table(facts, width=None) + "\n"


def locked(**more: Any) -> AwaitedLock:
    nothing = dict.fromkeys(
        ("relation", "relkind", "transaction", "virtual", "classid", "objid", "objsubid")
    )
    row_of = more.pop("row_of", None)
    return awaited({**nothing, "mode": "ExclusiveLock", "wait_s": 1.0, **more}, row_of)


@pytest.mark.parametrize(
    ("row", "kind", "name"),
    [
        ({"locktype": "relation", "relation": "t", "relkind": "r"}, "table", "table t"),
        ({"locktype": "relation", "relation": "t", "relkind": "p"}, "table", "table t"),
        ({"locktype": "relation", "relation": "i", "relkind": "i"}, "index", "index i"),
        ({"locktype": "tuple", "relation": "t"}, "row", "row of t"),
        ({"locktype": "transactionid", "transaction": "8"}, "transaction", "transaction 8"),
        ({"locktype": "transactionid", "transaction": "8", "row_of": "t"}, "row", "row of t"),
        ({"locktype": "virtualxid", "virtual": "3/4"}, "transaction", "virtual transaction 3/4"),
        ({"locktype": "extend", "relation": "t"}, "extend", "extend of t"),
        ({"locktype": "object"}, "object", "object"),
        (
            {"locktype": "advisory", "classid": 0, "objid": 42, "objsubid": 1},
            "advisory",
            "advisory lock 42",
        ),
        (
            {"locktype": "advisory", "classid": 2**32 - 1, "objid": 2**32 - 7, "objsubid": 1},
            "advisory",
            "advisory lock -7",
        ),
        (
            {"locktype": "advisory", "classid": 1, "objid": 2**32 - 2, "objsubid": 2},
            "advisory",
            "advisory lock 1, -2",
        ),
    ],
)
def test_locks_are_named_as_their_users_know_them(
    row: dict[str, Any], kind: str, name: str
) -> None:
    assert locked(**row) == AwaitedLock(kind, name, "EXCLUSIVE", 1.0)


def test_modes_are_spelled_as_in_sql_and_the_strongest_comes_first() -> None:
    assert mode_words("ShareRowExclusiveLock") == "SHARE ROW EXCLUSIVE"
    modes = ["AccessShareLock", "AccessExclusiveLock", "RowExclusiveLock"]
    assert strongest_first(modes) == ("ACCESS EXCLUSIVE", "ROW EXCLUSIVE", "ACCESS SHARE")
