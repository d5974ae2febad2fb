"""What the pool adds to the parameters of a connect, where the user has said nothing.

libpq takes each from the first that has it: the parameters, a service file, the environment. What
is added here is a parameter, and would hide the user's word in the other two.
"""

import contextlib
import math
import os
import socket
from collections.abc import Mapping
from typing import Any

# So that a peer that is gone without a word is noticed: in 10 s while data is on its way to it, in
# a minute while nothing is. Without them it takes the system's two hours. The user's values win.
KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
_OF_SOCKETS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
MOST_S = 3600.0


def with_limits(params: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """*params* with a limit for the connect, and TCP's keepalives.

    timeout   how long a request may wait, in seconds
    """
    added: dict[str, Any] = {}
    if "PGCONNECT_TIMEOUT" not in os.environ:
        # Also with a service: psycopg 3 does not know what that says, and without a limit a server
        # that swallows packets would hold a slot for minutes.
        added["connect_timeout"] = _patience(params, timeout)
    if not names_service(params):
        added.update(KEEPALIVE)
    return {**added, **params}


def _patience(params: Mapping[str, Any], timeout: float) -> int:
    """Whole seconds, two at least, which is the drivers' own least. They count it for each host."""
    within = min(timeout, MOST_S)
    hosts = _hosts(params).count(",") + 1
    # With several, the first may accept and say nothing, and a request is to reach the next ones.
    return max(2, math.ceil(within) if hosts == 1 else math.floor(within / (hosts + 1)))


def _hosts(params: Mapping[str, Any]) -> str:
    named = (params.get("hostaddr"), params.get("host"))
    return str(next(filter(None, (*named, *map(os.environ.get, ("PGHOSTADDR", "PGHOST")))), ""))


def names_service(params: Mapping[str, Any]) -> bool:
    """Whether libpq looks into a service file, which only it has read."""
    return bool(params.get("service") or os.environ.get("PGSERVICE"))


def user_options(params: Mapping[str, Any]) -> str | None:
    """The `options` that libpq would send by itself; None if only it can know.

    An empty one among *params* hides the others, None does not.
    """
    given = params.get("options")
    if given is not None:
        return str(given)
    return None if names_service(params) else os.environ.get("PGOPTIONS", "")


def in_force(connection: Any) -> dict[str, str]:
    """The parameters that *connection* was made with, wherever libpq has found them."""
    info = connection.info
    found: dict[str, str] = (
        info.get_parameters() if hasattr(info, "get_parameters") else info.dsn_parameters
    )
    return found


def keep_alive(connection: Any, said: Mapping[str, str]) -> None:
    """KEEPALIVE for an open connection, but for what *said*, its parameters, have of it."""
    # A second descriptor of the same socket: the first stays libpq's. A Unix socket knows none.
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        for name, option in _OF_SOCKETS.items():
            if name not in said and hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE[name])
