"""A test whose needs are not met is skipped here, and fails where everything must run."""

import pytest

from tests.server.support import require


def test_what_is_missing_skips_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPP_REQUIRE_EVERYTHING", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no moon"):
        require(None, "no moon")


def test_what_is_missing_fails_a_test_where_everything_must_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DPP_REQUIRE_EVERYTHING", "1")
    with pytest.raises(pytest.fail.Exception, match="no moon"):
        require([], "no moon")


def test_what_is_there_lets_a_test_go_on() -> None:
    require("here", "not used")
