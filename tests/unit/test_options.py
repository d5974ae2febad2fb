"""The table of options: what is accepted, what is refused, and in which words."""

import math
from functools import partial

import pytest

from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.option_values import Spec
from django_psycopg_pooled.options import PoolOptions, table


@pytest.mark.parametrize("raw", [None, True, {}])
def test_nothing_given_gives_the_defaults(raw: object) -> None:
    options = PoolOptions.parse(raw)
    assert (options.min_size, options.max_size, options.timeout) == (1, 10, 30.0)


def test_every_option_has_a_unit_or_kind_bounds_and_a_help_that_is_a_sentence() -> None:
    for name, default, spec in table():
        assert isinstance(spec, Spec), name
        assert spec.help.endswith("."), name
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            assert spec.low is not None, name
            assert spec.high is not None, name
            assert spec.unit, name
            assert spec.low <= default <= spec.high, name


def test_min_size_alone_fixes_the_size_as_in_psycopg_pool() -> None:
    assert PoolOptions.parse({"min_size": 4}).max_size == 4
    assert PoolOptions.parse({"min_size": 0}).max_size == 1
    assert PoolOptions.parse({"min_size": 2, "max_size": 8}).max_size == 8


@pytest.mark.parametrize("least", [1, 4])
def test_no_max_size_is_psycopg_pools_pool_of_fixed_size(least: int) -> None:
    assert PoolOptions.parse({"min_size": least, "max_size": None}).max_size == least


def test_what_psycopg_pool_takes_as_its_default_is_the_default_here() -> None:
    assert PoolOptions.parse({"max_size": None, "name": None}) == PoolOptions.parse({})
    assert PoolOptions.parse({"min_size": 0, "max_size": None}).max_size == 1


def test_a_wrong_min_size_is_not_said_of_a_max_size_that_was_not_given() -> None:
    with pytest.raises(OptionsError) as caught:
        PoolOptions.parse({"min_size": 20_000})
    [problem] = caught.value.problems
    assert problem.startswith("min_size is 20000; it must be")


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        PoolOptions.parse(
            {"max_sise": 5, "timeout": "30", "max_idle": -1, "num_workers": 1.5, "min_size": True}
        )
    assert caught.value.problems == [
        "'max_sise' is not a pool option; did you mean 'max_size'?",
        "timeout is '30'; it must be a number of seconds from 0 to 3e+10.",
        "max_idle is -1; it must be a number of seconds from 0 to 3e+10.",
        "num_workers is 1.5; it must be a whole number of threads from 0 to 100.",
        "min_size is True; it must be a whole number of connections from 0 to 10000.",
    ]
    assert str(caught.value).startswith("[P104] 'max_sise' is not")


@pytest.mark.parametrize("value", [math.inf, math.nan, None, [], 1e300])
def test_a_duration_must_be_finite(value: object) -> None:
    with pytest.raises(OptionsError, match=r"timeout is .*; it must be a number of seconds"):
        PoolOptions.parse({"timeout": value})


def test_a_name_that_resembles_nothing_gets_the_list() -> None:
    with pytest.raises(OptionsError, match="the options are min_size, max_size, timeout"):
        PoolOptions.parse({"zzzz": 1})


@pytest.mark.parametrize("name", ["kwargs", "open", "close_returns", "connection_class"])
def test_what_only_psycopg_pool_has_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(OptionsError, match=f"'{name}' is an option of psycopg_pool that has no"):
        PoolOptions.parse({name: True})


@pytest.mark.parametrize("raw", [False, 5, "yes", [1]])
def test_what_is_no_dict_is_refused(raw: object) -> None:
    with pytest.raises(OptionsError, match="it must be True, False or a dict"):
        PoolOptions.parse(raw)


def test_sizes_must_agree() -> None:
    with pytest.raises(OptionsError, match="min_size is 5 and max_size is 3; max_size must not"):
        PoolOptions.parse({"min_size": 5, "max_size": 3})


def test_a_callable_may_be_given_by_its_dotted_path() -> None:
    assert PoolOptions.parse({"configure": "math.sqrt"}).configure is math.sqrt
    assert PoolOptions.parse({"check": math.sqrt}).check is math.sqrt
    assert PoolOptions.parse({"check": True}).check is True


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("math.sqr", "cannot be imported: module 'math' has no attribute"),
        ("no_such_module.check", "cannot be imported: No module named"),
        ("sqrt", "cannot be imported: it needs module.name, such as"),
        (".db.set_up", "cannot be imported: it needs module.name, such as"),
        ("..set_up", "cannot be imported: it needs module.name, such as"),
        ("math.pi", "is not callable: 3.14"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        PoolOptions.parse({"configure": path})


async def set_up(connection: object) -> None:
    """A hook that nobody would wait for."""


class SetsUp:
    async def __call__(self, connection: object) -> None:
        """Likewise."""


@pytest.mark.parametrize("name", ["configure", "check", "reset", "on_checkout", "credentials"])
@pytest.mark.parametrize("hook", [set_up, partial(set_up, 1), SetsUp(), f"{__name__}.set_up"])
def test_a_hook_that_would_only_make_a_coroutine_is_refused(name: str, hook: object) -> None:
    with pytest.raises(OptionsError, match=rf"{name} is .*async.*must be a plain function"):
        PoolOptions.parse({name: hook})
    with pytest.raises(OptionsError, match=r"is async"):
        PoolOptions.parse(None).changed(on_checkin=hook)


@pytest.mark.parametrize("value", [False, 0, "", {}, {"08": 1}, "08", ["08\n"], [8], [""]])
def test_what_is_no_list_of_sqlstates_is_refused(value: object) -> None:
    with pytest.raises(OptionsError, match="it must be a list of SQLSTATEs such as '57P01'"):
        PoolOptions.parse({"evict_on": value})


@pytest.mark.parametrize("value", [None, [], ()])
def test_no_sqlstate_is_a_list_too(value: object) -> None:
    assert PoolOptions.parse({"evict_on": value}).evict_on == ()


@pytest.mark.parametrize("value", [None, 5, "none of them"])
def test_every_option_with_choices_names_them(value: object) -> None:
    for name, _, spec in table():
        if spec.choices and not (value is None and name in ("reset", "prepare")):
            with pytest.raises(OptionsError) as caught:
                PoolOptions.parse({name: value})
            for choice in spec.choices:
                assert repr(choice) in caught.value.problems[0]


def test_only_check_may_be_a_bool() -> None:
    with pytest.raises(
        OptionsError, match="reset is True; it must be 'dirty', 'always', 'never', None, a"
    ):
        PoolOptions.parse({"reset": True})


def test_a_choice_must_be_one_of_its_words() -> None:
    with pytest.raises(OptionsError, match="it must be 'checkout' or 'session'"):
        PoolOptions.parse({"connection_created": "once"})
    with pytest.raises(OptionsError, match="name is 5; it must be a string"):
        PoolOptions.parse({"name": 5})


def test_some_options_cannot_change_while_the_pool_runs() -> None:
    options = PoolOptions.parse(None)
    assert options.changed(max_size=20).max_size == 20
    with pytest.raises(OptionsError, match="num_workers cannot be changed while the pool runs"):
        options.changed(num_workers=1)


def test_parsing_does_not_touch_what_it_was_given() -> None:
    raw = {"min_size": 2}
    PoolOptions.parse(raw)
    assert raw == {"min_size": 2}


def test_a_surplus_idle_limit_shorter_than_check_idle_ends_freshness() -> None:
    assert PoolOptions.parse({"max_idle": 5}).fresh_for == 5
    assert PoolOptions.parse({"max_idle": 0}).fresh_for == 30
    assert PoolOptions.parse({"check": True}).fresh_for == 0
    assert PoolOptions.parse({"max_lifetime": 0}).lifetime(0.5) == math.inf
