"""Telling what each thread works on, by the signals of those who give it work."""

import sys
from functools import wraps
from pathlib import Path
from typing import Any

from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started

from django_psycopg_pooled.tracking.labels import Work, begin, current, end

# A client may send any word as its method; each would be a label of its own.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


def label_work() -> None:
    """From now on label requests, Celery's tasks and this process's management command."""
    request_started.connect(_request_begins, dispatch_uid=__name__)
    request_finished.connect(_request_ends, dispatch_uid=__name__)
    _tell_routes()
    if "celery" in sys.modules:
        _label_tasks()
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program in ("manage.py", "django-admin", "__main__.py") and len(sys.argv) > 1:
        begin(Work(f"{program} {sys.argv[1]}"))  # not its arguments: they may be secret


def _request_begins(sender: object, **kwargs: Any) -> None:
    environ, scope = kwargs.get("environ"), kwargs.get("scope")
    # Without the path, which is full of what users typed: the route is known a little later.
    if environ is not None:
        begin(Work(_method(environ.get("REQUEST_METHOD")), unfinished=True))
    elif scope is not None:
        begin(Work(_method(scope.get("method")), unfinished=True))


def _request_ends(sender: object, **kwargs: Any) -> None:
    begin(None)  # not end(): whatever began it has ended, too


def _tell_routes() -> None:
    """Have each request's label completed when Django has found its view.

    By the method that finds it, as no signal tells and a middleware would be the user's to add.
    """
    resolve: Any = getattr(BaseHandler, "resolve_request", None)
    if resolve is None or hasattr(resolve, "labels_work"):
        return

    @wraps(resolve)
    def resolve_request(self: Any, request: Any) -> Any:
        match = resolve(self, request)
        work, route = current(), getattr(match, "route", None)
        if work is not None and isinstance(route, str):
            work.complete(f"{_method(request.method)} {_path(route)}")
        return match

    resolve_request.labels_work = True  # type: ignore[attr-defined]
    BaseHandler.resolve_request = resolve_request  # type: ignore[method-assign]


def _method(method: object) -> str:
    return method if isinstance(method, str) and method in METHODS else "OTHER"


def _path(route: str) -> str:
    """A route as people write it: those of re_path() begin with ^ and end with $."""
    return "/" + route.replace("^", "").removesuffix("$").removeprefix("/")


def _label_tasks() -> None:
    from celery import signals

    signals.task_prerun.connect(_task_begins, weak=False, dispatch_uid=__name__)
    signals.task_postrun.connect(_task_ends, weak=False, dispatch_uid=__name__)


def _task_begins(sender: object = None, **kwargs: Any) -> None:
    eager = getattr(getattr(sender, "request", None), "is_eager", False)  # called by other work
    begin(Work(f"task {getattr(sender, 'name', sender)}", outer=current() if eager else None))


def _task_ends(sender: object = None, **kwargs: Any) -> None:
    end()
