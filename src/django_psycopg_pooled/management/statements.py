"""pools queries and pools prepared: the statements of all processes together."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from django_psycopg_pooled.facts.prepared import PreparedFacts
from django_psycopg_pooled.facts.queries import CallerShare, QueryFacts
from django_psycopg_pooled.management.fleet import Choice, Facts, Fleet, ask
from django_psycopg_pooled.management.percentiles import Percentiles
from django_psycopg_pooled.management.result import Result
from django_psycopg_pooled.management.status import wrong_lines
from django_psycopg_pooled.management.text import Width, table, wrapped
from django_psycopg_pooled.tables.queries import query_table, short_duration

# How two processes' figures become one, by field; the texts are the same.
SUMS = (
    "calls", "errors", "rows", "total_s", "waited_s", "plain_calls", "prepared_calls", "n_plus_one",
)  # fmt: skip
MOSTS = ("max_s", "n_plus_one_most", "last_seen")  # percentiles: see Percentiles
LEASTS = ("min_s", "first_seen")
RANKED_BY = {"total_time": "total_s", "mean": "mean_s", "p95": "p95_s"}  # else as the field
UP_TO = "<=: a process of an older version has told too little; that much at most."
LINES = 2  # of a statement's text on a terminal
MANY = 10  # times as many are asked of each process: what is rare in one may be frequent in all

T = TypeVar("T")


def queries(choice: Choice, count: int, by: str, width: Width) -> Result:
    """The statements that have most of *by*, as RANKS names it."""
    fleet = ask("queries", choice, n=count * MANY, by=by)
    told = [statement for _, pool in fleet.pools() for statement in pool["statements"]]
    most, at_most = together(told, by, count)
    text = query_table(_names(fleet), by, _longest(fleet), most, at_most, width=width)
    lines = text.splitlines()
    if len(fleet.processes) > 1:
        lines += ["", f"Of {len(fleet.processes)} processes."]
    if at_most:
        lines += ["", *wrapped(UP_TO, width)]
    statements = [{**asdict(one), "percentiles_at_most": one.text in at_most} for one in most]
    facts = {"statements": statements, "errors": fleet.as_json()["errors"]}
    silent = wrong_lines(fleet.failures(), width)
    return Result([*lines, *silent], facts, wrong=bool(fleet.errors))


def together(told: Iterable[Facts], by: str, count: int) -> tuple[list[QueryFacts], frozenset[str]]:
    """What several pools *told* of their statements as one, those first that have most of *by*.

    And the texts of those of which it is only known what their percentiles are at most.
    """
    found: dict[str, QueryFacts] = {}
    percentiles: dict[str, Percentiles] = {}
    for statement in told:
        facts = _query_facts(statement)
        known = found.get(facts.text)
        found[facts.text] = _merged(known, facts) if known else facts
        percentiles.setdefault(facts.text, Percentiles()).add(facts, statement.get("durations"))
    whole = [percentiles[text].of(facts) for text, facts in found.items()]
    field = RANKED_BY.get(by, by)
    most = sorted(whole, key=lambda facts: -getattr(facts, field))[:count]
    return most, frozenset(facts.text for facts in most if percentiles[facts.text].at_most)


def prepared(choice: Choice, width: Width) -> Result:
    """What is prepared, denied and demoted, and why."""
    fleet = ask("prepared", choice)
    found: dict[tuple[str, str], PreparedFacts] = {}
    for _, pool in fleet.pools():
        for statement in pool["prepared"]:
            facts = _read(PreparedFacts, statement)
            known = found.get((facts.text, facts.state))
            found[facts.text, facts.state] = _both(known, facts) if known else facts
    most = sorted(found.values(), key=lambda facts: -facts.hits)
    told = {"prepared": list(map(asdict, most)), "errors": fleet.as_json()["errors"]}
    lines = [*prepared_lines(most, width), *wrong_lines(fleet.failures(), width)]
    return Result(lines, told, wrong=bool(fleet.errors))


def prepared_lines(found: Sequence[PreparedFacts], width: Width) -> list[str]:
    """A line of figures each, its text, and why it is denied or demoted.

    state     hits  connections    plain  prepared
    prepared   812            4  10.2 ms    1.1 ms
      SELECT ... FROM "shop_order" WHERE "shop_order"."id" = %s
    """
    if not found:
        return ["No statement is prepared, denied or demoted; see the option prepare."]
    header = ("state", "hits", "connections", "plain", "prepared")
    figures = [
        (
            facts.state,
            f"{facts.hits:,}",
            str(facts.connections),
            _mean(facts.plain_mean_s),
            _mean(facts.prepared_mean_s),
        )
        for facts in found
    ]
    first, *rows = table([header, *figures], width, left=(0,))
    lines = [first]
    for row, facts in zip(rows, found, strict=True):
        lines.append(row)
        name = f"{facts.name}: " if facts.name else ""
        lines += wrapped(name + facts.text, width, first="  ", most=LINES)
        if facts.reason:
            code = f" ({facts.sqlstate})" if facts.sqlstate else ""
            lines += wrapped(f"because {facts.reason}{code}", width, first="  ")
    return lines


def _mean(seconds: float | None) -> str:
    return "" if seconds is None else short_duration(seconds)


def _merged(one: QueryFacts, other: QueryFacts) -> QueryFacts:
    changes: dict[str, Any] = {}
    for names, of in ((SUMS, sum), (MOSTS, max), (LEASTS, min)):
        for name in names:
            changes[name] = of((getattr(one, name), getattr(other, name)))
    errors = dict(one.errors_by_sqlstate)
    for code, times in other.errors_by_sqlstate.items():
        errors[code] = errors.get(code, 0) + times
    calls = changes["calls"]
    return replace(
        one,
        **changes,
        mean_s=_weighted((one.mean_s, one.calls), (other.mean_s, other.calls)),
        plain_mean_s=_weighted(
            (one.plain_mean_s, one.plain_calls), (other.plain_mean_s, other.plain_calls)
        ),
        prepared_mean_s=_weighted(
            (one.prepared_mean_s, one.prepared_calls), (other.prepared_mean_s, other.prepared_calls)
        ),
        errors_by_sqlstate=errors,
        callers=_shares((*one.callers, *other.callers), calls),
        works=_shares((*one.works, *other.works), calls),
    )


def _both(one: PreparedFacts, other: PreparedFacts) -> PreparedFacts:
    return replace(
        one,
        hits=one.hits + other.hits,
        connections=one.connections + other.connections,
        variants=max(one.variants, other.variants),
        since_s=max(one.since_s, other.since_s),
        prepared_mean_s=_weighted(
            (one.prepared_mean_s or 0.0, one.hits), (other.prepared_mean_s or 0.0, other.hits)
        )
        or None,
    )


def _weighted(*means: tuple[float, int]) -> float:
    count = sum(times for _, times in means)
    return sum(mean * times for mean, times in means) / count if count else 0.0


def _shares(shares: Iterable[CallerShare], calls: int) -> tuple[CallerShare, ...]:
    times: dict[str, int] = {}
    for share in shares:
        times[share.text] = times.get(share.text, 0) + share.calls
    most = sorted(times.items(), key=lambda known: -known[1])
    return tuple(CallerShare(text, n, min(1.0, n / calls)) for text, n in most)


def _query_facts(statement: Facts) -> QueryFacts:
    facts = _read(QueryFacts, statement)
    callers, works = (
        tuple(_read(CallerShare, share) for share in statement[name])
        for name in ("callers", "works")
    )
    return replace(facts, callers=callers, works=works)


def _read(kind: type[T], facts: Facts) -> T:
    """Facts as they were before they became JSON; a later version's new ones are left out."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in facts.items() if name in known})


def _names(fleet: Fleet) -> str:
    return ", ".join(sorted({pool["name"] for _, pool in fleet.pools()}))


def _longest(fleet: Fleet) -> float:
    return max((float(process["uptime_s"]) for process, _ in fleet.pools()), default=0.0)
