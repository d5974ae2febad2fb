"""The user's hooks: whose an error is, in the log and in its traceback."""

import logging
from typing import Any

import pytest

from django_psycopg_pooled.integration.credentials import Credentials
from django_psycopg_pooled.testing.scripted import DriverError
from tests.unit.scripted_pool import ScriptedPool, audit


def fail(*_: object) -> None:
    raise KeyError("no token")


def takes_nothing() -> None:
    """A hook of a wrong signature."""


@pytest.mark.parametrize("option", ["configure", "check"])
@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (fail, "KeyError: 'no token'"),
        (takes_nothing, "TypeError: takes_nothing() takes 0 positional arguments but 1 was given"),
    ],
)
def test_a_hook_that_fails_a_connect_is_named(
    option: str, hook: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {option: hook}
    scripted = ScriptedPool(None, **options)
    with pytest.raises((KeyError, TypeError)) as caught:
        scripted.pool.checkout()
    whose = f"raised by the pool's option `{option}`"
    assert caught.value.__notes__ == [whose]
    told = f"{words} ({whose})"
    assert f"pool 'shop': cannot connect: {told}" in caplog.text
    assert scripted.pool.snapshot().last_failure == told
    audit(scripted.pool)


@pytest.mark.parametrize("option", ["on_checkin", "reset"])
def test_a_hook_that_fails_a_return_is_named(option: str, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {option: fail}
    scripted = ScriptedPool(None, **options)
    scripted.warm(1)
    assert (
        "could not be brought back and is closed:"
        f" KeyError: 'no token' (raised by the pool's option `{option}`)" in caplog.text
    )


def test_a_check_that_fails_later_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django_psycopg_pooled")
    scripted = ScriptedPool()
    scripted.warm(1)
    scripted.pool.configure(check=fail)
    assert scripted.pool.check() == 1
    assert "failed its check: KeyError: 'no token' (raised by the pool's option `check`)" in (
        caplog.text
    )


def test_an_error_that_reaches_the_request_is_the_hooks_own_with_a_note() -> None:
    error = DriverError("not today")

    def refuse(_: object) -> None:
        raise error

    scripted = ScriptedPool(on_checkout=refuse)
    for _ in range(2):
        with pytest.raises(DriverError) as caught:
            scripted.pool.checkout()
        assert caught.value is error
        assert error.__notes__ == ["raised by the pool's option `on_checkout`"]


def test_what_the_driver_raises_is_said_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    scripted = ScriptedPool(configure=print, on_checkin=print)
    scripted.driver.script = [DriverError("connection refused")]
    with pytest.raises(DriverError):
        scripted.pool.checkout()
    assert caplog.messages == ["pool 'shop': cannot connect: connection refused"]


def test_the_pools_options_have_the_users_own_hooks() -> None:
    scripted = ScriptedPool(configure=fail)
    assert scripted.pool.options.configure is fail
    scripted.pool.configure(on_checkin=print)
    assert scripted.pool.options.configure is fail
    assert scripted.pool.options.on_checkin is print


def test_credentials_are_named_too() -> None:
    with pytest.raises(KeyError) as caught:
        Credentials(fail, 0.0).params()
    assert caught.value.__notes__ == ["raised by the pool's option `credentials`"]


@pytest.mark.parametrize(("given", "noun"), [(5, "an int"), (b"x", "a bytes"), ([], "a list")])
def test_what_is_no_password_is_named_by_its_type_in_english(given: object, noun: str) -> None:
    with pytest.raises(ValueError, match=f"`credentials` returned {noun}; it must return"):
        Credentials(lambda: given, 0.0).params()
