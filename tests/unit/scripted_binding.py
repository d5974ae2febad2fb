"""A binding without a server: it notes what it is asked, and fails where it is told to."""

from dataclasses import dataclass, field
from typing import Any

from django_psycopg_pooled.drivers.preparing import Plain, Types, numbered
from django_psycopg_pooled.preparing.holdings import Holdings
from django_psycopg_pooled.preparing.preparer import Preparer
from django_psycopg_pooled.testing.manual import ManualClock


class Refused(Exception):
    """What a server says, by its code."""

    def __init__(self, sqlstate: str, outdated: bool = False) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.outdated = outdated


@dataclass(eq=False)
class Statement:
    name: str
    sql: str
    types: Types
    mode: str


@dataclass(eq=False)
class Session:
    prepared: Holdings


@dataclass(eq=False)
class Connection:
    """As much of one as the preparer and the scripted binding look at."""

    _pool_session: Session
    inside: bool = False  # a transaction
    broken: bool = False  # that transaction
    served: list[Statement] = field(default_factory=list)


@dataclass(eq=False)
class Cursor:
    connection: Connection


class ScriptedBinding:
    """Prepares in a list. `on_prepare`, `on_probe` ...: what the next of these raise."""

    by_default = True
    unavailable = ""
    unknown = "?"

    def __init__(self, clock: ManualClock) -> None:
        self.log: list[str] = []
        self.on_prepare: list[Exception] = []
        self.on_probe: list[Exception] = []
        self.on_run: list[Exception] = []
        self.on_plain: list[Exception] = []
        self.bindable = True
        self.elsewhere = False
        self.plain_s = 0.001
        self.prepared_s = 0.001
        self._clock = clock

    def statement(self, name: str, sql: str, types: Types, plan_cache_mode: str) -> Statement:
        assert None not in types
        return Statement(name, numbered(sql), types, plan_cache_mode)

    def bind(self, cursor: Any, query: Any, params: Any) -> tuple[Types, Any] | None:
        if not params or not self.bindable:
            return None
        return tuple(None if p is None else type(p).__name__ for p in params), params

    def prepare(self, cursor: Any, statement: Statement, *, guarded: bool) -> None:
        self.log.append("guarded prepare" if guarded else "prepare")
        if self.on_prepare:
            cursor.connection.broken = cursor.connection.inside and not guarded
            raise self.on_prepare.pop(0)
        assert statement.name not in [s.name for s in cursor.connection.served]
        cursor.connection.served.append(statement)

    def run(self, cursor: Any, plain: Plain, query: Any, statement: Statement, values: Any) -> None:
        self.log.append("run")
        self._clock.advance(self.prepared_s)
        if self.on_run:
            cursor.connection.broken = cursor.connection.inside
            raise self.on_run.pop(0)
        assert statement in cursor.connection.served

    def close(self, cursor: Any, statement: Statement) -> None:
        self.log.append("close")
        if statement in cursor.connection.served:
            cursor.connection.served.remove(statement)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.inside)

    def is_idle(self, connection: Any) -> bool:
        return not connection.inside

    def sqlstate(self, error: BaseException) -> str:
        return getattr(error, "sqlstate", "")

    def is_outdated_plan(self, error: BaseException) -> bool:
        return getattr(error, "outdated", False)

    def is_elsewhere(self, cursor: Any) -> bool:
        self.log.append("ask")
        return self.elsewhere

    def keeps_apart(self, cursor: Any) -> bool:
        self.log.append("probe")
        if self.on_probe:
            cursor.connection.inside = True  # lost, or ended: not idle in any case
            raise self.on_probe.pop(0)
        return False

    def plain(self, query: Any, params: Any) -> None:
        self.log.append("plain")
        self._clock.advance(self.plain_s)
        if self.on_plain:
            raise self.on_plain.pop(0)


@dataclass(eq=False)
class Record:
    sql: str
    effects: int = 0
    plan: Any = None


class Scene:
    """A preparer over a scripted binding, its book, and cursors to execute with."""

    def __init__(self, *, asks: bool = False, **settings: Any) -> None:
        """*asks*: nobody has asked yet whether a pooler stands between."""
        self.clock = ManualClock()
        self.binding = ScriptedBinding(self.clock)
        settings = {"mode": "auto", "threshold": 2, **settings}
        self.preparer = Preparer(
            self.binding, name="shop", shown=str.upper, clock=self.clock, **settings
        )
        self.preparer.book = self
        if not asks:
            self.preparer._keeper._wonders = False
        self._records: dict[str, Record] = {}
        self.cursor = self.connect()

    def connect(self) -> Cursor:
        return Cursor(Connection(Session(self.preparer.holdings())))

    def records(self) -> list[Record]:
        return list(self._records.values())

    def record(self, sql: str) -> Record:
        if sql not in self._records:
            self._records[sql] = record = Record(sql)
            record.plan = self.preparer.plan_for(record)
        return self._records[sql]

    def execute(self, sql: str, *params: Any, cursor: Cursor | None = None) -> str:
        """As a watched cursor does: "plain" or "prepared"."""
        plan = self.record(sql).plan
        if plan is None:
            self.binding.plain(sql, params)
            return "plain"
        return self.preparer.execute(cursor or self.cursor, self.binding.plain, plan, sql, params)

    def log(self) -> str:
        """What was done since the last call."""
        done, self.binding.log = self.binding.log, []
        return ", ".join(done)
