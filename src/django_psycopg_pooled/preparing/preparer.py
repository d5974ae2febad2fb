"""The one who decides, for each execution of a pool's statements, whether it runs prepared."""

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.drivers.preparing import Binding, Plain
from django_psycopg_pooled.facts.prepared import PreparedFacts
from django_psycopg_pooled.forking import restart_in_child
from django_psycopg_pooled.preparing import blocks
from django_psycopg_pooled.preparing.holdings import Held, Holdings
from django_psycopg_pooled.preparing.keeper import Keeper
from django_psycopg_pooled.preparing.plan import (
    MOST_VARIANTS,
    Plan,
    Target,
    Variant,
    Way,
)
from django_psycopg_pooled.preparing.report import facts_of
from django_psycopg_pooled.preparing.texts import closer_objection, objection, placeholders

logger = logging.getLogger(__name__)

PLAIN: Literal["plain"] = "plain"
PREPARED: Literal["prepared"] = "prepared"
MOST_PLANS = 1000  # that are remembered beside the book
DOUBT_AGAIN_S = 0.05
NEVER = float("inf")
CACHE_MODES = ("", "auto", "force_generic_plan", "force_custom_plan")


class Planned(Protocol):
    """A record of the book of statements."""

    sql: str
    effects: int
    plan: Any


class Records(Protocol):
    def records(self) -> Iterable[Planned]: ...


class Preparer:
    """Lives as long as its pool. Any thread; blocks for round trips of execute() only.

    Guards: `_lock` guards adding to `_plans`, `_dropped` and `_off`. Never held with another lock.
    """

    def __init__(
        self,
        binding: Binding,
        *,
        name: str,
        mode: str | bool | None,
        threshold: int = 5,
        prepared_max: int = 100,
        shown: Callable[[str], str],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """A preparer of the pool *name*.

        binding   the driver's
        mode      "auto", "registered", False; None for "auto" if the driver is good at it
        shown     a text as people may see it: without literals
        """
        if mode is None:
            mode = "auto" if binding.by_default else False
        self._binding = binding
        self._keeper = Keeper(binding, prepared_max, clock)
        self._name = name
        self._auto = mode == "auto"
        self._threshold = threshold
        self._shown = shown
        self._now = clock.monotonic
        self._off = not mode
        self._doubted_at = -NEVER
        # Texts that were prepared, denied or registered: a flood of others makes nobody forget it.
        self._plans: dict[str, Plan] = {}
        # How many of them were forgotten. A new plan for such a text must not give the names of the
        # old one, which connections may still hold.
        self._dropped = 0
        self._holdings: weakref.WeakValueDictionary[int, Holdings] = weakref.WeakValueDictionary()
        self._book: Callable[[], Records | None] = _nobody
        self.restart()
        restart_in_child(self)
        impossible = binding.unavailable
        if impossible and not self._off:
            self._off = True
            logger.warning("pool %r prepares no statements: %s", name, impossible)
        blocks.listen(self)

    @property
    def book(self) -> Records | None:
        """Whose records are told when a text gets or loses its plan.

        Not kept alive: it asks us for plans, and a pool must go without the garbage collector.
        """
        return self._book()

    @book.setter
    def book(self, book: Records) -> None:
        self._book = weakref.ref(book)

    def restart(self) -> None:
        """In a child of fork(): locks that no thread of the parent holds."""
        self._lock = threading.Lock()

    @property
    def off(self) -> bool:
        """Whether nothing is prepared."""
        return self._off

    def holdings(self) -> Holdings:
        """For a new connection's session."""
        holdings = Holdings()
        self._holdings[id(holdings)] = holdings
        return holdings

    def plan_for(self, record: Planned) -> Plan | None:
        """How the text of *record* is to be run; None if as it is. Called once a record."""
        if self._off or record.effects or "%s" not in record.sql:
            return None
        sql = record.sql
        known = self._plans.get(sql)
        if known is not None:
            return None if known.way is Way.DENIED else known
        if not self._auto and not blocks.are_used():
            return None
        if objection(sql, registered=False):
            return None
        return self._new_plan(sql, self._threshold if self._auto else NEVER)

    def execute(self, cursor: Any, plain: Plain, plan: Plan, query: Any, params: Any) -> str:
        """Run *query*, whose record has *plan*, in one way or the other; say in which.

        plain   the cursor's execute(query, params) below this one
        """
        kind = type(params)
        if (
            self._off
            or (kind is not tuple and kind is not list)
            or type(query) is bytes  # in an encoding that the record's text may not have survived
            or (plan.way is not Way.PREPARED and not self._turns_to_preparing(plan))
        ):
            return self._as_it_is(plain, plan, query, params)
        bound = self._binding.bind(cursor, query, params)
        if bound is None:
            plain(query, params)
            return PLAIN
        types, values = bound
        variant = plan.variants.get(types) or self._new_variant(plan, types)
        if variant is None:
            return self._as_it_is(plain, plan, query, params)
        holdings: Holdings = cursor.connection._pool_session.prepared
        held = holdings.get(variant)
        if held is None or held.runs is not variant.statement:
            held = self._keeper.ready(cursor, plan, variant, holdings)
            if held is None:
                self._look_for_a_pooler()
                return self._as_it_is(plain, plan, query, params)
        began = self._now()
        try:
            self._binding.run(cursor, plain, query, held.runs, values)
        except Exception as error:
            healed = self._keeper.is_healed(cursor, plan, variant, holdings, error)
            if self._binding.is_outdated_plan(error):
                self._doubt_others(plan)
            if not healed:
                raise
        else:
            now = self._now()
            held.ran(now - began, now)
            holdings.move_to_end(variant)
            return PREPARED
        # Nothing was done, and no transaction is lost: the user sees nothing of it.
        self._look_for_a_pooler()
        plain(query, params)
        if held.runs is not None:
            plan.outdated(variant, held.statement, self._now())
        return PLAIN

    def register(
        self, sql: str, name: str | None = None, plan_cache_mode: str | None = None
    ) -> None:
        """Prepare *sql* from its first execution on: the text that Django executes, with its %s.

        Raises ValueError for an unknown plan_cache_mode.
        """
        if plan_cache_mode not in (None, *CACHE_MODES):
            raise ValueError(
                f"plan_cache_mode is {plan_cache_mode!r}; it must be one of {CACHE_MODES}."
            )
        if self._off:
            return
        target = Target(name or "", plan_cache_mode or "")
        with self._lock:
            plan = self._plans.get(sql)
            if plan is None:
                self._plans[sql] = plan = self._new_plan(sql, 0)
        plan.aim(target)
        if reason := objection(sql, registered=True):
            plan.deny(reason, self._now())
        self._tell_book(sql)

    def bump(self) -> None:
        """The schema may have changed: every statement is prepared anew when it is next used."""
        for plan in list(self._plans.values()):
            plan.bump()

    def _doubt_others(self, stale: Plan) -> None:
        """The schema has changed, so other statements may be stale, too: one error is enough."""
        now = self._now()
        if now - self._doubted_at < DOUBT_AGAIN_S:
            return  # another thread has met the same change
        self._doubted_at = now
        for plan in list(self._plans.values()):
            if plan is not stale:
                plan.bump()

    def report(self) -> list[PreparedFacts]:
        """What is prepared, denied and demoted, most used first. Does not block."""
        held: dict[Plan, list[Held]] = {}
        for reference in self._holdings.valuerefs():
            if (holdings := reference()) is not None:
                for each in holdings.all():
                    held.setdefault(each.plan, []).append(each)
        now = self._now()
        facts = [
            facts_of(plan, held.get(plan, []), self._shown(plan.sql), now)
            for plan in list(self._plans.values())
        ]
        return sorted(facts, key=lambda each: each.hits, reverse=True)

    def blocks_are_used(self) -> None:
        """In mode "registered" every text may be met in a block from now on."""
        if not self._off and not self._auto:
            self._tell_book(None)

    def _new_plan(self, sql: str, threshold: float) -> Plan:
        now = self._now()
        return Plan(sql, self._binding, placeholders(sql), threshold, self._dropped, now)

    def _turns_to_preparing(self, plan: Plan) -> bool:
        """Whether a text that was not prepared until now is from now on."""
        if plan.way is Way.COUNTING:
            if plan.calls < plan.threshold and not blocks.inside():
                return False
            reason = closer_objection(plan.sql)
            if reason:
                plan.deny(reason, self._now())
            if not self._remembers(plan) or reason:
                self._tell_book(plan.sql)
                return False
        return plan.promote(self._now())

    def _remembers(self, plan: Plan) -> bool:
        """Keep *plan* beyond its record; False if another plan of its text is kept already."""
        with self._lock:
            if len(self._plans) >= MOST_PLANS and plan.sql not in self._plans:
                for sql, kept in list(self._plans.items()):
                    if kept.target is None:
                        del self._plans[sql]
                        self._dropped += 1
                        break
            return self._plans.setdefault(plan.sql, plan) is plan

    def _as_it_is(self, plain: Plain, plan: Plan, query: Any, params: Any) -> str:
        waits = plan.way is Way.COUNTING and plan.threshold == NEVER
        if waits or plan.way is Way.DEMOTED or not isinstance(params, list | tuple):
            plain(query, params)
            return PLAIN
        began = self._now()
        plain(query, params)
        now = self._now()
        if doubt := plan.doubt:
            # It can be executed, but not prepared.
            plan.doubt = None
            plan.deny(doubt.reason, now, doubt.sqlstate)
        plan.counted(now - began, now)
        if plan.news:
            self._tell(plan)
        return PLAIN

    def _tell(self, plan: Plan) -> None:
        """It was demoted or denied just now: tell whom it concerns, once."""
        plan.news = False
        # No warning: nothing is asked of anybody, and on a busy machine a verdict may be wrong.
        logger.info(
            "pool %r: a statement runs %s, for %s%s: %s", self._name, plan.way.value, plan.reason,
            plan.sqlstate and f" ({plan.sqlstate})", self._shown(plan.sql),
        )  # fmt: skip
        if plan.way is Way.DENIED:
            self._remembers(plan)
            self._tell_book(plan.sql)

    def _new_variant(self, plan: Plan, types: Any) -> Variant | None:
        if len(types) != plan.placeholders:
            return None  # plain execution says so
        variant = plan.variant(types)
        if variant is None:
            reason = f"it comes with more than {MOST_VARIANTS} combinations of parameter types"
            plan.deny(reason, self._now())
        return variant

    def _look_for_a_pooler(self) -> None:
        """Switch preparing off for good if the keeper has met one."""
        if not self._keeper.is_away:
            return
        with self._lock:
            first, self._off = not self._off, True
        if first:
            self._tell_book(None)
            logger.warning(
                "pool %r prepares no statements from now on: a pooler stands between, and the next"
                ' statement may meet another session. Set pooler="pgbouncer"; to have statements'
                " prepared there too, take psycopg 3, PgBouncer >= 1.21 with"
                ' max_prepared_statements > 0, and prepare="auto".', self._name,
            )  # fmt: skip

    def _tell_book(self, sql: str | None) -> None:
        """Have the records of *sql*, or all, ask for their plans once more."""
        book = self.book
        if book is not None:
            for record in book.records():
                if sql is None or record.sql == sql:
                    record.plan = self.plan_for(record)


def _nobody() -> None:
    return None


class AsItIs:
    """In the place of a Preparer where nothing may run prepared: in a schema editor."""

    def execute(self, cursor: Any, plain: Plain, plan: Any, query: Any, params: Any) -> str:
        plain(query, params)
        return PLAIN


AS_IT_IS = AsItIs()
