"""A peer in a process of its own: carries out tasks that arrive on stdin, one JSON line each.

Lives as long as its stdin. The first line is the setup, each later one names a function of
benchmarks.tasks and its arguments; each is answered with one line.
"""

import importlib
import json
import os
import sys
from typing import Any, TextIO


def main() -> None:
    """Set up, then answer until stdin ends."""
    answers = _take_stdout()
    # Nobody else may read ahead from here: gevent's patches come after.
    setup = json.loads(sys.stdin.readline())
    _answer(answers, lambda: _prepare(setup))
    for line in sys.stdin:
        task = json.loads(line)
        _answer(answers, lambda task=task: _carry_out(task["task"], task["args"]))
    # Pools' threads must not delay the end: what was measured has been told.
    answers.flush()
    os._exit(0)


def _take_stdout() -> TextIO:
    """The real stdout for answers alone; what a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, work: Any) -> None:
    try:
        answer = {"result": work()}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")


def _prepare(setup: dict[str, Any]) -> None:
    if setup["greenlets"]:
        importlib.import_module("gevent.monkey").patch_all()
    import django
    from django.conf import settings

    settings.configure(DATABASES=setup["databases"], USE_TZ=True, LOGGING_CONFIG=None)
    django.setup()
    from benchmarks.tasks import operation

    operation.keeps = setup["keeps"]


def _carry_out(task: str, args: dict[str, Any]) -> Any:
    module, _, function = task.rpartition(".")
    return getattr(importlib.import_module(f"benchmarks.tasks.{module}"), function)(**args)


if __name__ == "__main__":
    main()
