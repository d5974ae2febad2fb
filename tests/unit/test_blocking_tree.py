"""Who waits for whom, as trees: chains, several holders, cycles, long queues."""

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from django_psycopg_pooled.facts.server import BlockingNode, Who
from django_psycopg_pooled.server.blocking import Behind, blocking_trees


def shape(node: BlockingNode) -> Any:
    """A node as nested lists: who, then those below; one that stands elsewhere as a string."""
    return f"{node.who} again" if node.again else [node.who, *map(shape, node.waiters)]


def shapes(behind: Behind, depth: int = 20) -> list[Any]:
    return [shape(root) for root in blocking_trees(behind, depth)[0]]


def every(nodes: tuple[BlockingNode, ...]) -> Iterator[BlockingNode]:
    for node in nodes:
        yield node
        yield from every(node.waiters)


def test_nobody_who_waits_makes_no_tree() -> None:
    assert blocking_trees({}) == ((), ())


def test_a_chain_is_one_branch() -> None:
    assert shapes({2: [1], 3: [2]}) == [[1, [2, [3]]]]
    [root] = blocking_trees({2: [1], 3: [2]})[0]
    assert root.blocks == 2
    assert root.waiters[0].blocks == 1
    assert root.waiters[0].waiters[0].blocks == 0


def test_those_who_wait_for_the_same_one_stand_side_by_side() -> None:
    assert shapes({4: [1], 2: [1], 3: [1]}) == [[1, [2], [3], [4]]]


def test_a_waiter_with_two_holders_stands_below_both_and_is_counted_once_for_each() -> None:
    behind: Behind = {3: [1, 2], 4: [3]}
    assert shapes(behind) == [[1, [3, [4]]], [2, "3 again"]]
    first, second = blocking_trees(behind)[0]
    assert first.blocks == second.blocks == 2
    assert second.waiters[0].blocks == 1


def test_a_waiter_that_is_reached_by_two_ways_counts_once() -> None:
    [root] = blocking_trees({2: [1], 3: [1], 4: [2, 3]})[0]
    assert root.blocks == 3


def test_the_same_holder_named_twice_is_one() -> None:
    assert shapes({2: [1, 1]}) == [[1, [2]]]


def test_the_root_that_blocks_most_comes_first() -> None:
    assert shapes({2: [1], 12: [11], 13: [11]}) == [[11, [12], [13]], [1, [2]]]


def test_a_cycle_is_shown_from_its_smallest_member() -> None:
    trees, cycles = blocking_trees({1: [3], 2: [1], 3: [2]})
    assert cycles == ((1, 2, 3),)
    [root] = trees
    assert shape(root) == [1, [2, [3, "1 again"]]]
    assert all(node.in_cycle for node in every(trees))
    assert root.blocks == 2  # not itself


def test_each_cycle_has_its_tree() -> None:
    trees, cycles = blocking_trees({1: [2], 2: [1], 8: [7], 7: [8]})
    assert cycles == ((1, 2), (7, 8))
    assert [root.who for root in trees] == [1, 7]


def test_a_cycle_with_somebody_behind_it_does_not_take_him_in() -> None:
    trees, cycles = blocking_trees({1: [2], 2: [1], 3: [1]})
    assert cycles == ((1, 2),)
    assert shape(trees[0]) == [1, [2, "1 again"], [3]]
    assert [node.in_cycle for node in every(trees)] == [True, True, True, False]


def test_a_cycle_that_also_waits_for_somebody_outside_stands_below_him() -> None:
    trees, cycles = blocking_trees({2: [1, 3], 3: [2]})
    assert cycles == ((2, 3),)
    assert [shape(root) for root in trees] == [[1, [2, [3, "2 again"]]]]
    assert not trees[0].in_cycle


def test_prepared_transactions_are_roots_by_their_names() -> None:
    behind: Behind = {5: ["gid"], 6: ["gid", 4]}
    assert shapes(behind) == [["gid", [5], [6]], [4, "6 again"]]


def test_a_branch_ends_at_the_limit_of_depth_and_says_so() -> None:
    chain: Behind = {n + 1: [n] for n in range(1, 50)}
    [root] = blocking_trees(chain, depth=3)[0]
    assert shape(root) == [1, [2, [3, [4]]]]
    last = root.waiters[0].waiters[0].waiters[0]
    assert last.deeper == 1
    assert last.blocks == 46
    assert root.blocks == 49


def test_a_chain_of_thousands_does_not_overflow() -> None:
    [root] = blocking_trees({n + 1: [n] for n in range(1, 3000)})[0]
    assert root.blocks == 2999


def test_a_queue_of_many_for_one_row_makes_a_line_each_and_not_each_path() -> None:
    """Each waits for all in front: 2 ** 60 paths."""
    behind: Behind = {n: list(range(1, n)) for n in range(2, 62)}
    trees = blocking_trees(behind)[0]
    nodes = list(every(trees))
    assert sum(not node.again for node in nodes) == 61
    assert len(nodes) < 61 * 61


WHO = st.one_of(st.integers(1, 9), st.sampled_from(["a", "b"]))


@given(st.dictionaries(st.integers(1, 9), st.lists(WHO, min_size=1, max_size=4), max_size=9))
def test_everybody_who_waits_or_is_waited_for_stands_once_in_full(
    behind: dict[Who, list[Who]],
) -> None:
    behind = {waiter: kept for waiter, held in behind.items() if (kept := [*set(held) - {waiter}])}
    trees, cycles = blocking_trees(behind)
    nodes = list(every(trees))
    full = [node.who for node in nodes if not node.again]
    assert sorted(full, key=str) == sorted(
        {*behind, *(h for x in behind.values() for h in x)}, key=str
    )
    below = {(w.who, node.who) for node in nodes for w in node.waiters}
    assert below == {(waiter, holder) for waiter, held in behind.items() for holder in held}
    assert {node.who for node in nodes if node.in_cycle} == {who for c in cycles for who in c}
