"""Opening a server session just as the stock backend would."""

import math
from datetime import tzinfo
from typing import Any

from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.identity import Identity


class Sessions:
    """The connector of one pool; lives as long as it.

    Has an unpooled wrapper of its own, of the same class and settings as the one that asked for
    the pool, and lets it do what the stock backend does for a new connection: parameters, adapters,
    isolation level, time zone, role. A subclass that overrides one of these is honoured, for every
    new connection anew. That wrapper is never connected itself, so any thread may use it.
    """

    def __init__(
        self, wrapper_class: type[Any], alias: str, identity: Identity, timezone: tzinfo | None
    ) -> None:
        options = {**identity.settings["OPTIONS"], "pool": False}
        self._wrapper = wrapper_class({**identity.settings, "OPTIONS": options}, alias=alias)
        # These are computed from settings, which may have changed by the next connect.
        self._wrapper.timezone = timezone
        self._wrapper.timezone_name = identity.time_zone

    def open(self, timeout: float) -> Any:
        """A new driver connection, ready for Django. Blocks; raises what the driver raises.

        timeout   seconds after which the driver gives up, unless OPTIONS say otherwise
        """
        wrapper = self._wrapper
        params = wrapper.get_connection_params()
        # Without it a server that swallows packets would hold a slot for minutes.
        params.setdefault("connect_timeout", max(2, math.ceil(min(timeout, 3600.0))))
        connection = wrapper.get_new_connection(params)
        try:
            DRIVER.tidy(connection)
            wrapper._configure_connection(connection)
        except BaseException:
            DRIVER.close(connection)
            raise
        return connection
