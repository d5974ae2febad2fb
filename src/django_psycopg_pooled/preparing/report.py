"""What is known of prepared statements, as facts."""

from collections.abc import Sequence

from django_psycopg_pooled.facts.prepared import PreparedFacts, PreparedState
from django_psycopg_pooled.preparing.holdings import Held
from django_psycopg_pooled.preparing.plan import Plan, Way

_STATES: dict[Way, PreparedState] = {
    Way.COUNTING: "hot",
    Way.PREPARED: "prepared",
    Way.TRIAL: "prepared",
    Way.DEMOTED: "demoted",
    Way.DENIED: "denied",
}


def facts_of(plan: Plan, held: Sequence[Held], text: str, now: float) -> PreparedFacts:
    """Facts about *plan*, which connections hold as *held*.

    Executions of a connection that has gone since it last handed in its figures are missing: seven
    at the most for each.
    """
    figures = plan.figures
    hits, spent = figures.prepared_count, figures.prepared_spent
    for each in held:
        count, seconds = each.unknown
        hits, spent = hits + count, spent + seconds
    worked = [variant for variant in plan.distinct() if variant.worked]
    state = _STATES[plan.way]
    if state == "prepared" and not worked:
        state = "hot"
    return PreparedFacts(
        text=text,
        name=plan.target.name if plan.target else "",
        state=state,
        reason=plan.reason,
        sqlstate=plan.sqlstate,
        variants=len(worked),
        hits=hits,
        connections=sum(each.hits > 0 for each in held),
        plain_mean_s=figures.plain_mean,
        prepared_mean_s=spent / hits if hits else None,
        since_s=now - plan.since,
    )
