"""The pools of all processes, a line each, and what is wrong with them."""

from collections.abc import Iterable, Iterator

from django_psycopg_pooled.management.fleet import Facts, Fleet
from django_psycopg_pooled.management.result import Result
from django_psycopg_pooled.management.text import Width, sentence, table, wrapped
from django_psycopg_pooled.tables.pool import duration

HEADER = ("pid", "program", "pool", "lent", "idle", "size", "waiting", "longest", "up")
LEFT = (1, 2)
WRONG = "! "  # before each line that tells of something wrong


def status_result(fleet: Fleet, width: Width) -> Result:
    """All pools, and what is wrong with them."""
    found = problems(fleet)
    facts = {**fleet.as_json(), "problems": found}
    return Result(status_lines(fleet, width), facts, wrong=bool(found))


def status_lines(fleet: Fleet, width: Width) -> list[str]:
    """The table, and under it what problems() tells.

        pid  program   pool     lent  idle  size  waiting  longest   up
       4711  gunicorn  default    10     0  10/10       7   41.2 s  2 h

    ! 4711 default: 7 requests wait, and all 10 connections are lent.
    """
    lines = table([HEADER, *(_row(*found) for found in fleet.pools())], width, left=LEFT)
    wrong = wrong_lines(problems(fleet), width)
    return [*lines, "", *wrong] if wrong else lines


def wrong_lines(sentences: Iterable[str], width: Width) -> list[str]:
    """Each sentence behind the mark of what is wrong."""
    return [line for text in sentences for line in wrapped(text, width, first=WRONG)]


def problems(fleet: Fleet) -> list[str]:
    """What somebody should look at, a sentence each."""
    found = fleet.failures()
    for process, pool in fleet.pools():
        about = f"{process['pid']} {pool['name']}"
        found += [sentence(f"{about}: {text}") for text in _problems(pool)]
    return found


def _problems(pool: Facts) -> Iterator[str]:
    waiting, lent = pool["requests_waiting"], _count(pool, "lent")
    if pool["paused"]:
        yield f"paused; {_requests(waiting)} until manage.py pools resume"
    elif waiting and lent >= pool["max_size"]:
        yield f"{_requests(waiting)}, and all {lent} connections are lent"
    elif waiting:
        yield f"{_requests(waiting)} for connects"
    if pool["last_failure"]:
        ago = duration(pool["last_failure_ago_s"] or 0.0)
        yield f"the last connect failed {ago} ago: {' '.join(pool['last_failure'].split())}"


def _requests(count: int) -> str:
    return "1 request waits" if count == 1 else f"{count} requests wait"


def _row(process: Facts, pool: Facts) -> tuple[str, ...]:
    connections = pool["connections"]
    lent = [c["in_state_s"] for c in connections if c["state"] == "lent"]
    return (
        str(process["pid"]),
        process["program"],
        pool["name"],
        str(len(lent)),
        str(_count(pool, "idle")),
        f"{len(connections)}/{pool['max_size']}",
        str(pool["requests_waiting"]),
        duration(max(lent)) if lent else "",
        duration(process["uptime_s"]),
    )


def _count(pool: Facts, state: str) -> int:
    return sum(c["state"] == state for c in pool["connections"])
