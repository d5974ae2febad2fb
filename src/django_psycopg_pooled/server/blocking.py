"""Who waits for whom, as trees. A pure function.

Every waiter stands in full once, and is named again below each other session that holds it up:
to write out every path would take 2 ** n lines for a queue of n.
"""

from collections.abc import Iterable, Mapping

from django_psycopg_pooled.facts.server import BlockingNode, Who

DEPTH = 20

Behind = Mapping[Who, Iterable[Who]]  # waiter: those who hold it up


def blocking_trees(
    behind: Behind, depth: int = DEPTH
) -> tuple[tuple[BlockingNode, ...], tuple[tuple[Who, ...], ...]]:
    """The trees, the one with most waiters first, and the cycles.

    Roots are those that wait for nobody. A cycle that nobody outside holds up has none: its
    smallest member is made one.
    """
    forest = _Forest(behind, depth)
    roots = [who for who in forest.waiters if not forest.behind.get(who)]
    reached = set(roots).union(*(forest.after(root) for root in roots))
    cycles = forest.cycles()
    for cycle in cycles:
        if not reached.intersection(cycle):
            roots.append(cycle[0])
            reached.update(cycle, forest.after(cycle[0]))
    roots.sort(key=lambda who: (-len(forest.after(who)), _order(who)))
    return tuple(forest.node(root, 0) for root in roots), cycles


class _Forest:
    """The pairs both ways round, and which waiters stand in a tree already; lives for one call."""

    def __init__(self, behind: Behind, depth: int) -> None:
        self.behind = {waiter: sorted(set(held), key=_order) for waiter, held in behind.items()}
        self.waiters: dict[Who, list[Who]] = {}
        for waiter in sorted(self.behind, key=_order):
            for holder in self.behind[waiter]:
                self.waiters.setdefault(holder, []).append(waiter)
        self._depth = depth
        self._after: dict[Who, frozenset[Who]] = {}
        self._placed: set[Who] = set()

    def after(self, who: Who) -> frozenset[Who]:
        """All that wait for *who*, near and far; itself among them if it is in a cycle."""
        if who not in self._after:
            found: set[Who] = set()
            ahead = [who]
            while ahead:
                new = [w for w in self.waiters.get(ahead.pop(), ()) if w not in found]
                found.update(new)
                ahead += new
            self._after[who] = frozenset(found)
        return self._after[who]

    def cycles(self) -> tuple[tuple[Who, ...], ...]:
        """Groups of which each member waits for each other; the smallest member first."""
        found: dict[Who, tuple[Who, ...]] = {}
        for who in sorted(self.waiters, key=_order):
            if who in self.after(who) and who not in found:
                group = [w for w in self.after(who) if who in self.after(w)]
                members = tuple(sorted(group, key=_order))
                found.update(dict.fromkeys(members, members))
        return tuple(dict.fromkeys(found.values()))

    def node(self, who: Who, depth: int) -> BlockingNode:
        """The tree below *who*."""
        after = self.after(who)
        blocks, in_cycle = len(after - {who}), who in after
        if who in self._placed:
            return BlockingNode(who, blocks, in_cycle, again=True)
        self._placed.add(who)
        waiters = self.waiters.get(who, [])
        if depth >= self._depth:
            return BlockingNode(who, blocks, in_cycle, again=False, deeper=len(waiters))
        below = tuple(self.node(waiter, depth + 1) for waiter in waiters)
        return BlockingNode(who, blocks, in_cycle, again=False, waiters=below)


def _order(who: Who) -> tuple[bool, int, str]:
    """Process ids before the names of prepared transactions."""
    return (False, who, "") if isinstance(who, int) else (True, 0, who)
