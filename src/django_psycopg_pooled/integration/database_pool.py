"""The pool of one of Django's databases: a Pool that knows statements, too."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections

from django_psycopg_pooled.execution.statements import Statements
from django_psycopg_pooled.facts.incidents import Incident
from django_psycopg_pooled.facts.pool import ConnectionSnapshot
from django_psycopg_pooled.facts.prepared import PreparedFacts
from django_psycopg_pooled.facts.server import ServerFacts
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.events import Events
from django_psycopg_pooled.integration.inspection import ask_server, in_words
from django_psycopg_pooled.integration.observer import OBSERVER
from django_psycopg_pooled.integration.queries import Queries
from django_psycopg_pooled.integration.sessions import Sessions
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.pool.texts import idle_report
from django_psycopg_pooled.preparing.preparer import Preparer
from django_psycopg_pooled.runtime.protocol import Task
from django_psycopg_pooled.tables.server import blocking_text

if TYPE_CHECKING:
    from django.db.models import QuerySet


class DatabasePool(Pool):
    """`pools["default"]`, or `connection.pool`; lives as a Pool does.

    Source: add_prepare_target() and its arguments are Kääriäinen's, 2012.
    """

    def __init__(
        self, name: str, sessions: Sessions, statements: Statements, options: PoolOptions
    ) -> None:
        self._events = events = Events()
        super().__init__(
            name, sessions.open, DRIVER, options,
            restorer=sessions.restorer, observer=OBSERVER, listener=events,
        )  # fmt: skip
        events.belong_to(self)
        self._statements = statements
        # What statements have cost, and the log of slow ones.
        self.queries = Queries(name, statements.journal, options)
        if statements.journal is not None and options.num_workers:
            statements.journal.in_background = _in_background(self)

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Keep this thread's connection through the with block, where release="transaction".

        For several statements that must run in one session without a transaction. Blocks may be
        nested; after the outermost the connection goes back, if nothing else keeps it.
        """
        try:
            with super().pin():
                yield
        finally:
            mine: Iterable[Any] = connections.all(initialized_only=True)
            for wrapper in mine:
                if getattr(wrapper, "_lender", None) is self:
                    wrapper._release()

    def configure(self, **changes: object) -> None:
        """Pool.configure(); also of what is counted and logged of statements."""
        super().configure(**changes)
        self.queries.apply(self.options)

    def add_prepare_target(
        self,
        statement: "QuerySet[Any] | str",
        name: str | None = None,
        plan_cache_mode: str | None = None,
    ) -> None:
        """Prepare *statement* from its first execution on, whenever it is executed.

        statement         a queryset, whose SQL counts and not its parameters, or SQL with %s
        name              for the report of prepared()
        plan_cache_mode   PostgreSQL's setting for this statement alone; None for the session's

        Does nothing where the option `prepare` is False, or behind a pooler. Any thread; does not
        block. Raises ValueError for an unknown plan_cache_mode, and for a queryset that is known
        to be empty; TypeError for a *statement* that is neither.
        """
        sql = statement if isinstance(statement, str) else self._sql_of(statement)
        self._statements.preparer.register(sql, name, plan_cache_mode)

    def prepared(self) -> list[PreparedFacts]:
        """What is prepared, denied and demoted, and why; the most used first. Does not block."""
        return self._statements.preparer.report()

    def connections(self) -> tuple[ConnectionSnapshot, ...]:
        """The connections as they are now, with the lines of code of those that are lent."""
        return self.snapshot().connections

    def idle_in_transaction(self, older_than: float = 3.0) -> list[ConnectionSnapshot]:
        """The loans that have done nothing in their transaction for so many seconds, longest first.

        Any thread; does not block.
        """
        found = [
            (quiet, connection)
            for connection in self.connections()
            if (connection.activity or "").startswith("idle in transaction")
            and (quiet := _quiet_s(connection)) is not None
            and quiet >= older_than
        ]
        return [connection for _, connection in sorted(found, key=lambda pair: -pair[0])]

    def idle_in_tx_stacks(self, older_than: float = 0.0) -> str:
        """Who is idle in a transaction, since when, and where in Python: text for people."""
        found = self.idle_in_transaction(older_than)
        reports = [idle_report(self.name, each, _quiet_s(each) or 0.0) for each in found]
        return "\n\n".join(reports) or f"pool {self.name!r}: nothing is idle in a transaction"

    def server(self) -> ServerFacts:
        """All sessions of the server as it sees them, and who blocks whom.

        By a connection beside the slots. Blocks for a connect and two round trips; raises what
        the driver raises.
        """
        return ask_server(self)[0]

    def blocking(self) -> str:
        """Who blocks whom on the server, with the lines of code of this pool's: text for people.

        Blocks and raises as server() does.
        """
        facts, loans = ask_server(self)
        return blocking_text(facts, in_words(loans))

    def incidents(self) -> list[Incident]:
        """What was seen when something went wrong, the latest first; ten at most.

        Kept at the first PoolTimeout, and at the first transaction that is idle while others wait
        for it; each kind once a minute.
        """
        return list(self._events.incidents.kept)[::-1]

    @property
    def preparer(self) -> Preparer:
        """Who decides which statements run prepared."""
        return self._statements.preparer

    def forget_plans(self) -> None:
        """Prepare every statement anew when it is next used: the schema may have changed."""
        self._statements.preparer.bump()

    def _sql_of(self, queryset: "QuerySet[Any]") -> str:
        if not hasattr(queryset, "query"):
            raise TypeError(f"statement is {queryset!r}; it must be a queryset, or SQL with %s.")
        try:
            sql, _ = queryset.query.get_compiler(queryset.db).as_sql()
        except EmptyResultSet:
            raise ValueError(
                "the queryset finds nothing whatever the database holds, so it has no SQL to be"
                " prepared; take one that has."
            ) from None
        return str(sql)


def _in_background(pool: DatabasePool) -> Callable[[Task], None]:
    """pool.in_background(), without keeping the pool, which has the journal that keeps this."""
    ref = weakref.ref(pool)

    def in_background(task: Task) -> None:
        pool = ref()
        if pool is None:
            task()
        else:
            pool.in_background(task)

    return in_background


def _quiet_s(loan: ConnectionSnapshot) -> float | None:
    """For how long nothing was executed; None while something is."""
    if loan.statement_s is None:
        return loan.in_state_s  # not by a cursor of ours: by COPY or large objects, with psycopg2
    return loan.quiet_s
