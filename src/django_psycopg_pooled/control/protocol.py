"""What goes over the socket: one JSON object a line, a request and its answer.

    {"v": 1, "ask": "status", "project": "5c0f...", "args": {"pool": "default"}}
    {"v": 1, "ok": true, "answer": {...}}
    {"v": 1, "ok": false, "code": "unknown", "error": "there is no 'statas'; there is ..."}

`project` tells the projects of one user apart: a process answers its own project only.
"""

import json
from dataclasses import dataclass
from typing import Any

VERSION = 1
LONGEST_REQUEST = 64 * 1024
LONGEST_ANSWER = 8 * 1024 * 1024


class Refused(Exception):
    """What is not done or not understood. `code` never changes; the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Request:
    """One question."""

    ask: str
    args: dict[str, Any]
    project: str


def write_request(request: Request) -> bytes:
    """The line for it."""
    return _line(
        {"v": VERSION, "ask": request.ask, "project": request.project, "args": request.args}
    )


def read_request(line: bytes) -> Request:
    """The request in *line*. Raises Refused for anything else."""
    fields = _object(line)
    if fields.get("v") != VERSION:
        raise Refused("version", f"this process speaks version {VERSION}, not {fields.get('v')!r}")
    ask, args, project = (fields.get(name) for name in ("ask", "args", "project"))
    if not isinstance(ask, str) or not isinstance(args, dict) or not isinstance(project, str):
        raise Refused("request", "ask and project must be strings, and args an object")
    return Request(ask, args, project)


def write_answer(answer: object) -> bytes:
    """The line for an answer. Raises Refused for one that is too long."""
    line = _line({"v": VERSION, "ok": True, "answer": answer})
    if len(line) > LONGEST_ANSWER:
        raise Refused(
            "too long", f"the answer has {len(line)} bytes; {LONGEST_ANSWER} are the most"
        )
    return line


def write_refusal(refused: Refused) -> bytes:
    """The line for a refusal."""
    return _line({"v": VERSION, "ok": False, "code": refused.code, "error": str(refused)})


def read_answer(line: bytes) -> Any:
    """The answer in *line*. Raises Refused if that is one, or no answer at all."""
    fields = _object(line)
    if fields.get("v") != VERSION:
        raise Refused("version", f"it speaks version {fields.get('v')!r}, not {VERSION}")
    if fields.get("ok") is True:
        return fields.get("answer")
    raise Refused(str(fields.get("code")), str(fields.get("error")))


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        found = None
    if not isinstance(found, dict):
        raise Refused("request", "a line must hold one JSON object")
    return found


def _line(fields: dict[str, Any]) -> bytes:
    # In ASCII, so that no line break of Unicode's is in it; default: a fact of a later version
    # that is no JSON shall not keep the others from being seen.
    return json.dumps(fields, default=str).encode() + b"\n"
