"""The reference page says what the code says."""

import inspect

from devtools import reference
from django_psycopg_pooled import checks, errors
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.testing import ScriptedDriver
from tests.unit.scripted_pool import ScriptedPool


def test_the_page_is_the_one_that_the_code_makes() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run: python -m devtools.reference"


def test_every_statistic_is_on_the_page_and_no_other() -> None:
    stats = ScriptedPool(ScriptedDriver()).pool.get_stats()
    assert stats.keys() == reference.SUMS.keys() | reference.SIZES.keys()


def test_every_error_has_a_code_of_its_own_that_is_on_the_page() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, (errors.PoolError, ValueError))
    ]
    codes = [getattr(kind, "code", None) for kind in kinds]
    assert len(set(codes)) == len(kinds)
    for code in codes:
        assert f"| {code} |" in reference.page()


def test_every_check_that_is_sent_is_on_the_page() -> None:
    source = inspect.getsource(checks)
    sent = {part.split('"')[0] for part in source.split('id="')[1:]}
    assert sent == checks.CHECKS.keys()


def test_every_public_method_of_the_pool_has_a_docstring() -> None:
    for name, member in inspect.getmembers(Pool):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
