"""Telling what each thread works on, by the signals of those who give it work."""

import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started

from django_psycopg_pooled.tracking.labels import Work, begin, current, end, enter

# A client may send any word as its method; each would be a label of its own.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

# In an ASGI scope: Django sends request_started from a context of its own, which ends with it.
SCOPE_KEY = "django_psycopg_pooled.work"


def label_work() -> None:
    """From now on label requests, Celery's tasks and this process's management command."""
    request_started.connect(_request_begins, dispatch_uid=__name__)
    request_finished.connect(_request_ends, dispatch_uid=__name__)
    _wrap("resolve_request", _resolved)
    _wrap("get_response_async", _enters)
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
        scope[SCOPE_KEY] = work = Work(_method(scope.get("method")), unfinished=True)
        begin(work)


def _request_ends(sender: object, **kwargs: Any) -> None:
    begin(None)  # not end(): whatever began it has ended, too


def _wrap(name: str, wrapper: Callable[..., Any]) -> None:
    """Have *wrapper* called in place of a method of Django's handlers, with that method.

    For what no signal tells; a middleware would be the user's to add. Nothing without the method.
    """
    method: Any = getattr(BaseHandler, name, None)
    if method is None or hasattr(method, "labels_work"):
        return

    @wraps(method)
    def wrapped(self: Any, request: Any) -> Any:
        return wrapper(partial(method, self), request)

    wrapped.labels_work = True  # type: ignore[attr-defined]
    setattr(BaseHandler, name, wrapped)


def _resolved(resolve: Callable[[Any], Any], request: Any) -> Any:
    """Django finds the view of a request: its label is known."""
    match = resolve(request)
    work, route = current(), getattr(match, "route", None)
    if work is not None and isinstance(route, str):
        work.complete(f"{_method(request.method)} {_path(route)}")
    return match


def _enters(respond: Callable[[Any], Any], request: Any) -> Any:
    """Django answers a request under ASGI, in the context in which all of it will run."""
    work = getattr(request, "scope", {}).get(SCOPE_KEY)
    if work is not None:
        enter(work)
    return respond(request)


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
