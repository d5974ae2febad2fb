"""Ending a session, or its statement: only if it is still what somebody saw and decided on."""

from django_psycopg_pooled.facts.server import ActionFacts
from django_psycopg_pooled.server import Query
from django_psycopg_pooled.server.statements import guarded

GONE_WITHIN_MS = 1_000  # below the statement's time limit

_TERMINATE = guarded(f"pg_terminate_backend(f.pid, {GONE_WITHIN_MS})")
_CANCEL = guarded("pg_cancel_backend(f.pid)")

_REFUSED = {
    "gone": "Session {pid} has ended by itself; nothing was done.",
    "own": "Session {pid} is the one that asks; nothing was done.",
    "hidden": "Session {pid} belongs to a role that {role} may not look into, so whether it is"
    " the one that was seen cannot be checked; nothing was done. To allow it:"
    " GRANT pg_read_all_stats, pg_signal_backend TO {role};",
    "reused": "Session {pid} has ended, and another one has its number now; nothing was done.",
    "no client": "Process {pid} is the server's own, no client's session; nothing was done.",
    "moved on": "Session {pid} has done something since it was seen; nothing was done. Look again.",
    "superuser": "Session {pid} is a superuser's, which only a superuser may end; nothing was"
    " done.",
    "not allowed": "Session {pid} is another role's, which {role} may not end; nothing was done."
    " To allow it: GRANT pg_signal_backend TO {role};",
}


def terminate(
    query: Query, *, pid: int, backend_start_us: int, state: str | None, state_change_us: int | None
) -> ActionFacts:
    """End a session if it is the one that was seen and has done nothing since.

    The four are a BackendFacts' own. One round trip, of 1 s at most: so long it waits for the
    session to be gone. Raises what *query* raises.
    """
    [(word, ended, role)] = query(_TERMINATE, (pid, backend_start_us, state, state_change_us))
    if word != "found":
        return _refusal(word, pid, role)
    if ended:
        return ActionFacts(
            True, "ended", f"Session {pid} has ended; what it had not committed is undone."
        )
    return ActionFacts(
        True,
        "told",
        f"Session {pid} was told to end and is still there after {GONE_WITHIN_MS / 1_000:g} s;"
        " it goes as soon as the server comes to it.",
    )


def cancel(
    query: Query, *, pid: int, backend_start_us: int, state: str | None, state_change_us: int | None
) -> ActionFacts:
    """Have the server cancel the statement that was seen running; its transaction stays, failed.

    One round trip. The server does it at the statement's next opportunity, which is not awaited.
    """
    if state != "active":  # the server would say yes, and do nothing
        return ActionFacts(
            False,
            "nothing runs",
            f"Session {pid} runs no statement that could be cancelled: it is"
            f" {state or 'in an unknown state'}. What it holds it keeps until its transaction"
            " ends; to end that, terminate the session.",
        )
    [(word, told, role)] = query(_CANCEL, (pid, backend_start_us, state, state_change_us))
    if word != "found":
        return _refusal(word, pid, role)
    if not told:
        return _refusal("gone", pid, role)
    return ActionFacts(True, "cancelled", f"Session {pid} was told to cancel its statement.")


def _refusal(word: str, pid: int, role: str) -> ActionFacts:
    return ActionFacts(False, word, _REFUSED[word].format(pid=pid, role=role))
