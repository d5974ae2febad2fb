"""Which of the server's sessions are loans: a number alone does not tell, it is used again."""

from dataclasses import MISSING, fields
from typing import Any

import pytest

from django_psycopg_pooled.facts.server import BackendFacts, ServerFacts
from django_psycopg_pooled.server.joining import Claim, joined

NOW_S = 1_000.0


def session(pid: int, began_s: float | None) -> BackendFacts:
    """A session of which little else is known."""
    known: dict[str, Any] = {
        field.name: None for field in fields(BackendFacts) if field.default is MISSING
    }
    start = None if began_s is None else int(began_s * 1e6)
    return BackendFacts(**{**known, "pid": pid, "backend_start_us": start})


def server(*sessions: BackendFacts, **more: Any) -> ServerFacts:
    return ServerFacts(1, "shop", "18", int(NOW_S * 1e6), sessions, (), (), (), **more)


def claim(pid: int | None, age_s: float) -> Claim[str]:
    return Claim(pid, age_s, f"the loan of {pid}")


@pytest.mark.parametrize(
    ("age_s", "is_it"),
    [
        (0.0, True),  # its process had it a while after it began: it was slow to connect
        (39.9, True),
        (40.9, True),  # within the slack
        (41.1, False),  # older than the session: it had another one of that number
    ],
)
def test_a_session_that_began_after_our_connection_is_another_ones(
    age_s: float, is_it: bool
) -> None:
    found = joined(server(session(7, NOW_S - 40)), [claim(7, age_s)])
    assert found == ({7: "the loan of 7"} if is_it else {})


def test_a_process_that_answers_late_has_grown_older_meanwhile() -> None:
    facts, late = server(session(7, NOW_S - 40)), [claim(7, 46.0)]
    assert joined(facts, late) == {}
    assert joined(facts, late, late_s=6.0) == {7: "the loan of 7"}


def test_a_session_that_hides_its_age_is_taken_for_ours() -> None:
    assert joined(server(session(7, None)), [claim(7, 9_999.0)]) == {7: "the loan of 7"}


def test_who_has_no_session_there_is_left_out() -> None:
    facts = server(session(7, 0.0), session(9, 0.0))
    claims = [claim(8, 1.0), claim(None, 0.0), claim(9, 1.0)]
    assert joined(facts, claims) == {9: "the loan of 9"}


def test_behind_a_pooler_numbers_are_not_the_servers() -> None:
    assert joined(server(session(7, 0.0), pooler_between=True), [claim(7, 1.0)]) == {}
