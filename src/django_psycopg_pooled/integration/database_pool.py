"""The pool of one of Django's databases: a Pool that knows statements, too."""

from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet

from django_psycopg_pooled.execution.statements import Statements
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.observer import OBSERVER
from django_psycopg_pooled.integration.queries import Queries
from django_psycopg_pooled.integration.sessions import Sessions
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.prepared_facts import PreparedFacts

if TYPE_CHECKING:
    from django.db.models import QuerySet


class DatabasePool(Pool):
    """`pools["default"]`, or `connection.pool`; lives as a Pool does.

    Source: add_prepare_target() and its arguments are Kääriäinen's, 2012.
    """

    def __init__(
        self, name: str, sessions: Sessions, statements: Statements, options: PoolOptions
    ) -> None:
        super().__init__(
            name, sessions.open, DRIVER, options, restorer=sessions.restorer, observer=OBSERVER
        )
        self._statements = statements
        # What statements have cost, and the log of slow ones.
        self.queries = Queries(name, statements.journal, options)

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
        to be empty.
        """
        sql = statement if isinstance(statement, str) else self._sql_of(statement)
        self._statements.preparer.register(sql, name, plan_cache_mode)

    def prepared(self) -> list[PreparedFacts]:
        """What is prepared, denied and demoted, and why; the most used first. Does not block."""
        return self._statements.preparer.report()

    def forget_plans(self) -> None:
        """Prepare every statement anew when it is next used: the schema may have changed."""
        self._statements.preparer.bump()

    def _sql_of(self, queryset: "QuerySet[Any]") -> str:
        try:
            sql, _ = queryset.query.get_compiler(queryset.db).as_sql()
        except EmptyResultSet:
            raise ValueError(
                "the queryset finds nothing whatever the database holds, so it has no SQL to be"
                " prepared; take one that has."
            ) from None
        return str(sql)
