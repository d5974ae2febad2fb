"""What the pool adds to the parameters of a connect."""

import pytest

from django_psycopg_pooled.integration.parameters import with_limits


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGCONNECT_TIMEOUT", "PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("params", "timeout", "limit"),
    [
        ({}, 30.0, 30),
        ({"host": "one"}, 4.2, 5),
        ({"host": "one"}, 0.0, 2),
        ({"host": "one"}, 1e9, 3600),
        ({"host": "one,two"}, 30.0, 10),
        ({"host": "one,two,three"}, 30.0, 7),
        ({"host": "one,two"}, 5.0, 2),
        ({"host": "one", "hostaddr": "10.0.0.1,10.0.0.2"}, 30.0, 10),
        ({"host": "one,two", "connect_timeout": 25}, 30.0, 25),
        ({"host": "one,two", "connect_timeout": None}, 30.0, None),
    ],
)
def test_a_connect_may_take_what_leaves_time_for_every_host(
    params: dict[str, object], timeout: float, limit: int | None
) -> None:
    assert with_limits(params, timeout)["connect_timeout"] == limit


def test_hosts_of_the_environment_count_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "one,two")
    assert with_limits({}, 30.0)["connect_timeout"] == 10
    assert with_limits({"host": "one"}, 30.0)["connect_timeout"] == 30
