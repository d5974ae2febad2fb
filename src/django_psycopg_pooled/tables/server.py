"""The server's sessions as text for people, without colours. Reads facts only."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from django_psycopg_pooled.facts.server import (
    AwaitedLock,
    BackendFacts,
    BlockingNode,
    HolderFacts,
    ServerFacts,
    Who,
)
from django_psycopg_pooled.tables.pool import duration

WIDTH = 80
INDENT = 2
DEEPEST_INDENT = 24  # deeper ones stand below each other, so that their text has room

Ours = Mapping[int, str]  # by pid: what we know of a session: its thread, request, line of Python


@dataclass(frozen=True, slots=True)
class _Page:
    """How wide lines may be, and what we know of sessions; lives for one text.

    width   None: nothing is cut, and what is wrapped has WIDTH columns
    """

    width: int | None
    ours: Ours

    @property
    def columns(self) -> int:
        return WIDTH if self.width is None else self.width

    def indent(self, depth: int) -> str:
        return " " * min(depth * INDENT, DEEPEST_INDENT, self.columns // 4)

    def cut(self, line: str) -> str:
        if self.width is None or len(line) <= self.width:
            return line
        return f"{line[: max(self.width - 3, 0)].rstrip()}..."

    def wrapped(self, text: str, indent: str) -> Iterator[str]:
        indent = indent[: self.columns // 2]
        yield from textwrap.wrap(
            text, self.columns, initial_indent=indent, subsequent_indent=indent
        )


# Which statements take a lock on a table that others can stumble upon.
_TAKEN_BY = {
    "SHARE UPDATE EXCLUSIVE": "VACUUM, CREATE INDEX CONCURRENTLY or LOCK TABLE",
    "SHARE": "CREATE INDEX or LOCK TABLE",
    "SHARE ROW EXCLUSIVE": "CREATE TRIGGER, a foreign key or LOCK TABLE",
    "EXCLUSIVE": "REFRESH ... CONCURRENTLY or LOCK TABLE",
    "ACCESS EXCLUSIVE": "ALTER, DROP, TRUNCATE or LOCK TABLE",
}


def sessions_table(facts: ServerFacts, ours: Ours | None = None, width: int | None = WIDTH) -> str:
    """Two or three lines a session: its state, its statement, and what we know of it."""
    page = _Page(width, ours or {})
    others = [backend for backend in facts.backends if not backend.asks]
    count = "1 session" if len(others) == 1 else f"{len(others)} sessions"
    lines = [f"{count} beside this one; PostgreSQL {facts.version}, database {facts.database}"]
    for backend in others:
        lines += ["", *_session(backend, page, "")]
    return _with_problems(facts, lines, page)


def blocking_text(facts: ServerFacts, ours: Ours | None = None, width: int | None = WIDTH) -> str:
    """Who holds up whom, indented: below each session those that wait for it.

    4711  idle in transaction for 41.2 s, transaction 44.0 s; user shop, web-1
          last: UPDATE shop_order SET status = ? WHERE id = ?
          ours: web-3 (POST /checkout), shop/views.py:88 in checkout
      4712  waits 12.1 s for row of shop_order; transaction 12.1 s; user shop, web-2
            runs: UPDATE shop_order SET status = ? WHERE id = ?
    """
    page = _Page(width, ours or {})
    waiting = facts.waiting
    if not waiting:
        lines = ["No session waits for a lock."]
    else:
        longest = max(b.waits_for.wait_s or 0.0 for b in waiting if b.waits_for)
        count = "1 session waits" if len(waiting) == 1 else f"{len(waiting)} sessions wait"
        lines = [f"{count} for locks, the longest for {duration(longest)}."]
        for cycle in facts.cycles:
            deadlock = f"Deadlock: {_names(cycle)} wait for each other, until the server ends one"
            lines += page.wrapped(f"{deadlock} of them after deadlock_timeout.", "")
        for root in facts.blocking:
            lines += ["", *_tree(facts, root, page, 0, None)]
    lines += _unseen_prepared(facts)
    return _with_problems(facts, lines, page)


def _tree(
    facts: ServerFacts, node: BlockingNode, page: _Page, depth: int, above: Who | None
) -> Iterator[str]:
    indent = page.indent(depth)
    backend = facts.backend(node.who)
    if node.again:
        closes = "closes the cycle" if node.in_cycle else "stands elsewhere too"
        yield f"{indent}{_name(node.who)}  {closes}: see there"
        return
    if backend is None:
        yield from _sessionless(facts, node.who, indent)
    else:
        yield from _session(backend, page, indent, above)
    if node.deeper:
        yield f"{indent}  ... and {node.deeper} behind it, not shown"
    for waiter in node.waiters:
        yield from _tree(facts, waiter, page, depth + 1, node.who)


def _session(
    backend: BackendFacts, page: _Page, indent: str, above: Who | None = None
) -> Iterator[str]:
    pid = str(backend.pid)
    inner = indent + " " * (len(pid) + 2)
    yield f"{indent}{pid}  {'; '.join([*_doing(backend), _owner(backend)])}"
    if backend.waits_for and backend.behind:
        yield from page.wrapped(_reason(backend, backend.waits_for, above), inner)
    if backend.query:
        verb = "runs" if backend.state == "active" else "last"
        yield f"{inner}{verb}: {_one_line(backend.query)}"
    if known := page.ours.get(backend.pid):
        yield from page.wrapped(f"ours: {known}", inner)


def _doing(backend: BackendFacts) -> Iterator[str]:
    if backend.hidden:
        yield "hidden"
    if lock := backend.waits_for:
        since = "" if lock.wait_s is None else f" {duration(lock.wait_s)}"
        yield f"waits{since} for {lock_words(lock)}"
    elif backend.state:
        since = "" if backend.state_age_s is None else f" for {duration(backend.state_age_s)}"
        yield f"{backend.state}{since}"
    elif not backend.hidden:
        yield backend.kind or "unknown"
    if backend.xact_age_s is not None:
        yield f"transaction {duration(backend.xact_age_s)}"
    wait = backend.wait_event_type
    if wait and wait not in ("Client", "Lock", "Activity"):
        yield f"waits on {wait}: {backend.wait_event}"


def lock_words(lock: AwaitedLock) -> str:
    """A lock in words; the mode only where it tells something."""
    if lock.kind in ("row", "transaction"):
        return lock.name
    if lock.kind == "advisory":
        return lock.name if lock.mode == "EXCLUSIVE" else f"{lock.name} ({lock.mode})"
    return f"{lock.mode} on {lock.name}"


def _reason(backend: BackendFacts, lock: AwaitedLock, above: Who | None) -> str:
    """How the one above holds it up, and who else does."""
    others = [holder for holder in backend.behind if holder.who != above]
    words = []
    if above is not None:
        words += [_how(holder, lock) for holder in backend.behind if holder.who == above]
    if others:
        more = backend.behind_count - len(backend.behind)
        names = _names(tuple(holder.who for holder in others))
        also = "also " if above is not None else ""
        words.append(f"{also}behind {names}{f' and {more} more' if more > 0 else ''}")
    return "; ".join(word for word in words if word)


def _how(holder: HolderFacts, lock: AwaitedLock) -> str:
    if holder.queued:
        return f"{_name(holder.who)} queues in front of it"
    if lock.kind in ("row", "transaction") or not holder.modes:
        return ""
    mode = holder.modes[0]
    taken = _TAKEN_BY.get(mode) if lock.kind == "table" else None
    return f"{_name(holder.who)} has it in {mode}{f' ({taken})' if taken else ''}"


def _owner(backend: BackendFacts) -> str:
    parts = [f"user {backend.user}" if backend.user else "", backend.application_name]
    return ", ".join(part for part in parts if part) or backend.kind or ""


def _sessionless(facts: ServerFacts, who: Who, indent: str) -> Iterator[str]:
    if isinstance(who, int):
        yield f"{indent}{who}  has ended meanwhile"
        return
    prepared = next((p for p in facts.prepared if p.gid == who), None)
    if prepared is None:
        yield f"{indent}A prepared transaction"
        return
    yield (
        f"{indent}Prepared transaction {prepared.gid!r}, {duration(prepared.age_s)} old;"
        f" user {prepared.owner}, database {prepared.database}"
    )
    quoted = prepared.gid.replace("'", "''")
    yield f"{indent}  has no session to terminate: COMMIT or ROLLBACK PREPARED '{quoted}';"


def _unseen_prepared(facts: ServerFacts) -> Iterator[str]:
    """Prepared transactions that hold up nobody: they keep VACUUM from its work all the same."""
    seen = {node.who for node in facts.blocking}
    for prepared in facts.prepared:
        if prepared.gid not in seen:
            yield ""
            yield from _sessionless(facts, prepared.gid, "")


def _with_problems(facts: ServerFacts, lines: list[str], page: _Page) -> str:
    for problem in facts.problems:
        lines += ["", *page.wrapped(problem, "")]
    return "\n".join(map(page.cut, lines))


def _names(who: tuple[Who, ...]) -> str:
    names = [_name(each) for each in who]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _name(who: Who) -> str:
    return str(who) if isinstance(who, int) else f"prepared transaction {who!r}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
