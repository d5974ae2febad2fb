"""What is being worked on: each request, task and command is an object that is told by its text."""

import asyncio
import contextvars
import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path, re_path

from django_psycopg_pooled.integration import work
from django_psycopg_pooled.tracking.labels import Work, begin, current, end, label_of
from tests.labelled import labelled

ME = threading.get_ident


def _said() -> str | None:
    now = current()
    return None if now is None else now.text


def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse(f"{_said()}|{label_of(ME())}")


async def async_view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    inside = await sync_to_async(_said)()
    elsewhere = await sync_to_async(_said, thread_sensitive=False)()
    return HttpResponse(f"{_said()}|{inside}|{elsewhere}")


seen: list[Work | None] = []


async def note(request: HttpRequest) -> HttpResponse:
    seen.append(current())
    await asyncio.sleep(0)
    return HttpResponse()


orders = [path("<int:pk>/", view), re_path(r"^raw/(?P<pk>\d+)$", view)]
urlpatterns = [
    path("", view),
    path("orders/", include((orders, "orders"))),
    path("note/", note),
    path("async/<str:secret>/", async_view),
]


@pytest.fixture(autouse=True)
def _labels() -> Iterator[None]:
    with labelled(__name__):
        yield


# ---- requests


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("/", "GET /"),
        ("/orders/4711/?token=hunter2", "GET /orders/<int:pk>/"),
        ("/orders/raw/4711", r"GET /orders/raw/(?P<pk>\d+)"),
    ],
)
def test_a_request_is_its_method_and_its_route(url: str, route: str) -> None:
    assert Client().get(url).content.decode() == f"{route}|{route}"
    assert _said() is label_of(ME()) is None


def test_a_request_that_fits_no_route_is_its_method_alone() -> None:
    said: list[str | None] = []

    def listen(sender: object, **kwargs: Any) -> None:
        said.append(_said())

    request_finished.connect(listen, dispatch_uid="first")
    # Receivers are asked in the order in which they came: ours must not have ended it before.
    request_finished.disconnect(dispatch_uid=work.__name__)
    try:
        assert Client().get("/no/such/hunter2").status_code == 404
    finally:
        request_finished.disconnect(dispatch_uid="first")
    assert said == ["GET"]


def test_a_method_that_a_stranger_made_up_is_no_label_of_its_own() -> None:
    answer = Client().generic("HUNTER2", "/orders/1/").content.decode()
    assert answer.startswith("OTHER /orders/<int:pk>/")


def test_each_request_is_a_work_of_its_own_though_its_text_be_the_same() -> None:
    works = []
    for _ in range(2):
        request_started.send(None, environ={"REQUEST_METHOD": "GET"})
        works.append(current())
    assert works[0] is not works[1]


def test_under_asgi_the_work_goes_along_into_every_thread_of_the_request() -> None:
    async def ask(secret: str) -> str:
        answer: Any = await AsyncClient().get(f"/async/{secret}/")
        return str(answer.content.decode())

    async def ask_many() -> list[str]:
        return await asyncio.gather(*(ask(f"hunter{n}") for n in range(10)))

    assert asyncio.run(ask_many()) == ["|".join(["GET /async/<str:secret>/"] * 3)] * 10


def test_requests_side_by_side_under_asgi_have_works_of_their_own() -> None:
    seen.clear()

    async def both() -> None:
        await asyncio.gather(AsyncClient().get("/note/"), AsyncClient().get("/note/"))

    asyncio.run(both())
    assert len(seen) == 2
    assert None not in seen
    assert seen[0] is not seen[1]


def test_under_asgi_a_middleware_s_thread_is_told_by_the_whole_label_too() -> None:
    async def ask() -> Any:
        return await AsyncClient().get("/orders/5/")

    route = "GET /orders/<int:pk>/"
    assert asyncio.run(ask()).content.decode() == f"{route}|{route}"


def test_after_a_request_under_asgi_its_caller_works_on_nothing() -> None:
    async def ask() -> str | None:
        await AsyncClient().get("/note/")
        return _said()

    assert asyncio.run(ask()) is None


def test_django_without_the_method_that_is_wrapped_only_lacks_routes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(BaseHandler, "resolve_request")
    monkeypatch.delattr(BaseHandler, "get_response_async")
    work.label_work()
    request_started.send(None, environ={"REQUEST_METHOD": "GET"})
    assert _said() == "GET"


def test_a_method_that_finds_something_else_than_a_route_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BaseHandler, "resolve_request", lambda self, request: None)
    work.label_work()
    request_started.send(None, environ={"REQUEST_METHOD": "GET"})
    assert BaseHandler().resolve_request(HttpRequest()) is None
    assert _said() == "GET"


def test_the_method_is_wrapped_once() -> None:
    wrapped = BaseHandler.resolve_request
    work.label_work()
    assert BaseHandler.resolve_request is wrapped


def test_a_request_that_is_answered_inside_a_command_does_not_rename_it() -> None:
    begin(Work("manage.py crawl"))
    request = HttpRequest()
    request.method, request.path_info = "GET", "/orders/1/"
    BaseHandler().resolve_request(request)
    assert _said() == "manage.py crawl"


# ---- tasks


def _task(name: str, *, eager: bool = False) -> Any:
    return SimpleNamespace(name=name, request=SimpleNamespace(is_eager=eager))


def test_an_eager_task_ends_and_the_request_that_called_it_goes_on() -> None:
    request_started.send(None, environ={"REQUEST_METHOD": "GET"})
    outer = current()
    work._task_begins(_task("a", eager=True))
    work._task_begins(_task("b", eager=True))
    assert _said() == "task b"
    work._task_ends()
    assert _said() == "task a"
    work._task_ends()
    assert current() is outer


def test_a_workers_task_is_part_of_nothing() -> None:
    work._task_begins(_task("a"))
    work._task_begins(_task("b"))  # the end of the first was never told
    work._task_ends()
    assert current() is None


# ---- works


def test_an_unfinished_text_is_completed_once() -> None:
    begun = Work("GET", unfinished=True)
    begun.complete("GET /a\n")
    begun.complete("GET /b")
    assert begun.text == "GET /a"
    done = Work("task a")
    done.complete("GET /b")
    assert done.text == "task a"


def test_a_context_of_its_own_has_a_work_of_its_own() -> None:
    begin(Work("a"))
    contextvars.copy_context().run(lambda: begin(Work("b")))
    assert _said() == "a"


def test_works_go_when_they_have_ended() -> None:
    gc.disable()  # without its help
    try:
        gone = []
        for _ in range(100):
            request_started.send(None, environ={"REQUEST_METHOD": "GET"})
            gone.append(weakref.ref(current()))
            request_finished.send(None)
        assert [ref() for ref in gone] == [None] * 100
    finally:
        gc.enable()


def test_an_end_without_a_begin_does_nothing() -> None:
    end()
    assert current() is None


def test_asking_for_the_work_calls_no_python() -> None:
    # On the path of every statement: the context variable's own method, in C.
    assert isinstance(current, type(contextvars.ContextVar("x").get))
    asked: Callable[[], object] = current
    assert asked() is None


def test_asgi_requests_have_routes_too() -> None:
    begin(Work("GET", unfinished=True))
    scope = {"type": "http", "method": "GET", "path": "/orders/5/", "headers": []}
    BaseHandler().resolve_request(ASGIRequest(scope, io.BytesIO()))
    assert _said() == "GET /orders/<int:pk>/"
