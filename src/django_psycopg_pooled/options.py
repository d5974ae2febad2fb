"""The pool's options: one table, from which validation, checks and the reference page are made.

An option that psycopg_pool also has keeps its name and meaning.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.option_values import Spec, checked

Hook = Callable[[Any], object]

SECONDS = "seconds"
CONNECTIONS = "connections"
THOUSAND_YEARS = 3e10  # an upper bound for durations that no float arithmetic can overflow

# Where psycopg_pool takes None for its default.
NONE_IS_DEFAULT = ("max_size", "name")

# What psycopg_pool's constructor takes and a Django pool has no use for.
NOT_HERE = {
    "conninfo": "the connection is described by NAME, USER, HOST ... of DATABASES",
    "kwargs": "put the driver's parameters beside 'pool' in OPTIONS",
    "connection_class": "the driver's own class is used",
    "open": "the pool opens by itself when it is first used",
    "close_returns": "Django's connection.close() always gives the connection back",
}


def option(default: Any, help: str, **spec: Any) -> Any:
    return dataclasses.field(default=default, metadata={"spec": Spec(help, **spec)})


@dataclass(frozen=True)
class PoolOptions:
    """Checked options of one pool. Made by parse() and changed() only; never partly valid."""

    min_size: int = option(
        1, "Connections kept open when nothing happens. The pool opens them in the background after"
        " its first use; only idle connections above this number are closed for being idle.",
        unit=CONNECTIONS, low=0, high=10_000,
    )  # fmt: skip
    max_size: int = option(
        10, "The most connections that this pool of this process ever has. If min_size is given and"
        " max_size is not, or is None, it equals min_size, as in psycopg_pool: a pool of fixed size"
        " (of 1 for min_size 0). None alone is the default.",
        unit=CONNECTIONS, low=1, high=10_000,
    )  # fmt: skip
    timeout: float = option(
        30.0, "How long a request waits for a connection before PoolTimeout. 0: not at all. Also"
        " how long a connect may take, unless OPTIONS or PGCONNECT_TIMEOUT says another"
        " connect_timeout; with several hosts each may take this divided by their number and one,"
        " so that a silent one leaves time for the next. Whole seconds, 2 at least.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    max_waiting: int = option(
        0, "How many requests may wait at once; the next one gets TooManyRequests. 0: any number.",
        unit="requests", low=0, high=1_000_000,
    )  # fmt: skip
    max_lifetime: float = option(
        3600.0, "Age at which a connection is closed, when it is not in use. 0: never.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    max_lifetime_jitter: float = option(
        0.05, "Each connection's lifetime is shortened by a random share of up to this, so that"
        " connections opened together do not all reconnect together.",
        unit="share of max_lifetime", low=0, high=0.5,
    )  # fmt: skip
    max_idle: float = option(
        600.0, "How long a connection above min_size may be idle before it is closed. 0: for ever.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    check: Hook | bool | None = option(
        None, "A check with a round trip to the server at every checkout: True, or a callable (or"
        " its dotted path) that takes the driver's connection and raises if it is unfit. Without"
        " it, each checkout looks at the socket (no round trip) and check_idle applies.",
    )  # fmt: skip
    check_idle: float = option(
        30.0, "A connection that was idle for longer gets a check with a round trip before it is"
        " lent. 0: at every checkout.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    check_timeout: float = option(
        5.0, "How long a round trip that the pool makes by itself (a check, a rollback or a reset"
        " after a loan) may take before the connection counts as dead. 0: as long as the"
        " network lets it. Needs num_workers.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    keepalive: float = option(
        0.0, "Check idle connections this often in the background, so that no firewall forgets"
        " them and no request waits for a check. 0: never.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    reconnect_timeout: float = option(
        300.0, "How long the pool tries to reconnect by itself before it calls reconnect_failed and"
        " leaves it to the next request.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    reconnect_failed: Hook | None = option(
        None, "Called with the pool, once an outage, after reconnect_timeout; a callable or its"
        " dotted path. Runs in a worker thread.",
    )  # fmt: skip
    configure: Hook | None = option(
        None, "Called with each new driver connection after Django has set it up; a callable or"
        " its dotted path. Must not leave a transaction open.",
    )  # fmt: skip
    reset: Hook | str = option(
        "dirty", "What is done to the session of a returned connection. 'dirty': what statements"
        " left (settings, role, LISTEN, temporary tables, advisory locks, PREPARE, WITH HOLD) is"
        " undone in one round trip, and nothing if they left nothing. 'always': all of it each"
        " time, which also covers functions that SET inside; with psycopg 3 the answer is read at"
        " the next checkout. 'never': nothing. Or a callable (or its dotted path) that takes the"
        " driver's connection, outside a transaction. If a reset fails, the connection is closed."
        " None is 'dirty'.",
        choices=("dirty", "always", "never"), live=False,
    )  # fmt: skip
    on_checkout: Hook | None = option(
        None, "Called with the driver's connection before it is lent, in the borrower's thread; a"
        " callable or its dotted path. If it raises, or leaves a transaction open, the connection"
        " is closed and the request fails.",
    )  # fmt: skip
    on_checkin: Hook | None = option(
        None, "Called with the driver's connection when it is given back, before `reset`, in the"
        " thread that gives back; a callable or its dotted path. If it raises, the connection is"
        " closed.",
    )  # fmt: skip
    evict_on: tuple[str, ...] = option(
        (), "SQLSTATEs, or their first characters, after which a connection and all others of the"
        " pool are replaced. Always among them: 08 (connection; with `pooler` not 08P01, by which"
        " PgBouncer tells that a limit of its own is met), 57P01 to 57P03 (server going down), and"
        " 25006 (read-only) unless target_session_attrs asks for a standby.",
    )  # fmt: skip
    credentials: Callable[[], Any] | None = option(
        None, "Called without arguments for each connect; a callable or its dotted path. Returns a"
        " password, or a dict of connection parameters (user, password ...), in place of those in"
        " DATABASES. Called once more if the server says that the password is wrong.",
        live=False,
    )  # fmt: skip
    credentials_ttl: float = option(
        0.0, "How long what `credentials` returned is used again. 0: for one connect.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS, live=False,
    )  # fmt: skip
    release: str = option(
        "request", "When a thread gives its connection back: at the end of the request (or by"
        " connection.close()), or, outside transactions, as soon as a statement's cursor is"
        " closed.",
        choices=("request", "transaction"),
    )  # fmt: skip
    pooler: str = option(
        "", "What stands between this pool and the server: 'pgbouncer' for PgBouncer in transaction"
        " mode and its like. Then nothing is used that is bound to a server session: no start-up"
        " options but yours, no reset, no cursors on the server, and nothing prepared unless"
        " `prepare` asks for it.",
        choices=("", "pgbouncer"), live=False,
    )  # fmt: skip
    leak_threshold: float = option(
        0.0, "A loan that lasts longer is logged, with the line that borrowed it, and once more"
        " when it ends. 0: never.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    prepare: Any = option(
        None, "Which statements run as prepared statements. 'auto': those that are executed often,"
        " as long as that is measured to be no slower. 'registered': what add_prepare_target() and"
        " prepare() name. False: none. None: 'auto' with psycopg 3, False with psycopg2, which"
        " prepares by SQL (see the known limits), and where `pooler` is set. What is asked for"
        " there is prepared if the pooler keeps its clients' statements apart: the pool finds out.",
        choices=("auto", "registered"), live=False,
    )  # fmt: skip
    prepare_threshold: int = option(
        5, "How often a statement is executed before 'auto' prepares it. 0: prepared at its first"
        " execution.",
        unit="executions", low=0, high=1_000_000, live=False,
    )  # fmt: skip
    prepared_max: int = option(
        100, "The most statements prepared on one connection; the one unused for longest makes"
        " room. Each takes memory of its server process: 10 kB for a simple one, 200 kB for seven"
        " joins.",
        unit="statements", low=1, high=100_000, live=False,
    )  # fmt: skip
    plan_cache_mode: str = option(
        "", "PostgreSQL's setting of that name, for every session of the pool. Empty: the server's"
        " own. It is sent at the start of a session, so it cannot hold behind a pooler.",
        choices=("", "auto", "force_generic_plan", "force_custom_plan"), live=False,
    )  # fmt: skip
    track_queries: bool = option(
        True, "Whether statements are counted and timed for pool.queries.", live=False,
    )  # fmt: skip
    slow_query_threshold: float = option(
        0.0, "A statement that takes longer is logged, with its text, without parameters, and the"
        " line of code that executed it. 0: none is.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    query_report_interval: float = option(
        0.0, "How often the statements that took most time are logged. 0: never.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    n_plus_one_threshold: int = option(
        10, "A statement that one request, task or command executes more often than this, each time"
        " with other parameters, counts as an N+1 suspect.",
        unit="executions", low=1, high=1_000_000,
    )  # fmt: skip
    sqlcommenter: bool = option(
        False, "Whether statements carry a comment, as sqlcommenter writes it, with the route, task"
        " or command that executes them. Prepared statements carry none.",
        live=False,
    )  # fmt: skip
    idle_in_transaction_threshold: float = option(
        3.0, "A transaction in which nothing happens for longer is logged, with the lines of code"
        " that began it, ran its last statement and are being executed now. 0: none is. Needs"
        " num_workers.",
        unit=SECONDS, low=0, high=THOUSAND_YEARS,
    )  # fmt: skip
    on_idle_in_transaction: Hook | None = option(
        None, "Called with facts about the connection (a ConnectionSnapshot) when such a"
        " transaction is found; a callable or its dotted path. Runs in a worker thread.",
    )  # fmt: skip
    idle_in_transaction_timeout: float = option(
        0.0, "The server ends a session whose transaction is idle for longer: its setting"
        " idle_in_transaction_session_timeout. The error then names the line that began it. 0: the"
        " server's own setting holds. It is sent at the start of a session, so it cannot hold"
        " behind a pooler.",
        unit=SECONDS, low=0, high=2_000_000, live=False,
    )  # fmt: skip
    num_workers: int = option(
        3, "How many threads may stay for background work; more are started for a short time when"
        " several requests wait for connects at once. 0: no thread at all; requests connect by"
        " themselves and all housekeeping happens inside checkout and checkin.",
        unit="threads", low=0, high=100, live=False,
    )  # fmt: skip
    name: str = option(
        "", "The pool's name in errors, logs and statistics. Empty: the alias of the database.",
        live=False,
    )  # fmt: skip
    connection_created: str = option(
        "checkout", "When Django's signal connection_created is sent: at every checkout, as with"
        " Django's own pool, or only when a connection of a new server session is first lent.",
        choices=("checkout", "session"),
    )  # fmt: skip

    @classmethod
    def parse(cls, raw: object) -> "PoolOptions":
        """Options from what stands in OPTIONS["pool"]: True, None or a mapping.

        Raises OptionsError that names all problems at once.
        """
        if raw is None or raw is True:
            return cls()
        if not isinstance(raw, Mapping):
            raise OptionsError([f"OPTIONS['pool'] is {raw!r}; it must be True, False or a dict."])
        given = {k: v for k, v in raw.items() if v is not None or k not in NONE_IS_DEFAULT}
        return cls()._with(with_max_size(given), live_only=False)

    def changed(self, **changes: object) -> "PoolOptions":
        """These options with some changed while the pool runs. Raises OptionsError."""
        return self._with(changes, live_only=True)

    def _with(self, given: Mapping[Any, object], *, live_only: bool) -> "PoolOptions":
        problems: list[str] = []
        values: dict[str, Any] = {}
        for name, value in given.items():
            try:
                values[name] = _checked(name, value, live_only=live_only)
            except ValueError as error:
                problems.append(str(error))
        result = dataclasses.replace(self, **values)
        if result.min_size > result.max_size:
            problems.append(
                f"min_size is {result.min_size} and max_size is {result.max_size};"
                " max_size must not be smaller."
            )
        if result.pooler and result.reset == "always":
            problems.append(
                f"reset is 'always' and pooler is {result.pooler!r}: a reset would reach another"
                " session than the one that was used. Leave reset out."
            )
        if problems:
            raise OptionsError(problems)
        return result

    def lifetime(self, share: float) -> float:
        """Seconds until a connection opened now retires; inf for never.

        share   0.0 to 1.0, from the pool's random source

        Source: the jitter, and its 5 %, are psycopg_pool's.
        """
        if not self.max_lifetime:
            return math.inf
        return self.max_lifetime * (1.0 - self.max_lifetime_jitter * share)

    @property
    def preparing(self) -> Any:
        """What `prepare` says; behind a pooler nothing is prepared unless it is asked for."""
        return False if self.pooler and self.prepare is None else self.prepare

    @property
    def returns_quietly(self) -> bool:
        """Whether a connection may go back untouched if its borrower left no trace."""
        return self.reset in ("dirty", "never") and self.on_checkin is None

    @property
    def attends_loans(self) -> bool:
        """Whether there is more to do at a checkout than to lend."""
        return self.on_checkout is not None or self.leak_threshold > 0

    @property
    def idle_limit(self) -> float:
        """Seconds that a connection above min_size may be idle; inf for ever."""
        return self.max_idle or math.inf

    @property
    def fresh_for(self) -> float:
        """Seconds after its use for which a connection is lent after a look at its socket alone."""
        return 0.0 if self.check else min(self.check_idle, self.idle_limit)


def with_max_size(given: Mapping[Any, object]) -> dict[Any, object]:
    """*given*, with a max_size that equals min_size if only that is there, as in psycopg_pool."""
    given = dict(given)
    least = given.get("min_size")
    if "max_size" not in given and isinstance(least, int) and _is_valid("min_size", least):
        given["max_size"] = max(least, 1)
    return given


def table() -> list[tuple[str, Any, Spec]]:
    """(name, default, spec) of every option, in the order of the reference page."""
    return [(f.name, f.default, f.metadata["spec"]) for f in fields(PoolOptions)]


def _is_valid(name: str, value: object) -> bool:
    try:
        _checked(name, value, live_only=False)
    except ValueError:
        return False
    return True


def _checked(name: object, value: object, *, live_only: bool) -> object:
    """*value* as option *name* takes it. Raises ValueError with a sentence for the user."""
    field = next((f for f in fields(PoolOptions) if f.name == name), None)
    if field is None:
        raise ValueError(_unknown(name, [f.name for f in fields(PoolOptions)]))
    spec: Spec = field.metadata["spec"]
    if live_only and not spec.live:
        raise ValueError(f"{name} cannot be changed while the pool runs; it is set in DATABASES.")
    return checked(field.name, field.type, value, spec)


def _unknown(name: object, known: list[str]) -> str:
    if name in NOT_HERE:
        return f"{name!r} is an option of psycopg_pool that has no place here: {NOT_HERE[name]}."
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(known)}."
    return f"{name!r} is not a pool option; {hint}"
