"""The server's sessions as facts: what is read, what may be seen, and ending them with a guard."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from devtools.pgbouncer import PgBouncer, program
from devtools.postgres import PostgresServer
from django_psycopg_pooled.facts.server import ActionFacts, BackendFacts
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.server import Query
from django_psycopg_pooled.server.actions import cancel, terminate
from django_psycopg_pooled.server.joining import Claim, joined
from django_psycopg_pooled.server.view import read_server, set_up
from django_psycopg_pooled.statements.fingerprint import fingerprint
from django_psycopg_pooled.tables.server import blocking_text, sessions_table
from tests.server.databases import Databases
from tests.server.support import (
    DATABASE,
    borrow,
    eventually,
    lent_to_a_thread,
    pool_of,
    require,
    wrapper,
)
from tests.server.test_blocking import DATABASE_API, Scene, Session, shapes


@pytest.fixture
def scene(server: PostgresServer) -> Iterator[Scene]:
    scene = Scene(server)
    try:
        yield scene
    finally:
        scene.end()


@pytest.fixture
def role(server: PostgresServer) -> Iterator[str]:
    """A role without any privileges; connect with its name as `user`."""
    name = "modest clerk"
    server.psql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{server.password}'")
    yield name
    server.psql(f'DROP ROLE "{name}"')


def seen(scene: Scene, session: Session) -> BackendFacts:
    return scene.of(scene.facts(), session)


def guard(backend: BackendFacts) -> dict[str, Any]:
    """What an action is told of the session that somebody saw."""
    assert backend.backend_start_us is not None
    keys = ("pid", "backend_start_us", "state", "state_change_us")
    return {key: getattr(backend, key) for key in keys}


def alive(scene: Scene, session: Session) -> bool:
    return scene.facts().backend(session.pid) is not None


def test_a_session_is_read_with_its_state_ages_and_statement(scene: Scene) -> None:
    session = scene.session(application_name="shop web-1")
    session.run("SELECT 'a literal'")
    # It has answered, and may be about to wait.
    eventually(lambda: scene.of(scene.facts(), session).wait_event is not None)
    facts = scene.facts()
    backend = scene.of(facts, session)
    assert (backend.database, backend.user) == (DATABASE, scene.server.user)
    assert (backend.application_name, backend.client) == ("shop web-1", "127.0.0.1")
    assert (backend.kind, backend.state) == ("client backend", "idle in transaction")
    assert (backend.wait_event_type, backend.wait_event) == ("Client", "ClientRead")
    assert backend.query == "SELECT 'a literal'"
    assert not backend.asks
    assert not backend.hidden
    assert backend.state_age_s is not None
    assert backend.xact_age_s is not None
    assert 0 <= backend.state_age_s <= backend.xact_age_s < 30
    assert backend.backend_start_us is not None
    assert abs(backend.backend_start_us / 1e6 - time.time()) < 60
    assert scene.of(facts, scene.look).asks
    assert facts.server_pid == scene.look.pid
    assert facts.problems == ()
    assert asdict(facts)["backends"][0]["pid"]  # plain enough for JSON


def test_literals_are_taken_out_and_long_statements_cut(scene: Scene) -> None:
    session = scene.session()
    session.run("SELECT 'ada@example.com', " + ", ".join(["4711"] * 100))
    raw = seen(scene, session).query
    assert len(raw) == 200
    redacted = read_server(scene.look.query, fingerprint).backend(session.pid)
    assert redacted is not None
    assert redacted.query.startswith("SELECT ?, ?, ")
    assert "4711" not in redacted.query
    # And where the cut is within a literal.
    session.run("SELECT '" + "x" * 300 + "'")
    redacted = read_server(scene.look.query, fingerprint).backend(session.pid)
    assert redacted is not None
    assert redacted.query == "SELECT ?"


def test_a_statement_in_another_encoding_does_not_spoil_the_view(scene: Scene) -> None:
    scene.server.psql(
        "CREATE DATABASE old ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        session = scene.session(dbname="old", client_encoding="LATIN1")
        session.run("SELECT 'café'")
        backend = seen(scene, session)
        assert backend.database == "old"
        assert backend.query == r"SELECT 'caf\351'"
        # And its literals are taken out as they should be.
        session.run(r"SELECT E'it\'s secret', E'\\', 'é'")
        assert seen(scene, session).query == r"SELECT E'it\'s secret', E'\\', '\351'"
        redacted = read_server(scene.look.query, fingerprint).backend(session.pid)
        assert redacted is not None
        assert redacted.query == "SELECT ?, ?, ?"
    finally:
        scene.server.psql("DROP DATABASE old WITH (FORCE)")


def test_within_a_transaction_a_second_look_sees_what_has_changed(scene: Scene) -> None:
    """PostgreSQL keeps what was first seen until the transaction's end."""
    looker, session = scene.session(), scene.session()
    session.run("SELECT 1")
    first = read_server(looker.query, str).backend(session.pid)
    session.raw.rollback()
    second = read_server(looker.query, str).backend(session.pid)
    assert first is not None
    assert second is not None
    assert (first.state, second.state) == ("idle in transaction", "idle")
    session.run("SELECT 1")
    assert terminate(looker.query, **guard(second)).reason == "moved on"


def test_looking_waits_for_no_lock_on_a_table(scene: Scene) -> None:
    holder, waiter = scene.session(), scene.session()
    scene.server.psql("CREATE TABLE locked ()", DATABASE)
    try:
        set_up(scene.look.query)
        holder.run("LOCK TABLE locked")
        waiter.start("SELECT * FROM locked")
        assert shapes(scene.waiting(waiter)) == [[holder.pid, [waiter.pid]]]
        holder.raw.rollback()
        waiter.ended()
        waiter.raw.rollback()
    finally:
        scene.server.psql("DROP TABLE locked", DATABASE)


def test_a_locked_catalogue_is_given_up_on_after_the_time_limit(scene: Scene) -> None:
    holder = scene.session()
    set_up(scene.look.query)
    holder.run("LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE")
    before = time.monotonic()
    with pytest.raises(DRIVER.Error) as raised:
        scene.facts()
    assert DRIVER.sqlstate(raised.value) in ("55P03", "57014")
    assert time.monotonic() - before < 5
    holder.raw.rollback()
    assert scene.facts().problems == ()


def test_loans_are_joined_by_process_id_and_age(databases: Databases) -> None:
    connection = databases.add()

    def query(sql: str, params: Sequence[Any]) -> list[Any]:
        with wrapper(connection.alias).cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    mine = borrow(connection)
    with lent_to_a_thread(connection.alias) as other:
        facts = read_server(query, fingerprint, mine)
        assert not facts.pooler_between
        assert abs(facts.read_at_us / 1e6 - time.time()) < 60
        held = pool_of(wrapper(connection.alias)).connections()
        claims = [Claim(one.server_pid, one.age_s, one.thread or "") for one in held]
        assert set(joined(facts, claims)) == {mine, other}
        assert "ours: holder" in sessions_table(facts, joined(facts, claims))
        # Had they opened a minute sooner, they would have had others of these numbers.
        older = [Claim(one.server_pid, one.age_s + 60, "") for one in held]
        assert joined(facts, older) == {}


def test_without_privileges_blocking_is_seen_and_the_missing_grant_is_named(
    scene: Scene, role: str
) -> None:
    clerk = scene.session(user=role, autocommit=True)
    holder, waiter = scene.session(), scene.session()
    holder.run("SELECT pg_advisory_xact_lock(7)")
    waiter.start("SELECT pg_advisory_xact_lock(7)")
    scene.waiting(waiter)
    facts = read_server(clerk.query, str)
    backend = facts.backend(holder.pid)
    assert backend is not None
    assert backend.hidden
    assert backend.query == ""
    assert (backend.state, backend.backend_start_us, backend.kind) == (None, None, None)
    assert backend.user == scene.server.user  # this much the server tells
    assert shapes(facts) == [[holder.pid, [waiter.pid]]]
    assert "waits" in blocking_text(facts)
    assert "advisory lock 7" in blocking_text(facts)
    [problem] = facts.problems
    assert 'GRANT pg_read_all_stats TO "modest clerk";' in problem
    scene.server.psql(f'GRANT pg_read_all_stats TO "{role}"')
    facts = read_server(clerk.query, str)
    assert facts.problems == ()
    assert shapes(facts) == [[holder.pid, [waiter.pid]]]
    assert not any(b.hidden for b in facts.backends)


@pytest.fixture
def bouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    require(program(), "pgbouncer is missing: 'apt-get install pgbouncer' brings it.")
    with PgBouncer(server, default_pool_size=2) as bouncer:
        yield bouncer


def test_behind_a_pooler_it_is_said_and_the_servers_own_facts_are_shown(
    scene: Scene, bouncer: PgBouncer
) -> None:
    look = scene.session(port=bouncer.port, autocommit=True)
    holder = scene.session(port=bouncer.port, application_name="shop web-3")
    holder.run("SELECT pg_advisory_xact_lock(7)")
    waiter = scene.session()
    waiter.start("SELECT pg_advisory_xact_lock(7)")
    scene.waiting(waiter)
    facts = read_server(look.query, str, look.pid)
    assert facts.pooler_between
    [problem] = facts.problems
    assert "A pooler is in between" in problem
    assert f"process {look.pid}" in problem
    [root] = facts.blocking
    assert [w.who for w in root.waiters] == [waiter.pid]
    backend = facts.backend(root.who)
    assert backend is not None
    assert backend.application_name == "shop web-3"
    assert "idle in transaction" in blocking_text(facts)
    holder.raw.rollback()
    waiter.ended()


def test_a_session_that_is_idle_in_a_transaction_is_ended(scene: Scene) -> None:
    session = scene.session()
    session.run("SELECT 1")
    done = terminate(scene.look.query, **guard(seen(scene, session)))
    assert done == ActionFacts(
        True, "ended", f"Session {session.pid} has ended; what it had not committed is undone."
    )
    assert not alive(scene, session)
    again = terminate(scene.look.query, **guard(seen(scene, scene.look)) | {"pid": session.pid})
    assert (again.done, again.reason) == (False, "gone")


def changed(**more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda guarded: {**guarded, **more}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda g: {**g, "backend_start_us": g["backend_start_us"] - 1}, "reused"),
        (lambda g: {**g, "state_change_us": g["state_change_us"] - 1}, "moved on"),
        (changed(state="idle"), "moved on"),
        (changed(state=None), "moved on"),
        (changed(state_change_us=None), "moved on"),
    ],
)
def test_a_session_that_is_not_the_one_that_was_seen_is_left_alone(
    scene: Scene, change: Callable[[dict[str, Any]], dict[str, Any]], reason: str
) -> None:
    session = scene.session()
    session.run("SELECT 1")
    done = terminate(scene.look.query, **change(guard(seen(scene, session))))
    assert (done.done, done.reason) == (False, reason)
    assert "nothing was done" in done.text
    session.run("SELECT 1")


@pytest.mark.parametrize("action", [terminate, cancel])
def test_a_session_that_has_done_something_since_is_left_alone(
    scene: Scene, action: Callable[..., ActionFacts]
) -> None:
    session = scene.session(autocommit=True)
    session.start("SELECT pg_sleep(30)")
    eventually(lambda: seen(scene, session).state == "active")
    before = guard(seen(scene, session))
    assert cancel(scene.look.query, **before).reason == "cancelled"
    with pytest.raises(DRIVER.Error) as raised:
        session.ended()
    assert DRIVER.sqlstate(raised.value) == "57014"
    # Active again, and so by its state alone the same.
    session.start("SELECT pg_sleep(0.5)")
    eventually(lambda: seen(scene, session).state == "active")
    assert action(scene.look.query, **before).reason == "moved on"
    session.ended()


def test_what_runs_no_statement_is_not_said_to_be_cancelled(scene: Scene) -> None:
    """The server would answer that it did so."""
    session = scene.session()
    session.run("SELECT 1")
    done = cancel(scene.look.query, **guard(seen(scene, session)))
    assert (done.done, done.reason) == (False, "nothing runs")
    assert "idle in transaction" in done.text


def test_who_asks_does_not_end_himself(scene: Scene) -> None:
    done = terminate(scene.look.query, **guard(seen(scene, scene.look)))
    assert (done.done, done.reason) == (False, "own")


def test_the_servers_own_processes_are_no_sessions_to_end(scene: Scene) -> None:
    sql = (
        "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint FROM pg_stat_activity"
        " WHERE backend_type = 'checkpointer'"
    )
    [(pid, started)] = scene.look.query(sql, ())
    done = terminate(
        scene.look.query, pid=pid, backend_start_us=started, state=None, state_change_us=None
    )
    assert (done.done, done.reason) == (False, "no client")


def test_what_a_role_may_not_end_is_said_with_the_grant_that_allows_it(
    scene: Scene, role: str
) -> None:
    server = scene.server
    clerk = scene.session(user=role, autocommit=True)
    server.psql(f"CREATE ROLE victim LOGIN PASSWORD '{server.password}'")
    try:
        session, superuser = scene.session(user="victim"), scene.session()
        for each in (session, superuser):
            each.run("SELECT 1")
        target = guard(seen(scene, session))
        refused = refusals(clerk.query, target)
        assert next(refused) == ("hidden", True)
        server.psql(f'GRANT pg_read_all_stats TO "{role}"')
        assert next(refused) == ("not allowed", True)
        server.psql(f'GRANT pg_signal_backend TO "{role}"')
        done = terminate(clerk.query, **guard(seen(scene, superuser)))
        assert (done.done, done.reason) == (False, "superuser")
        assert terminate(clerk.query, **target).reason == "ended"
        assert alive(scene, superuser)
    finally:
        server.psql("DROP ROLE victim")


def refusals(query: Query, target: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Why the same wish is refused each time, and whether the answer names a GRANT."""
    while True:
        done = terminate(query, **target)
        assert not done.done
        yield done.reason, 'TO "modest clerk";' in done.text


def test_an_own_session_may_be_ended_without_privileges(scene: Scene, role: str) -> None:
    clerk, other = (scene.session(user=role, autocommit=True) for _ in range(2))
    other.run("SELECT 1")
    target = read_server(clerk.query, str).backend(other.pid)
    assert target is not None
    assert terminate(clerk.query, **guard(target)).reason == "ended"


def test_a_driver_sees_that_its_session_was_ended(scene: Scene) -> None:
    session = scene.session()
    session.run("SELECT 1")
    terminate(scene.look.query, **guard(seen(scene, session)))
    with pytest.raises(DATABASE_API.OperationalError):
        session.run("SELECT 1")
    with contextlib.suppress(DATABASE_API.Error):
        session.raw.rollback()
