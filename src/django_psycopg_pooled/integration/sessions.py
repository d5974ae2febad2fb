"""Opening a server session just as the stock backend would."""

import math
from datetime import tzinfo
from typing import Any

from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.identity import Identity


class Sessions:
    """The connector of one pool; lives as long as it.

    For each connection it makes a wrapper without a pool, of the same class and settings as the
    one that asked for the pool, and lets it do what the stock backend does for a new connection:
    parameters, adapters, isolation level, time zone, role. A subclass that overrides one of these
    is honoured.
    """

    def __init__(
        self, wrapper_class: type[Any], alias: str, identity: Identity, timezone: tzinfo | None
    ) -> None:
        self._wrapper_class = wrapper_class
        self._alias = alias
        self._identity = identity
        self._timezone = timezone

    def open(self, timeout: float) -> Any:
        """A new driver connection, ready for Django. Blocks; raises what the driver raises.

        timeout   seconds after which the driver gives up, unless OPTIONS say otherwise
        """
        wrapper = self._unpooled_wrapper()
        params = wrapper.get_connection_params()
        # Without it a server that swallows packets would hold a slot for minutes.
        params.setdefault("connect_timeout", max(2, math.ceil(min(timeout, 3600.0))))
        connection = wrapper.get_new_connection(params)
        try:
            DRIVER.tidy(connection)
            # Django quotes the role of assume_role through its wrapper, which would connect itself.
            wrapper.connection = connection
            wrapper._configure_connection(connection)
        except BaseException:
            DRIVER.close(connection)
            raise
        finally:
            wrapper.connection = None  # only garbage collection ends a wrapper
        return connection

    def _unpooled_wrapper(self) -> Any:
        """A new one, since a wrapper belongs to the thread that made it."""
        settings = self._identity.settings
        options = {**settings["OPTIONS"], "pool": False}
        wrapper = self._wrapper_class({**settings, "OPTIONS": options}, alias=self._alias)
        # These are computed from settings, which may have changed by the next connect.
        wrapper.timezone = self._timezone
        wrapper.timezone_name = self._identity.time_zone
        return wrapper
