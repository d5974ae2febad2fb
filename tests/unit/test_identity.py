"""Which wrappers may share a pool."""

from typing import Any

import pytest
from django.db.backends.base.base import NO_DB_ALIAS

from django_psycopg_pooled.integration.identity import Identity, is_pooled, target_of

SETTINGS: dict[str, Any] = {
    "NAME": "shop",
    "HOST": "db",
    "PORT": "",
    "PASSWORD": "secret",
    "OPTIONS": {"pool": {"max_size": 3}},
}


def test_a_change_in_place_makes_another_identity() -> None:
    settings = {**SETTINGS, "OPTIONS": {"pool": {"max_size": 3}}}
    before = Identity.of(settings, "UTC")
    assert before == Identity.of(settings, "UTC")
    settings["OPTIONS"]["pool"]["max_size"] = 4
    assert before != Identity.of(settings, "UTC")
    settings["OPTIONS"]["pool"]["max_size"] = 3
    assert before == Identity.of(settings, "UTC")
    settings["OPTIONS"]["sslmode"] = "require"
    assert before != Identity.of(settings, "UTC")


def test_the_time_zone_is_part_of_it() -> None:
    assert Identity.of(SETTINGS, "UTC") != Identity.of(SETTINGS, "Europe/Berlin")


def test_the_password_is_not_in_its_text() -> None:
    assert "secret" not in repr(Identity.of(SETTINGS, "UTC"))


def test_the_target_is_the_server_and_database_whoever_connects() -> None:
    other = {**SETTINGS, "USER": "report", "OPTIONS": {}}
    assert Identity.of(SETTINGS, "UTC").target == target_of(other)
    assert target_of(SETTINGS) != target_of({**SETTINGS, "NAME": "test_shop"})


@pytest.mark.parametrize(
    ("options", "pooled"),
    [
        ({}, True),
        ({"pool": None}, True),
        ({"pool": True}, True),
        ({"pool": {}}, True),
        ({"pool": {"max_size": 3}}, True),
        ({"pool": False}, False),
        ({"pool": 0}, False),
    ],
)
def test_only_false_turns_the_pool_off(options: dict[str, Any], pooled: bool) -> None:
    assert is_pooled("default", {"OPTIONS": options}) is pooled
    assert not is_pooled(NO_DB_ALIAS, {"OPTIONS": options})
