"""Answers one line; a table says who answers what."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django_psycopg_pooled.control.protocol import (
    LONGEST_REQUEST,
    Refused,
    read_request,
    write_answer,
    write_refusal,
)

logger = logging.getLogger(__name__)

# Takes a request's args; what it returns goes through json. Raises Refused.
Ask = Callable[[Mapping[str, Any]], object]


class Answers:
    """What one process answers; lives as long as it. Used by the listener's thread only.

    project   requests of other projects are refused
    asks      by what is asked
    """

    def __init__(self, project: str, asks: Mapping[str, Ask]) -> None:
        self._project = project
        self._asks = asks
        self._failed = False

    def answer(self, line: bytes) -> bytes:
        """The line that answers *line*. Never raises; takes as long as what is asked."""
        try:
            if len(line) > LONGEST_REQUEST:
                raise Refused("request", f"a line may have {LONGEST_REQUEST} bytes")
            return write_answer(self._find(line))
        except Refused as refused:
            return write_refusal(refused)
        except Exception as error:
            if not self._failed:
                self._failed = True
                logger.exception("an answer about the pools failed; the next failures are not told")
            return write_refusal(Refused("failed", f"{type(error).__name__}: {error}"))

    def _find(self, line: bytes) -> object:
        request = read_request(line)
        if request.project != self._project:
            raise Refused("project", "this process is another project's")
        ask = self._asks.get(request.ask)
        if ask is None:
            known = ", ".join(sorted(self._asks))
            raise Refused("unknown", f"there is no {request.ask!r}; there is {known}")
        return ask(request.args)
