"""pools idle, blocking and terminate: the server's sessions, with our lines of Python."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.facts.server import BackendFacts, ServerFacts
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.registry import pools
from django_psycopg_pooled.management.fleet import Choice, Facts, Unreachable, ask
from django_psycopg_pooled.management.process import pool_name
from django_psycopg_pooled.management.result import Refusal, Result
from django_psycopg_pooled.management.text import Width, cut, printable, wrapped
from django_psycopg_pooled.server import Query
from django_psycopg_pooled.server.actions import terminate as end_session
from django_psycopg_pooled.server.joining import Claim, joined
from django_psycopg_pooled.server.view import read_server, set_up
from django_psycopg_pooled.statements.fingerprint import fingerprint
from django_psycopg_pooled.tables.pool import duration
from django_psycopg_pooled.tables.server import blocking_text

IDLE = "idle in transaction"  # and "... (aborted)"
PLACES = {
    "transaction_at": "began at",
    "last_statement_at": "last at",
    "now_at": "now at",
    "borrowed_at": "borrowed at",
}


def idle(choice: Choice, alias: str | None, older_than: float, width: Width) -> Result:
    """Sessions that are idle in a transaction for *older_than* seconds or longer."""
    with _server(alias) as (_, facts):
        pass
    found = [
        backend
        for backend in facts.backends
        if (backend.state or "").startswith(IDLE) and (backend.state_age_s or 0.0) >= older_than
    ]
    found.sort(key=lambda backend: -(backend.state_age_s or 0.0))
    loans, unknown = _loans(choice, alias, facts)
    count = "1 session is" if len(found) == 1 else f"{len(found) or 'No'} sessions are"
    lines = wrapped(f"{count} {IDLE} for {older_than:g} s or longer.", width)
    for backend in found:
        lines += ["", *_idle_lines(backend, loans.get(backend.pid), width)]
    for problem in (*facts.problems, *(unknown if found else ())):
        lines += ["", *wrapped(problem, width, then="")]
    told = [{**asdict(b), "ours": loans.get(b.pid)} for b in found]
    return Result(lines, {"sessions": told, "problems": list(facts.problems)}, wrong=bool(found))


def blocking(choice: Choice, alias: str | None, older_than: float, width: Width) -> Result:
    """Who waits for whose locks; wrong if one waits for *older_than* seconds or longer."""
    with _server(alias) as (_, facts):
        pass
    loans, unknown = _loans(choice, alias, facts) if facts.blocking else ({}, ())
    ours = {pid: _summary(loan) for pid, loan in loans.items()}
    lines = blocking_text(facts, ours, width).splitlines()
    for problem in unknown:
        lines += ["", *wrapped(problem, width, then="")]
    waits = [b.waits_for.wait_s or 0.0 for b in facts.waiting if b.waits_for]
    wrong = bool(facts.cycles) or max(waits, default=-1.0) >= older_than
    return Result(lines, {**asdict(facts), "ours": loans}, wrong)


def terminate(
    choice: Choice,
    alias: str | None,
    pid: int,
    width: Width,
    agrees: Callable[[Sequence[str]], bool],
) -> Result:
    """End the session *pid* if *agrees*, shown what it is, says so and it has done nothing since.

    Raises Refusal if there is no such session.
    """
    with _server(alias) as (query, facts):
        backend = facts.backend(pid)
        if backend is None:
            raise Refusal(f"The server of {facts.database} has no session {pid}.")
        loans, _ = _loans(choice, alias, facts)
        if not agrees(_idle_lines(backend, loans.get(pid), width)):
            text = "Nothing was done."
            return Result([text], {"done": False, "reason": "not agreed", "text": text}, wrong=True)
        done = end_session(
            query,
            pid=pid,
            backend_start_us=backend.backend_start_us or 0,
            state=backend.state,
            state_change_us=backend.state_change_us,
        )
    return Result(wrapped(done.text, width, then=""), asdict(done), wrong=not done.done)


@contextmanager
def _server(alias: str | None) -> Iterator[tuple[Query, ServerFacts]]:
    """The server of *alias*: how to ask it, and its sessions. Connects; raises Unreachable."""
    connection = _connection(alias)

    def query(sql: str, params: Sequence[Any]) -> Sequence[Sequence[Any]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows

    try:
        pool = getattr(connection, "pool", None)
        connection.ensure_connection()
        if not (pool and pool.options.pooler):
            set_up(query)
        yield query, read_server(query, fingerprint, DRIVER.server_pid(connection.connection))
    except DatabaseError as error:
        said = " ".join(str(error).split())
        raise Unreachable(f"The server of {connection.alias!r} did not answer: {said}") from error
    finally:
        connection.close()


def _connection(alias: str | None) -> BaseDatabaseWrapper:
    connection = connections[_alias(alias)]
    if connection.vendor != "postgresql":
        raise Refusal(f"{connection.alias!r} is no PostgreSQL database; choose one by --alias.")
    return connection


def _alias(alias: str | None) -> str:
    """The one that was chosen; else 'default', or the first that has a pool."""
    if alias is None:
        pooled = list(pools)
        return pooled[0] if pooled and DEFAULT_DB_ALIAS not in pooled else DEFAULT_DB_ALIAS
    if alias not in connections.settings:
        raise Refusal(f"{alias!r} is not in DATABASES; there is {', '.join(connections.settings)}.")
    return alias


def _loans(
    choice: Choice, alias: str | None, facts: ServerFacts
) -> tuple[Mapping[int, dict[str, Any]], Sequence[str]]:
    """By server process what our processes say of their loans, and why they say nothing.

    Only pools of that alias: another server has other processes with the same numbers.
    """
    if facts.pooler_between:
        return {}, ()  # the numbers are not the server's
    asked_at = SYSTEM_CLOCK.monotonic()  # a process that hangs keeps the others' answers waiting
    try:
        fleet = ask("status", Choice(pool_name(_alias(alias)), choice.pid))
    except Unreachable as error:
        return {}, (f"Without lines of Python: {error}",)
    claims = [
        Claim(one["server_pid"], one["age_s"], {"process": process, "pool": pool["name"], **one})
        for process, pool in fleet.pools()
        for one in pool["connections"]
        if one["state"] == "lent"
    ]
    found = joined(facts, claims, late_s=SYSTEM_CLOCK.monotonic() - asked_at)
    return found, [f"Without process {failure}" for failure in fleet.failures()]


def _idle_lines(backend: BackendFacts, loan: Facts | None, width: Width) -> list[str]:
    """One session:

    4711  idle in transaction for 41.2 s; transaction 44.0 s; user shop, web-1
      last: UPDATE "shop_order" SET "status" = %s WHERE "shop_order"."id" = %s
      process 812 gunicorn, thread web-3, POST /checkout
      began at: shop/views.py:88 in checkout
      now at: shop/payment.py:41 in charge
    """
    state = f"{backend.state or 'hidden'} for {duration(backend.state_age_s or 0.0)}"
    age = "" if backend.xact_age_s is None else f"transaction {duration(backend.xact_age_s)}"
    user = f"user {backend.user}" if backend.user else ""
    owner = ", ".join(filter(None, (user, backend.application_name)))
    lines = [f"{backend.pid}  " + "; ".join(filter(None, (state, age, owner)))]
    if backend.query:
        lines.append(f"  last: {' '.join(backend.query.split())}")
    if loan is not None:
        lines.append(f"  {_who(loan)}")
        lines += [f"  {title}: {loan[key]}" for key, title in PLACES.items() if loan.get(key)]
    return [cut(printable(line), width) for line in lines]


def _who(loan: Facts) -> str:
    process = loan["process"]
    parts = (f"process {process['pid']} {process['program']}", f"thread {loan['thread']}")
    return ", ".join(filter(None, (*parts, loan["label"])))


def _summary(loan: Facts) -> str:
    """A loan in one line: the place that says most of it comes first."""
    places = [loan[key] for key in ("now_at", "transaction_at", "last_statement_at") if loan[key]]
    process, label = loan["process"], loan["label"] or f"thread {loan['thread']}"
    return printable(f"{process['pid']} {label}; {'; '.join(dict.fromkeys(places))}")
