"""Facts as a table for people. Reads snapshots only."""

import textwrap
from collections.abc import Sequence

from django_psycopg_pooled.facts.pool import ConnectionSnapshot, PoolSnapshot

HEADER = ("#", "state", "server pid", "for", "age", "uses", "thread")
WIDTH = 80


def pool_table(pool: PoolSnapshot) -> str:
    """One line about the pool, and one a connection; for a loan, what it does and in which lines.

    At most 80 columns but for long names.

    Pool 'default': 1 lent, 1 idle, 0 opening of 10; 0 waiting

    #  state  server pid  for      age      uses  thread
    1  lent         4711  41.2 s   2 min      12  web-3
       POST /checkout; idle in transaction; transaction 41.1 s, begun at
       shop/views.py:88 in checkout; last statement at shop/views.py:90 in checkout
    2  idle         4712  3.0 s    2 min       1
    """
    flags = "".join(f"; {word}" for word in ("paused", "closed") if getattr(pool, word))
    title = (
        f"Pool {pool.name!r}: {pool.count('lent')} lent, {pool.count('idle')} idle,"
        f" {pool.count('opening')} opening of {pool.max_size};"
        f" {pool.requests_waiting} waiting{flags}"
    )
    if not pool.connections:
        return title
    rows = _aligned([HEADER, *map(_row, pool.connections)], right=(0, 2, 5))
    lines = [title, "", rows[0]]
    for row, connection in zip(rows[1:], pool.connections, strict=True):
        lines += [row, *_doing(connection)]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A duration for people: '41.2 s', '2 min', '3 h', '4 d'."""
    for size, unit in ((172_800.0, "d"), (7_200.0, "h"), (120.0, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.1f} s"


def _row(connection: ConnectionSnapshot) -> tuple[str, ...]:
    pid = connection.server_pid
    return (
        str(connection.number),
        connection.state,
        "" if pid is None else str(pid),
        duration(connection.in_state_s),
        duration(connection.age_s),
        str(connection.uses),
        connection.thread or "",
    )


def _doing(loan: ConnectionSnapshot) -> list[str]:
    """What a borrower does with it: some more lines; none if nobody has borrowed it."""
    if loan.activity is None:
        return []
    age = "" if loan.transaction_s is None else f"transaction {duration(loan.transaction_s)}"
    begun = f"begun at {loan.transaction_at}" if loan.transaction_at else ""
    last = f"last statement at {loan.last_statement_at}" if loan.last_statement_at else ""
    parts = (loan.label, loan.activity, ", ".join(filter(None, (age, begun))), last)
    return textwrap.wrap(
        "; ".join(filter(None, parts)),
        WIDTH,
        initial_indent=" " * 3,
        subsequent_indent=" " * 3,
        break_long_words=False,  # a path is one word, to be copied
        break_on_hyphens=False,
    )


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
