"""Telling a server that refuses us from one that is not there; shared by the libpq drivers."""

import re

# libpq gives a failed connect no SQLSTATE, only the server's words, so its words it is. In another
# language nothing matches, and the failure counts as passing: requests then wait for `timeout`.
_REFUSED = re.compile(
    r"password authentication failed"
    r"|no password supplied"
    r"|no pg_hba\.conf entry"
    r'|(?:database|role) "[^"]*" does not exist'
    r"|role \"[^\"]*\" is not permitted to log in"
    r"|permission denied for database"
    r"|certificate verify failed"
    r"|server does not support SSL"
    r"|invalid connection option"
)


def is_refusal(error: BaseException) -> bool:
    """Whether *error* of a failed connect says that the same attempt will fail again."""
    return _REFUSED.search(str(error)) is not None
