"""Telling a server that refuses us from one that is not there; shared by the libpq drivers."""

import re
from collections.abc import Callable

# libpq gives a failed connect no SQLSTATE, only the server's words, so its words it is. In another
# language nothing matches, and the failure counts as passing: requests then wait for `timeout`.
# "SASL" and "no such" are PgBouncer's: the first says of a wrong password as of an unknown user.
_REFUSED = re.compile(
    r"(?:password|SASL) authentication failed"
    r"|no password supplied"
    r"|no pg_hba\.conf entry"
    r'|(?:database|role) "[^"]*" does not exist'
    r"|role \"[^\"]*\" is not permitted to log in"
    r"|permission denied for database"
    r"|no such (?:database|user)"
    r"|certificate verify failed"
    r"|server does not support SSL"
    r"|invalid connection option"
)

_WRONG_PASSWORD = re.compile(r"(?:password|SASL) authentication failed|no password supplied")
# PgBouncer's words, and RDS Proxy's.
_NO_OPTIONS = re.compile(r"unsupported startup parameter|doesn't support command-line options")


def is_refusal(error: BaseException) -> bool:
    """Whether *error* of a failed connect says that the same attempt will fail again."""
    return _REFUSED.search(str(error)) is not None


def is_still(wanted: str, parameter_status: Callable[[str], str | None]) -> bool:
    """Whether a server is what target_session_attrs wanted, as libpq judges it; "" wants nothing.

    A server before version 14 reports nothing, and is believed.
    """
    standby = parameter_status("in_hot_standby") == "on"
    reads_only = parameter_status("default_transaction_read_only") == "on"
    return not ((wanted and standby) or (wanted == "read-write" and reads_only))


def says_read_only(parameter_status: Callable[[str], str | None]) -> bool:
    """Whether a server reports that it takes no writes, or reports nothing: before version 14."""
    reports = [parameter_status(n) for n in ("in_hot_standby", "default_transaction_read_only")]
    return "on" in reports or None in reports


def is_wrong_password(error: BaseException) -> bool:
    """Whether *error* of a failed connect says that the password is wrong."""
    return _WRONG_PASSWORD.search(str(error)) is not None


def is_refused_option(error: BaseException) -> bool:
    """Whether *error* of a failed connect says that settings cannot be sent in the start-up."""
    return _NO_OPTIONS.search(str(error)) is not None
