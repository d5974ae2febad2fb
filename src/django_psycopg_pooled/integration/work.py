"""Telling what each thread works on, by the signals of those who give it work."""

import sys
from pathlib import Path
from typing import Any

from django.core.signals import request_finished, request_started

from django_psycopg_pooled.tracking.labels import set_label


def label_work() -> None:
    """From now on label requests, Celery's tasks and this process's management command."""
    request_started.connect(_request_begins, dispatch_uid=__name__)
    request_finished.connect(_work_ends, dispatch_uid=__name__)
    if "celery" in sys.modules:
        _label_tasks()
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program in ("manage.py", "django-admin", "__main__.py") and len(sys.argv) > 1:
        set_label(f"{program} {sys.argv[1]}")  # not its arguments: they may be secret


def _request_begins(sender: object, **kwargs: Any) -> None:
    environ, scope = kwargs.get("environ"), kwargs.get("scope")
    # Without the query string, which is full of what users typed.
    if environ is not None:
        set_label(f"{environ.get('REQUEST_METHOD', '')} {environ.get('PATH_INFO', '')}")
    elif scope is not None:
        set_label(f"{scope.get('method', scope.get('type', ''))} {scope.get('path', '')}")


def _work_ends(sender: object, **kwargs: Any) -> None:
    set_label(None)


def _label_tasks() -> None:
    from celery import signals

    signals.task_prerun.connect(_task_begins, weak=False, dispatch_uid=__name__)
    signals.task_postrun.connect(_work_ends, weak=False, dispatch_uid=__name__)


def _task_begins(sender: object = None, **kwargs: Any) -> None:
    set_label(f"task {getattr(sender, 'name', sender)}")
