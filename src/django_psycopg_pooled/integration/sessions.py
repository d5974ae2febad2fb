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
from django_psycopg_pooled.integration.parameters import (
    in_force,
    keep_alive,
    names_service,
    user_options,
    with_limits,
)
from django_psycopg_pooled.options import PoolOptions
from django_psycopg_pooled.session import ANYTHING, Effect

logger = logging.getLogger(__name__)

EVICT_ON = ("08", "57P01", "57P02", "57P03")
# Not 08P01 (protocol violation): that is what PgBouncer says where one of its own limits is met, as
# query_timeout. To replace all connections then would burden it when it has most to do.
EVICT_ON_BEHIND_POOLER = ("080", *EVICT_ON[1:])
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
        # Whether the last connect was by a service file.
        self._in_service = False
        # Whether settings are SET: those of the packet would hide the service file's.
        self._sets = False
        # Whether RESET ALL returns to what is wanted; PGTZ, too, overrules the packet.
        self._starts_as_wanted = True

    def open(self) -> Any:
        """A new driver connection, ready for Django. Blocks; raises what the driver raises."""
        wrapper = self._unpooled_wrapper()
        connection = self._connect(wrapper)
        try:
            DRIVER.tidy(connection)
            self._look_who_answers(connection)
            said = in_force(connection)
            if self._in_service:
                keep_alive(connection, said)
            connection._pool_session = self._new_session(said)
            connection.cursor_factory = watched(connection.cursor_factory)
            if hasattr(connection, "server_cursor_factory"):
                connection.server_cursor_factory = watched(connection.server_cursor_factory)
            self._look_at_time_zone(connection)
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

    def _look_at_time_zone(self, connection: Any) -> None:
        zone = self._identity.time_zone
        if zone and connection.info.parameter_status("TimeZone") != zone:
            self._starts_as_wanted = False  # now Django sets it

    def restorer(self) -> Callable[[Any], None] | None:
        """What gives a session back what RESET ALL took; None if the start-up packet does it."""
        if self._wrapper_class._makes_its_own:
            return self._refuse
        stock = self._wrapper_class._configure_connection is STOCK_SETUP
        role = self._identity.settings["OPTIONS"].get("assume_role")
        starts_as_wanted = self._takes_startup_options and self._starts_as_wanted
        if stock and starts_as_wanted and not role:
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
        if self._sets and self._takes_startup_options:
            with connection.cursor() as cursor:
                for name, value in self._of_pool().items():
                    cursor.execute("SELECT pg_catalog.set_config(%s, %s, false)", [name, value])

    def _connect(self, wrapper: Any) -> Any:
        given = wrapper.get_connection_params()
        try:
            return wrapper.get_new_connection(self._params(given))
        except DRIVER.Error as error:
            if not self._mended(error):
                raise
        return wrapper.get_new_connection(self._params(given))

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

    def _params(self, given: dict[str, Any]) -> dict[str, Any]:
        params = with_limits({**given, **self._asked()}, self._options.timeout)
        self._in_service = names_service(params)
        if self._options.pooler and "prepare_threshold" in params:
            params["prepare_threshold"] = None  # the next statement may meet another session
        return DRIVER.connect_params({**params, **self._startup(params)})

    def _asked(self) -> dict[str, Any]:
        """What the user's `credentials` say at this moment."""
        return self._credentials.params() if self._credentials is not None else {}

    def _startup(self, params: dict[str, Any]) -> dict[str, Any]:
        """Settings in the start-up packet: no SET for them, and RESET ALL returns to them."""
        if not self._takes_startup_options:
            return {}
        options = user_options(params)
        if options is None:
            self._sets, self._starts_as_wanted = True, False
            return {}
        wanted = {"TimeZone": self._identity.time_zone, **self._of_pool()}
        settings = [f"-c {name}={_escaped(value)}" for name, value in wanted.items() if value]
        return {"options": " ".join([options, *settings]).strip()} if settings else {}

    def _of_pool(self) -> dict[str, str]:
        """The server's settings that the pool's options ask for."""
        wanted = {
            "plan_cache_mode": self._options.plan_cache_mode,
            "idle_in_transaction_session_timeout": self._idle_limit(),
        }
        return {name: value for name, value in wanted.items() if value}

    def _idle_limit(self) -> str:
        """In whole milliseconds; empty for none."""
        limit = self._options.idle_in_transaction_timeout
        return str(math.ceil(limit * 1000)) if limit else ""

    def _new_session(self, said: dict[str, str]) -> WatchedSession:
        """said   the parameters of its connection, wherever the user has put them"""
        session = self._statements.session()
        session.watching = watched
        attrs = said.get("target_session_attrs", "")
        session.wanted = attrs if attrs in FOR_WRITING else ""
        by_wish = attrs in FOR_READING or SETTING in said.get("options", "")
        reads = () if by_wish else (READ_ONLY,)
        session.behind_pooler = bool(self._options.pooler)
        always = EVICT_ON_BEHIND_POOLER if session.behind_pooler else EVICT_ON
        session.evict_on = (*always, *reads, *self._options.evict_on)
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
