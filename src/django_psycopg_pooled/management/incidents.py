"""pools incidents: what was seen when something went wrong, of all processes."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from django_psycopg_pooled.management.fleet import Choice, Facts, ask
from django_psycopg_pooled.management.result import Result
from django_psycopg_pooled.management.status import wrong_lines
from django_psycopg_pooled.management.text import Width, cut, printable, wrapped
from django_psycopg_pooled.tables.pool import duration

LOANS = 3  # of one incident; the rest is in the JSON


def incidents(choice: Choice, width: Width) -> Result:
    """The latest first."""
    fleet = ask("incidents", choice)
    silent = wrong_lines(fleet.failures(), width)
    told = [
        {"process": process, **incident}
        for process, pool in fleet.pools()
        for incident in pool["incidents"]
    ]
    told.sort(key=lambda incident: -float(incident["at"]))
    facts = {"incidents": told, "errors": fleet.as_json()["errors"]}
    # Not wrong for an incident: those are kept as long as the process lives.
    return Result([*incident_lines(told, width), *silent], facts, wrong=bool(fleet.errors))


def incident_lines(told: Sequence[Facts], width: Width) -> list[str]:
    """Some lines each:

    2026-11-23 14:02:11  pool timeout: process 4711 gunicorn, pool default
      10 of 10 lent, 0 idle; 7 requests wait
      41.2 s  POST /checkout  shop/payment.py:41 in charge
      server: 3 sessions wait for locks
    """
    if not told:
        return ["Nothing has gone wrong since these processes began."]
    lines = []
    for incident in told:
        lines += ["", *(cut(printable(line), width) for line in _about(incident))]
        if incident["problem"]:
            lines += wrapped(f"server: {incident['problem']}", width, first="  ")
    return lines[1:]


def _about(incident: Facts) -> Iterator[str]:
    process, pool, server = incident["process"], incident["pool"], incident["server"]
    when = datetime.fromtimestamp(incident["at"]).isoformat(" ", "seconds")
    title = f"{when}  {incident['kind']}: process {process['pid']} {process['program']}"
    yield f"{title}, pool {pool['name']}"
    lent = [c for c in pool["connections"] if c["state"] == "lent"]
    idle = sum(c["state"] == "idle" for c in pool["connections"])
    waiting = pool["requests_waiting"]
    requests = "1 request waits" if waiting == 1 else f"{waiting} requests wait"
    yield f"  {len(lent)} of {pool['max_size']} lent, {idle} idle; {requests}"
    for loan in sorted(lent, key=lambda loan: -float(loan["in_state_s"]))[:LOANS]:
        place = loan["now_at"] or loan["last_statement_at"] or loan["borrowed_at"]
        who = loan["label"] or loan["thread"] or ""
        yield f"  {duration(loan['in_state_s']):>8}  {who}  {place}"
    if server is not None:
        count = sum(backend["waits_for"] is not None for backend in server["backends"])
        sessions = "1 session waits" if count == 1 else f"{count or 'no'} sessions wait"
        yield f"  server: {sessions} for locks"
