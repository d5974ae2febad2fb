"""Opening a server session just as the stock backend would."""

import logging
import math
from collections.abc import Callable
from datetime import tzinfo
from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper

from django_psycopg_pooled.control.listener import LISTENER
from django_psycopg_pooled.execution.cursors import watched
from django_psycopg_pooled.execution.statements import Statements
from django_psycopg_pooled.execution.watched import READ_ONLY, WatchedSession
from django_psycopg_pooled.integration.credentials import Credentials
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.identity import Identity
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.session import ANYTHING, Effect

logger = logging.getLogger(__name__)

# So that a peer that is gone without a word is noticed: in 10 s while data is on its way to it, in
# a minute while nothing is. Without them it takes the system's two hours. The user's values win.
KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
EVICT_ON = ("08", "57P01", "57P02", "57P03")
FOR_READING = ("read-only", "standby", "prefer-standby")
STOCK_SETUP: Any = getattr(DatabaseWrapper, "_configure_connection")  # noqa: B009
SETTING = "default_transaction_read_only"  # who sets it wants errors, not another server
FOR_WRITING = ("read-write", "primary")


class Sessions:
    """The connector of one pool; lives as long as it.

    For each connection it makes a wrapper without a pool, of the same class and settings as the
    one that asked for the pool, and lets it do what the stock backend does for a new connection:
    parameters, adapters, isolation level, time zone, role. A subclass that overrides one of these
    is honoured.
    """

    def __init__(
        self,
        wrapper_class: type[Any],
        alias: str,
        identity: Identity,
        timezone: tzinfo | None,
        options: PoolOptions,
        statements: Statements,
    ) -> None:
        self._wrapper_class = wrapper_class
        self._alias = alias
        self._identity = identity
        self._timezone = timezone
        self._options = options
        self._statements = statements
        source = options.credentials
        self._credentials = Credentials(source, options.credentials_ttl) if source else None
        # Whether the server takes settings in the start-up packet: old PgBouncers do not.
        self._takes_startup_options = not options.pooler
        self._knows_who_answers = bool(options.pooler)

    def open(self) -> Any:
        """A new driver connection, ready for Django. Blocks; raises what the driver raises."""
        wrapper = self._unpooled_wrapper()
        connection = self._connect(wrapper)
        try:
            DRIVER.tidy(connection)
            self._look_who_answers(connection)
            connection._pool_session = self._new_session()
            connection.cursor_factory = watched(connection.cursor_factory)
            if hasattr(connection, "server_cursor_factory"):
                connection.server_cursor_factory = watched(connection.server_cursor_factory)
            self._configure(wrapper, connection)
        except BaseException:
            DRIVER.close(connection)
            raise
        LISTENER.wake()  # a process that has a connection has something to tell
        return connection

    def _look_who_answers(self, connection: Any) -> None:
        """Once for each pool: whether it is the server process that the connection was told of."""
        if self._knows_who_answers:
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_backend_pid()")
            [pid] = cursor.fetchone()
        self._knows_who_answers = True
        if pid == DRIVER.server_pid(connection):
            return
        # Some take the settings of the start-up packet and set them by themselves: to RESET ALL
        # they are no defaults.
        self._takes_startup_options = False
        logger.warning(
            "pool %r: a pooler stands between: the connection was told of server process %d, and"
            " process %d answers. If it is PgBouncer in transaction mode or its like, set the"
            " pool's option `pooler`: a reset may reach another session than was used.",
            self._alias, DRIVER.server_pid(connection), pid,
        )  # fmt: skip

    def restorer(self) -> Callable[[Any], None] | None:
        """What gives a session back what RESET ALL took; None if the start-up packet does it."""
        if self._wrapper_class._makes_its_own:
            return self._refuse
        stock = self._wrapper_class._configure_connection is STOCK_SETUP
        role = self._identity.settings["OPTIONS"].get("assume_role")
        if stock and self._takes_startup_options and not role:
            return None
        return self._restore

    def _refuse(self, connection: Any) -> None:
        raise RuntimeError(
            f"what get_new_connection() of {self._wrapper_class.__module__} sets cannot be set"
            " again; the pool's option `configure` can"
        )

    def _restore(self, connection: Any) -> None:
        self._configure(self._unpooled_wrapper(), connection)

    def _configure(self, wrapper: Any, connection: Any) -> None:
        # Django quotes the role of assume_role through its wrapper, which would connect itself.
        wrapper.connection = connection
        try:
            wrapper._configure_connection(connection)
        finally:
            wrapper.connection = None  # only garbage collection ends a wrapper

    def _connect(self, wrapper: Any) -> Any:
        params = self._params(wrapper)
        try:
            return wrapper.get_new_connection({**params, **self._asked(), **self._startup(params)})
        except DRIVER.Error as error:
            if not self._mended(error):
                raise
        return wrapper.get_new_connection({**params, **self._asked(), **self._startup(params)})

    def _mended(self, error: BaseException) -> bool:
        """Whether a second attempt can succeed where the first one failed."""
        if self._takes_startup_options and DRIVER.refuses_startup_options(error):
            self._takes_startup_options = False
            logger.warning(
                "pool %r: what answers is no PostgreSQL server, for it takes no start-up options."
                " If it is PgBouncer or its like, set the pool's option `pooler`.", self._alias
            )  # fmt: skip
            return True
        if self._credentials is not None and DRIVER.refuses_password(error):
            self._credentials.forget()
            return True
        return False

    def _params(self, wrapper: Any) -> dict[str, Any]:
        params: dict[str, Any] = wrapper.get_connection_params()
        # Without it a server that swallows packets would hold a slot for minutes.
        patience = max(2, math.ceil(min(self._options.timeout, 3600.0)))
        params = {"connect_timeout": patience, **KEEPALIVE, **params}
        if self._options.pooler and "prepare_threshold" in params:
            params["prepare_threshold"] = None  # the next statement may meet another session
        return DRIVER.connect_params(params)

    def _asked(self) -> dict[str, Any]:
        """What the user's `credentials` say at this moment."""
        return self._credentials.params() if self._credentials is not None else {}

    def _startup(self, params: dict[str, Any]) -> dict[str, Any]:
        """Settings in the start-up packet: no SET for them, and RESET ALL returns to them."""
        wanted = {
            "TimeZone": self._identity.time_zone,
            "plan_cache_mode": self._options.plan_cache_mode,
            "idle_in_transaction_session_timeout": self._idle_limit(),
        }
        settings = [f"-c {name}={_escaped(value)}" for name, value in wanted.items() if value]
        if not settings or not self._takes_startup_options:
            return {}
        return {"options": " ".join([params.get("options", ""), *settings]).strip()}

    def _idle_limit(self) -> str:
        """In whole milliseconds; empty for none."""
        limit = self._options.idle_in_transaction_timeout
        return str(math.ceil(limit * 1000)) if limit else ""

    def _new_session(self) -> WatchedSession:
        session = self._statements.session()
        session.watching = watched
        attrs = self._identity.settings["OPTIONS"].get("target_session_attrs")
        session.wanted = attrs if attrs in FOR_WRITING else ""
        by_wish = attrs in FOR_READING or SETTING in self._identity.settings["OPTIONS"].get(
            "options", ""
        )
        reads = () if by_wish else (READ_ONLY,)
        session.evict_on = (*EVICT_ON, *reads, *self._options.evict_on)
        session.watched = self._watched()
        if self._wrapper_class._makes_its_own:
            session.own = int(ANYTHING)
        return session

    def _watched(self) -> int:
        """Which effects matter: also where none is reset, to who gives connections back early."""
        if self._options.pooler:
            return 0
        resets = self._options.reset in ("dirty", "always")
        return int(ANYTHING | Effect.LASTING) if resets else int(ANYTHING)

    def _unpooled_wrapper(self) -> Any:
        """A new one, since a wrapper belongs to the thread that made it."""
        settings = self._identity.settings
        options = {**settings["OPTIONS"], "pool": False}
        wrapper = self._wrapper_class({**settings, "OPTIONS": options}, alias=self._alias)
        # These are computed from settings, which may have changed by the next connect.
        wrapper.timezone = self._timezone
        wrapper.timezone_name = self._identity.time_zone
        return wrapper


def _escaped(value: str) -> str:
    """As libpq's `options` takes a value."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
