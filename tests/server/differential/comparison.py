"""Runs one statement and keeps all that a program can see of it, so that two ways compare."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from django.db import connections, models, transaction
from django.db.models import QuerySet
from django.db.models.expressions import DatabaseDefault
from django.test.utils import CaptureQueriesContext

TIMES = 3
SAVEPOINTS = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO")


class Db:
    """What a statement is given: the models' rows in one database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __call__(self, model: type[models.Model]) -> Any:
        """A manager; untyped, since statements use lookups that no type checker knows."""
        return model._default_manager.using(self.alias)

    def rows(self, sql: str, *params: Any) -> Any:
        """What raw *sql* gives."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def anew(self, model: type[models.Model], above: int = 0) -> Any:
        """A manager of *model*, whose rows above that are gone, and will get the same ids again.

        A failing INSERT takes a number or not, as its values are converted sooner or later.
        """
        table = model._meta.db_table
        self(model).filter(pk__gt=above).delete()
        self.rows(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1000)")
        return self(model)


Statement = Callable[[Db], Any]


class Seen(NamedTuple):
    """All that one run of a statement has shown."""

    result: Any  # the rows with their Python types, or the exception
    answers: list[Any]  # of each SQL statement: columns, rowcount, and the server's tag
    sql: list[str]  # as executed, with %s
    shown: list[str]  # as in connection.queries, with literals
    failed: bool


def run(statement: Statement, alias: str) -> Seen:
    """Run it once, and make sure that the session is usable afterwards."""
    connection = connections[alias]
    connection.queries_log.clear()
    answers: list[Any] = []
    texts: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Mapping[str, Any]) -> Any:
        texts.append(sql)
        result = execute(sql, params, many, context)
        raw = context["cursor"].cursor
        columns = [tuple(column[:2]) for column in raw.description or ()]
        # After executemany() psycopg2's tag is the last one's, and rowcount as well.
        answers.append((columns, raw.rowcount, raw.statusmessage))
        return result

    with CaptureQueriesContext(connection) as captured, connection.execute_wrapper(note):
        failed = False
        try:
            result = canonical(statement(Db(alias)))
        except Exception as error:
            result, failed = outcome(error), True
    queries = [query["sql"] or "" for query in captured]
    shown = [query for query in queries if not query.startswith(SAVEPOINTS)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 + 1")
        assert cursor.fetchone() == (2,)
    return Seen(result, answers, texts, shown, failed)


def run_in_autocommit(statement: Statement, alias: str) -> list[Seen]:
    """Run it some times, each statement a transaction of its own."""
    return [run(statement, alias) for _ in range(TIMES)]


def run_in_atomic(statement: Statement, alias: str) -> list[Seen]:
    """Run it some times in one transaction, in which a failure spoils its savepoint only."""

    def guarded(db: Db) -> Any:
        with transaction.atomic(using=alias):
            result = canonical(statement(db))
        return result

    with transaction.atomic(using=alias):
        seen = [run(guarded, alias) for _ in range(TIMES)]
        transaction.set_rollback(True, using=alias)
    return seen


def canonical(value: Any) -> Any:
    """*value* as something that is equal only if values and types are."""
    if isinstance(value, models.Model):
        fields = value.__dict__.items()
        return type(value).__name__, [(k, canonical(v)) for k, v in fields if k != "_state"]
    if isinstance(value, Mapping):
        return [(k, canonical(v)) for k, v in value.items()]
    if isinstance(value, memoryview):
        return "memoryview", bytes(value)
    if isinstance(value, QuerySet) or (isinstance(value, Iterable) and hasattr(value, "__next__")):
        return [canonical(v) for v in value]
    if isinstance(value, DatabaseDefault):
        return "DatabaseDefault"  # bulk_create() with conflicts leaves it on what it was given
    if isinstance(value, list | tuple):
        return type(value).__name__, [canonical(v) for v in value]
    return type(value).__qualname__, repr(value)


def outcome(error: BaseException) -> tuple[str, str | None, str]:
    """What a program can tell of an exception: class, SQLSTATE, and the server's first line."""
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return type(error).__name__, code, str(error).split("\n")[0]


def differences(plain: Seen, prepared: Seen, *, columns: bool = True) -> list[str]:
    """Each thing that the second way shows otherwise; the columns' names and types on demand."""
    start = 0 if columns else 1
    pairs = {
        "result": (plain.result, prepared.result),
        "answers": ([a[start:] for a in plain.answers], [a[start:] for a in prepared.answers]),
    }
    # Long IN lists become arrays where statements are prepared: that text is another one.
    if [sql for sql in plain.sql if "SAVEPOINT" not in sql] == [
        sql for sql in prepared.sql if "SAVEPOINT" not in sql
    ]:
        pairs["shown"] = (plain.shown, prepared.shown)
    return [f"{name}: {a!r} became {b!r}" for name, (a, b) in pairs.items() if a != b]
