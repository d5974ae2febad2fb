"""One operation on the database, as each peer means it."""

from django.db import DEFAULT_DB_ALIAS, connections

keeps = False  # set once by the worker: this peer keeps its connection after an operation


def query(sql: str = "SELECT 1", alias: str = DEFAULT_DB_ALIAS) -> None:
    """Run *sql* and fetch one row, on this thread's connection; opens it if need be."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        cursor.fetchone()


def let_go() -> None:
    """Close this thread's connection, as the peer means it between two operations."""
    if not keeps:
        connections[DEFAULT_DB_ALIAS].close()


def close() -> None:
    """Close this thread's connection, whatever the peer."""
    connections[DEFAULT_DB_ALIAS].close()


def operate(sql: str = "SELECT 1") -> None:
    """What is measured: query() and let_go()."""
    query(sql)
    let_go()
