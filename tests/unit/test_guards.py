"""Django's refusal of async code, asked for at less cost: who is refused, and who is called."""

import asyncio
import functools
import itertools
from collections.abc import Callable
from typing import Any

import django.utils.asyncio
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.asyncio import async_unsafe

from django_psycopg_pooled.integration.guards import guarded, stock_method

ALLOW = "DJANGO_ALLOW_ASYNC_UNSAFE"


class Stock:
    """As Django's wrapper: one method that it guards, and one that it does not."""

    @async_unsafe
    def borrow(self, *args: object) -> tuple[object, ...]:
        return "stock", *args

    def unguarded(self, *args: object) -> tuple[object, ...]:
        return "stock", *args


class Quick(Stock):
    borrow = guarded(Stock, "borrow")
    unguarded = guarded(Stock, "unguarded")


def in_a_loop(call: Callable[[], Any]) -> Any:
    """Call it where a loop runs, as an async view would by mistake."""

    async def mistake() -> Any:
        return call()

    return asyncio.run(mistake())


def theirs(self: Stock, *args: object) -> tuple[object, ...]:
    return "theirs", *args


def test_arguments_and_the_answer_pass_through() -> None:
    assert Quick().borrow() == ("stock",)
    assert Quick().borrow("a", "b") == ("stock", "a", "b")
    assert Quick.borrow.__name__ == "borrow"


def test_where_no_loop_runs_djangos_own_guard_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.count()
    monkeypatch.setattr(django.utils.asyncio, "get_running_loop", lambda: next(asked))
    assert Quick().borrow("a") == ("stock", "a")
    assert next(asked) == 0


def test_async_code_is_refused_in_djangos_words() -> None:
    with pytest.raises(SynchronousOnlyOperation) as ours:
        in_a_loop(Quick().borrow)
    with pytest.raises(SynchronousOnlyOperation) as djangos:
        in_a_loop(Stock().borrow)
    assert str(ours.value) == str(djangos.value)
    assert Quick().borrow() == ("stock",), "the loop has ended"


def test_async_code_passes_where_the_environment_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "true")
    assert in_a_loop(lambda: Quick().borrow("a")) == ("stock", "a")


def test_what_somebody_puts_in_the_methods_place_is_called_until_it_is_taken_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Stock, "borrow", theirs)
        assert Quick().borrow("a") == ("theirs", "a")
    assert Quick().borrow("a") == ("stock", "a")


def test_what_was_in_the_methods_place_before_us_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Stock, "borrow", theirs)

        class Late(Stock):
            borrow = guarded(Stock, "borrow")

        assert Late().borrow("a") == ("theirs", "a")
    # Nobody told which method is Django's: then its guard decides each time.
    assert Late().borrow("a") == ("stock", "a")
    with pytest.raises(SynchronousOnlyOperation):
        in_a_loop(Late().borrow)


def test_a_method_that_django_does_not_guard_is_called_as_it_is() -> None:
    assert Quick().unguarded("a") == ("stock", "a")
    assert in_a_loop(Quick().unguarded) == ("stock",)


def test_a_method_is_stock_if_it_is_guarded_and_from_the_module_of_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock = Stock.borrow
    assert stock_method(Stock, "borrow") is stock
    assert stock_method(Stock, "unguarded") is None

    @functools.wraps(stock)
    def traced(self: Stock, *args: object) -> Any:
        return stock(self, *args)

    monkeypatch.setattr(Stock, "borrow", traced)
    assert stock_method(Stock, "borrow") is None, "it has the names of Django's, but is not"
    monkeypatch.setattr(Stock, "borrow", itertools.count().__next__)
    assert stock_method(Stock, "borrow") is None
    monkeypatch.setattr(Stock, "borrow", BaseDatabaseWrapper.cursor)
    assert stock_method(Stock, "borrow") is None, "another class's"
