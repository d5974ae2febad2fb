"""django_psycopg_pooled as it is in INSTALLED_APPS, for one test only."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.test import override_settings

from django_psycopg_pooled.integration import work
from django_psycopg_pooled.tracking.labels import set_label


@contextmanager
def labelled(urls: str | ModuleType) -> Iterator[None]:
    """Label this thread's requests, which *urls* route, within the block."""
    methods = BaseHandler.resolve_request, BaseHandler.get_response_async
    work.label_work()
    set_label(None)
    try:
        with override_settings(ROOT_URLCONF=urls):
            yield
    finally:
        set_label(None)
        for signal in (request_started, request_finished):
            signal.disconnect(dispatch_uid=work.__name__)
        BaseHandler.resolve_request, BaseHandler.get_response_async = methods  # type: ignore[method-assign]
