"""How one text runs: counted, prepared, tried without, demoted or denied."""

import hashlib
import threading
from enum import Enum
from typing import Any, NamedTuple

from django_psycopg_pooled.drivers.preparing import NAME_PREFIX, Binding, Types
from django_psycopg_pooled.forking import restart_in_child
from django_psycopg_pooled.preparing.figures import Figures, Verdict

MOST_VARIANTS = 4
MOST_ALIASES = 64
RETRY_S = 600.0  # after the first demotion; four times as long after each further one
STRIKES = 3
# So often stale at so short intervals, that it will be again: one schema for each tenant.
STALE_TIMES, STALE_WITHIN_S = 5, 60.0


class Way(Enum):
    """What happens with the next execution. MOVES says what may follow."""

    COUNTING = "not often executed yet"
    PREPARED = "prepared"
    TRIAL = "as it is, to compare"
    DEMOTED = "as it is, until it is tried again"
    DENIED = "as it is"


MOVES = {
    Way.COUNTING: {Way.PREPARED, Way.DENIED},
    Way.PREPARED: {Way.TRIAL, Way.DEMOTED, Way.DENIED},
    Way.TRIAL: {Way.PREPARED, Way.DEMOTED, Way.DENIED},
    Way.DEMOTED: {Way.PREPARED, Way.DENIED},
    Way.DENIED: set(),
}


class Target(NamedTuple):
    """What the user has registered of a text."""

    name: str
    plan_cache_mode: str


class Doubt(NamedTuple):
    """Why a text may be unfit."""

    reason: str
    sqlstate: str


class Variant:
    """A text with one combination of parameter types; lives as long as its plan."""

    __slots__ = ("generation", "proven", "statement", "types", "worked")

    def __init__(self, types: Types, generation: int) -> None:
        self.types = types
        self.generation = generation
        self.statement: Any = None  # the driver's; another object in each generation
        # PREPARE has succeeded once in this process, so that it needs no savepoint; and whether it
        # did so in any generation.
        self.proven = False
        self.worked = False


class Plan:
    """All that preparing knows of one text; lives as long as its record, or as it is of interest.

    Guards: `_lock` guards every move from one way to another, the figures and adding variants.
    On the prepared path nothing of this is written: connections count for themselves and hand
    their figures in, a few executions at once. `way` and `variants` are read without the lock:
    who reads them a moment too late executes once more in the way that was right before.
    """

    def __init__(
        self,
        sql: str,
        binding: Binding,
        placeholders: int,
        threshold: float,
        generation: int,
        now: float,
    ) -> None:
        self.sql = sql
        self.way = Way.COUNTING
        self.placeholders = placeholders
        self.threshold = threshold
        self.target: Target | None = None
        self.calls = 0
        self.reason = ""
        self.sqlstate = ""
        self.since = now
        self.retry_at = 0.0
        self.news = False  # it was demoted or denied, and nobody was told
        # A PREPARE has failed; whether that is its fault, or the text's, execution will show.
        self.doubt: Doubt | None = None
        self.figures = Figures()
        # By the types of parameters; also by such with NULLs, which fit more than one.
        self.variants: dict[Types, Variant] = {}
        self._binding = binding
        self._generation = generation  # of its first variants
        self._strikes = 0
        self._stale_times = 0
        self._stale_at = 0.0
        self.restart()
        restart_in_child(self)

    def restart(self) -> None:
        """In a child of fork(): a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def distinct(self) -> list[Variant]:
        """Its variants, each once."""
        return list(dict.fromkeys(list(self.variants.values())))

    def variant(self, types: Types) -> Variant | None:
        """The one for *types*, new if need be; None if there are too many already."""
        with self._lock:
            found = self.variants.get(types) or self._fitting(types)
            if found is None:
                if len(self.distinct()) >= MOST_VARIANTS:
                    return None
                unknown = self._binding.unknown
                declared = tuple(unknown if kind is None else kind for kind in types)
                found = Variant(declared, self._generation)
                found.statement = self._statement(found)
                self.variants[declared] = found
            if len(self.variants) < MOST_ALIASES:
                self.variants[types] = found
            return found

    def counted(self, elapsed: float, now: float) -> None:
        """It ran as it is, took *elapsed* seconds, and succeeded."""
        with self._lock:
            self.calls += 1
            verdict = self.figures.plain(elapsed, in_trial=self.way is Way.TRIAL)
            if self.way is not Way.TRIAL or verdict is Verdict.OPEN:
                return
            # Critical section: the trial ends, for all threads with the same outcome.
            if verdict is Verdict.WORSE:
                self._demote(self.figures.comparison(), now)
            else:
                self._move(Way.PREPARED, now)
            self.figures.start_window()

    def measured(self, count: int, spent: float, judged: bool, now: float) -> None:
        """One connection has executed it prepared *count* times, in *spent* seconds.

        judged   False for the first ones of a connection, which PostgreSQL plans one by one
        """
        with self._lock:
            suspect = self.figures.prepared(count, spent, judged)
            if suspect and self.way is Way.PREPARED:
                self._move(Way.TRIAL, now)

    def promote(self, now: float) -> bool:
        """Prepare it from now on, if it was not tried yet or it is time to try again.

        True if it is to be prepared.
        """
        with self._lock:
            if self.way is Way.COUNTING or (self.way is Way.DEMOTED and now >= self.retry_at):
                self.figures.start_window()
                self.reason = self.sqlstate = ""
                self._move(Way.PREPARED, now)
            return self.way is Way.PREPARED

    def deny(self, reason: str, now: float, sqlstate: str = "") -> None:
        """Never prepare it."""
        with self._lock:
            self.reason, self.sqlstate = reason, sqlstate
            if self.way is not Way.DENIED:
                self._move(Way.DENIED, now)

    def aim(self, target: Target) -> None:
        """The user has registered it: no counting any more."""
        with self._lock:
            self.target = target
            self.threshold = 0
            for variant in self.distinct():
                self._renew(variant)

    def bump(self) -> None:
        """The schema may have changed: prepare it anew everywhere, under another name."""
        with self._lock:
            for variant in self.distinct():
                self._renew(variant)

    def outdated(self, variant: Variant, statement: Any, now: float) -> None:
        """*statement*, which is that of *variant* unless somebody has said so before, is stale."""
        with self._lock:
            if variant.statement is not statement:
                return
            # Critical section: of all threads that meet the same stale statement one gets here.
            for each in self.distinct():
                self._renew(each)
            again = now - self._stale_at < STALE_WITHIN_S
            self._stale_times = self._stale_times + 1 if again else 1
            self._stale_at = now
            if self._stale_times >= STALE_TIMES and self.way in (Way.PREPARED, Way.TRIAL):
                self._stale_times = 0
                self._demote("its tables change again and again", now)

    def _renew(self, variant: Variant) -> None:
        variant.generation += 1
        variant.proven = False
        variant.statement = self._statement(variant)

    def _statement(self, variant: Variant) -> Any:
        mode = self.target.plan_cache_mode if self.target else ""
        content = repr((self.sql, variant.types, variant.generation))
        digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=12)
        name = f"{NAME_PREFIX}{digest.hexdigest()}"
        return self._binding.statement(name, self.sql, variant.types, mode)

    def _fitting(self, types: Types) -> Variant | None:
        """A variant that *types*, some of them NULL's, do fit."""
        if None not in types:
            return None
        for variant in self.distinct():
            pairs = zip(variant.types, types, strict=True)
            if all(have == kind or kind is None for have, kind in pairs):
                return variant
        return None

    def _demote(self, reason: str, now: float) -> None:
        self._strikes += 1
        self.reason = reason
        if self._strikes >= STRIKES:
            self._move(Way.DENIED, now)
        else:
            self.retry_at = now + RETRY_S * 4.0 ** (self._strikes - 1)
            self._move(Way.DEMOTED, now)

    def _move(self, way: Way, now: float) -> None:
        if way not in MOVES[self.way]:
            raise AssertionError(f"a plan does not go from {self.way.name} to {way.name}")
        self.way = way
        self.news = way in (Way.DEMOTED, Way.DENIED)
        if way is not Way.TRIAL:
            self.since = now
