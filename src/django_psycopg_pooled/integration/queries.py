"""What users see of a pool's statements: the most costly, slow ones as they happen, a report."""

import logging
import math
import threading
import weakref
from types import CodeType
from typing import Any

from django_psycopg_pooled.clock import SYSTEM_CLOCK, Clock
from django_psycopg_pooled.facts.queries import QueryFacts
from django_psycopg_pooled.forking import restart_in_child
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.statements.figures import RANKS
from django_psycopg_pooled.statements.fingerprint import fingerprint
from django_psycopg_pooled.statements.journal import Execution, Journal
from django_psycopg_pooled.stats.histogram import Histogram
from django_psycopg_pooled.tables.queries import query_json, query_table, short_duration
from django_psycopg_pooled.tracking import stacks

logger = logging.getLogger("django_psycopg_pooled.queries")

REPORTED = 10
SLOW_AGAIN = 10.0  # seconds in which a statement is reported as slow once
_KNOWN_SLOW = 1000  # statements; when there are more, they may be reported again sooner


class Queries:
    """`pool.queries`: the statements of one pool; lives as long as it.

    Any thread. Nothing blocks but for another thread's counting of some hundred executions.
    No literal and no parameter is in anything that is returned or logged.

    Guards: `_lock` guards `_reported_at`, `_more` and `_report_due`. Nothing is logged under it.
    """

    def __init__(
        self, name: str, journal: Journal | None, options: PoolOptions, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """*journal* is None if the option track_queries says so."""
        self._name = name
        self._journal = journal
        self._clock = clock
        self._logging = threading.local()
        self._threshold = self._trace_over = self._interval = math.inf
        self._trace_until = -math.inf
        self.restart()
        restart_in_child(self)
        self.apply(options)
        if journal is not None:
            # Weakly, so that a pool that nobody needs goes without the garbage collector.
            me = weakref.ref(self)
            journal.slow = lambda execution, stack: _if_there(me, "_executed", execution, stack)
            journal.after_fold = lambda: _if_there(me, "report_if_due")

    def restart(self) -> None:
        """In a child of fork(): a lock that nobody holds; the journal begins anew, too."""
        self._lock = threading.Lock()
        self._since = self._clock.monotonic()
        self._report_due = self._since + self._interval
        self._reported_at: dict[str, float] = {}
        self._more: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Queries of {self._name!r}>"

    # ---- what they cost

    def top(self, n: int = 20, by: str = "total_time") -> list[QueryFacts]:
        """The *n* statements that have most of total_time, calls, mean, p95, rows, errors or
        n_plus_one since the last reset; without those that have none of it.

        Empty with track_queries=False. Raises ValueError for any other *by*, and for an *n* that
        is no count. Worst case: some 10 ms, when 2,000 statements are known.
        """
        return [facts for facts, _ in self.top_with_durations(n, by)]

    def top_with_durations(self, n: int, by: str) -> list[tuple[QueryFacts, Histogram]]:
        """top(), each with how long its executions took, to be merged with other processes'."""
        if by not in RANKS:
            raise ValueError(f"by is {by!r}; it must be one of {', '.join(RANKS)}.")
        if type(n) is not int or n < 0:
            raise ValueError(f"n is {n!r}; it must be a whole number from 0.")
        if self._journal is None:
            return []
        rank = RANKS[by]
        families = [family for family in self._journal.families() if rank(family)]
        families.sort(key=rank, reverse=True)
        return [(family.facts(_place), family.durations) for family in families[:n]]

    def as_table(self, n: int = 20, by: str = "total_time") -> str:
        """top() as a table of 80 columns, for people."""
        found = self.top(n, by)
        if self._journal is None:
            return f"Pool {self._name!r}: statements are not counted; see the option track_queries"
        return query_table(self._name, by, self._clock.monotonic() - self._since, found)

    def as_json(self, n: int = 20, by: str = "total_time") -> str:
        """top() as JSON: {"pool": name, "statements": [...]}, with the fields of QueryFacts."""
        return query_json(self._name, self.top(n, by))

    def count(self) -> None:
        """Count what waits to be counted, and log the report if it is due. Does not block."""
        if self._journal is not None:
            self._journal.fold()

    def reset(self) -> None:
        """Count from nothing again."""
        self._since = self._clock.monotonic()
        with self._lock:
            self._reported_at.clear()
            self._more.clear()
        if self._journal is not None:
            self._journal.reset()

    # ---- the log

    def trace(self, seconds: float, threshold: float = 0.0) -> None:
        """Log every statement of this process for so long, at level INFO. It ends by itself.

        threshold   only those that take so many seconds or longer

        A second call takes the first one's place; trace(0) ends it. Raises ValueError for what is
        no such number, and changes nothing then.
        """
        for name, given in (("seconds", seconds), ("threshold", threshold)):
            if type(given) not in (int, float) or not given >= 0:  # nor is nan
                raise ValueError(f"{name} is {given!r}; it must be a number of seconds from 0.")
        self._trace_over = threshold
        self._trace_until = self._clock.monotonic() + seconds
        self._listen()

    def apply(self, options: PoolOptions) -> None:
        """Take over what the options say now. Does not block."""
        self._threshold = options.slow_query_threshold or math.inf
        interval = options.query_report_interval or math.inf
        if interval != self._interval:
            self._interval = interval
            self._report_due = self._clock.monotonic() + interval
        if self._journal is not None:
            self._journal.n_plus_one = options.n_plus_one_threshold
        self._listen()

    def report_if_due(self) -> None:
        """Log the report, if it is time. Called by who has counted statements: see Journal.

        Never raises.
        """
        now = self._clock.monotonic()
        if now < self._report_due:
            return
        with self._lock:
            # Critical section: whoever moves the time is the one that reports.
            if now < self._report_due:
                return
            self._report_due = now + self._interval
        self._log(logging.INFO, "%s", self.as_table, REPORTED)

    def _listen(self) -> None:
        """Have the journal tell of statements that somebody wants to hear of, and of no others."""
        if self._journal is not None:
            tracing = self._clock.monotonic() < self._trace_until
            self._journal.slow_after = min(
                self._threshold, self._trace_over if tracing else math.inf
            )

    def _executed(self, execution: Execution, stack: Any) -> None:
        """The journal's `slow`: in the thread of the statement, behind it. Never raises."""
        if self._clock.monotonic() >= self._trace_until:
            self._listen()  # the trace is over
        elif execution.elapsed >= self._trace_over:
            self._log(logging.INFO, "%s", self._said, "trace", execution, stack)
        if execution.elapsed >= self._threshold:
            self._log(logging.WARNING, "%s", self._slow, execution, stack)

    def _slow(self, execution: Execution, stack: Any) -> str | None:
        text = fingerprint(execution.record.sql)
        now = self._clock.monotonic()
        with self._lock:
            # Critical section: a statement that is slow a thousand times is one line of the log.
            if now < self._reported_at.get(text, -math.inf) + SLOW_AGAIN:
                self._more[text] = self._more.get(text, 0) + 1
                return None
            if len(self._reported_at) >= _KNOWN_SLOW:
                self._reported_at.clear()
                self._more.clear()
            self._reported_at[text] = now
            more = self._more.pop(text, 0)
        said = self._said(f"slow, above {short_duration(self._threshold)}", execution, stack)
        return f"{said} ({more} more of it since it was last logged)" if more else said

    def _said(self, why: str, execution: Execution, stack: Any) -> str:
        work = execution.work
        return (
            f"pool {self._name!r}: {why}: {short_duration(execution.elapsed)}"
            + (f", {execution.sqlstate}" if execution.sqlstate else "")
            + f", at {stacks.place(stack)}"
            + (f", in {work.text}" if work is not None else "")
            + f": {fingerprint(execution.record.sql)}"
        )

    def _log(self, level: int, form: str, say: Any, *arguments: Any) -> None:
        """Log what *say* returns. A handler that executes statements itself hears of none."""
        if getattr(self._logging, "now", False):
            return
        self._logging.now = True
        try:
            if logger.isEnabledFor(level) and (said := say(*arguments)) is not None:
                logger.log(level, form, said)
        except Exception as error:
            # Whoever runs a statement must not fail for this. And if the statement itself has
            # failed just now, the text of its error has parameters in it.
            error.__context__ = None
            logger.exception("pool %r: could not tell of its statements", self._name)
        finally:
            self._logging.now = False


def _if_there(ref: "weakref.ref[Queries]", method: str, *arguments: Any) -> None:
    queries = ref()
    if queries is not None:
        getattr(queries, method)(*arguments)


def _place(line: tuple[CodeType, int]) -> str:
    return stacks.place([line])
