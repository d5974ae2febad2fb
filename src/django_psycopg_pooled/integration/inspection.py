"""The server's own view of its sessions, with what the pool knows of its own among them."""

from typing import Any

from django_psycopg_pooled.facts.pool import ConnectionSnapshot
from django_psycopg_pooled.facts.server import ServerFacts
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.server.joining import Claim, joined
from django_psycopg_pooled.server.view import read_server, set_up
from django_psycopg_pooled.statements.fingerprint import fingerprint

Loans = dict[int, ConnectionSnapshot]


def ask_server(pool: Pool) -> tuple[ServerFacts, Loans]:
    """What the server of *pool* says of its sessions, and by pid which of them are the pool's.

    By a connection beside the pool's slots, which may all be lent just then. Blocks for a connect
    and two round trips. Raises what the driver raises if the server takes no more connections.
    """
    with pool.dedicated(_unwatch) as line:

        def query(sql: str, params: Any) -> list[Any]:
            with line.connection.cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall()) if cursor.description else []

        if not pool.options.pooler:
            set_up(query)
        facts = read_server(query, fingerprint, DRIVER.server_pid(line.connection))
    claims = [Claim(each.server_pid, each.age_s, each) for each in pool.snapshot().connections]
    return facts, joined(facts, claims)


def in_words(loans: Loans) -> dict[int, str]:
    """For the server's tables: who works with a session, and in which line of Python."""
    return {pid: _words(loan) for pid, loan in loans.items()}


def _words(loan: ConnectionSnapshot) -> str:
    who = loan.thread or "idle in the pool"
    work = f" ({loan.label})" if loan.label else ""
    lines = (
        ("transaction begun at", loan.transaction_at),
        ("last statement at", loan.last_statement_at or loan.borrowed_at),
        ("now at", loan.now_at),
    )
    return "; ".join([f"{who}{work}", *(f"{what} {line}" for what, line in lines if line)])


def _unwatch(connection: Any) -> None:
    """What we ask is no statement of the user's."""
    connection._pool_session.journal = None
