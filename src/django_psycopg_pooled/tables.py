"""Facts as a table for people. Reads snapshots only."""

from collections.abc import Sequence

from django_psycopg_pooled.snapshots import ConnectionSnapshot, PoolSnapshot

HEADER = ("#", "state", "server pid", "for", "age", "uses", "thread")


def pool_table(pool: PoolSnapshot) -> str:
    """One line about the pool, and one a connection. At most 80 columns but for long names.

    Pool 'default': 1 lent, 1 idle, 0 opening of 10; 0 waiting

    #  state  server pid  for      age      uses  thread
    1  lent         4711  41.2 s   2 min      12  web-3
    2  idle         4712  3.0 s    2 min       1
    """
    flags = "".join(f"; {word}" for word in ("paused", "closed") if getattr(pool, word))
    title = (
        f"Pool {pool.name!r}: {pool.count('lent')} lent, {pool.count('idle')} idle,"
        f" {pool.count('opening')} opening of {pool.max_size};"
        f" {pool.requests_waiting} waiting{flags}"
    )
    rows = [HEADER, *map(_row, pool.connections)]
    return "\n".join([title, "", *_aligned(rows, right=(0, 2, 5))]) if len(rows) > 1 else title


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


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
