"""asyncio tasks are named beside the request they serve, if somebody has given them a name."""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_psycopg_pooled.tracking import labels
from django_psycopg_pooled.tracking.labels import Work, current, enter, label_of, set_label
from tests.labelled import labelled


def label() -> str | None:
    return label_of(threading.get_ident())


def view(request: HttpRequest) -> HttpResponse:
    now = current()
    return HttpResponse(f"{label()}|{now.text if now else None}")


def relabelled(request: HttpRequest) -> HttpResponse:
    set_label("export 7")
    return HttpResponse(f"{label()}")


async def renamed(request: HttpRequest) -> HttpResponse:
    task = asyncio.current_task()
    assert task is not None
    task.set_name("a later name")
    return await sync_to_async(view)(request)


urlpatterns = [path("", view), path("relabelled/", relabelled), path("renamed/", renamed)]


@pytest.fixture(autouse=True)
def _labels() -> Iterator[None]:
    with labelled(__name__):
        yield


def in_task(name: str | None, function: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await function()

    async def main() -> Any:
        return await asyncio.create_task(run(), name=name)

    return asyncio.run(main())


def get(url: str, name: str | None) -> str:
    async def ask() -> str:
        answer: Any = await AsyncClient().get(url)
        return str(answer.content.decode())

    return str(in_task(name, ask))


def test_the_thread_of_a_request_is_told_with_its_task_and_figures_are_not() -> None:
    """A name for each task would make as many works in the table of statements."""
    assert get("/", "crawl 7\x1b[2J") == "GET /, asyncio task crawl 7[2J|GET /"


def test_a_name_that_is_given_later_is_told_too() -> None:
    assert get("/renamed/", None).startswith("GET /renamed/, asyncio task a later name|")


def test_the_number_that_asyncio_gives_each_task_is_not_told() -> None:
    assert get("/", None) == "GET /|GET /"


def test_a_request_without_a_task_is_told_as_ever() -> None:
    assert Client().get("/").content.decode() == "GET /|GET /"


def test_a_label_that_a_request_takes_in_a_thread_keeps_its_task() -> None:
    assert get("/relabelled/", "crawl") == "export 7, asyncio task crawl"


def test_a_label_that_a_task_takes_is_told_with_its_name() -> None:
    async def crawl() -> str | None:
        set_label("crawler")
        return label()

    assert in_task("crawl", crawl) == "crawler, asyncio task crawl"


def test_a_task_that_has_ended_is_neither_kept_nor_told() -> None:
    begun = Work("GET /")
    gone: list[weakref.ref[Any]] = []

    async def serve() -> None:
        gone.append(weakref.ref(asyncio.current_task()))
        contextvars.copy_context().run(enter, begun)
        assert begun.title() == "GET /, asyncio task crawl"

    in_task("crawl", serve)
    gc.collect()
    assert gone[0]() is None
    assert begun.title() == "GET /"


class Own:
    """A task of a kind of its own, without a name."""


class Slotted:
    __slots__ = ()


@pytest.mark.parametrize("task", [Own(), Slotted(), None], ids=["no name", "no weakref", "none"])
def test_tasks_of_other_kinds_change_nothing(monkeypatch: pytest.MonkeyPatch, task: object) -> None:
    monkeypatch.setattr(labels, "current_task", lambda loop: task)

    async def crawl() -> str | None:
        set_label("crawler")
        return label()

    assert asyncio.run(crawl()) == "crawler"
