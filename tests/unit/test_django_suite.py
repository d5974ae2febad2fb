"""How the runner of Django's own tests reads a log, and whose failures it counts."""

from pathlib import Path

import pytest

from devtools.django_suite import choices, environment, expected, labels, lock, log, report, server
from devtools.django_suite.errors import SuiteError
from devtools.django_suite.expected import Expected
from devtools.django_suite.log import Failure, Outcome
from devtools.django_suite.verdict import judge

# Excerpts of real logs, with their paths shortened.
PASSED = """\
Testing against Django installed in '/venv/django' with up to 2 processes
Found 411 test(s).
System check identified no issues (0 silenced).
.........sssssss..................
----------------------------------------------------------------------
Ran 411 tests in 6.515s

OK (skipped=93)
Destroying test database for alias 'default'...
Total run took 10.512s
"""
FAILED = """\
System check identified no issues (0 silenced).
EFxEEEsFFu
======================================================================
ERROR: setUpClass (backends.tests.EscapingChecks)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/django/tests/backends/tests.py", line 8, in setUpClass
    raise RuntimeError("no connection")
    ^^^^^^^^^^^^^^^
RuntimeError: no connection

======================================================================
ERROR: test_message (backends.tests.LastQuery.test_message) [lookup] (field=<object object at \
0x7fb256ba2c60>)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/venv/psycopg/cursor.py", line 117, in execute
    raise ex.with_traceback(None)
    ^^^^^^^^^^^
psycopg.errors.UndefinedColumn: column "foo" does not exist
LINE 1: SELECT foo
               ^

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/venv/psycopg/cursor.py", line 117, in execute
    raise ex.with_traceback(None)
    ^^^^^^^^^^^
django.db.utils.ProgrammingError: column "foo" does not exist
LINE 1: SELECT foo
               ^

======================================================================
ERROR: test_message (backends.tests.LastQuery.test_message) [other]
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/venv/psycopg/cursor.py", line 117, in execute
    raise ex.with_traceback(None)
    ^^^^^^^^^^^
django.db.utils.InternalError: current transaction is aborted, commands ignored until end of \
transaction block

======================================================================
FAIL: test_sub (backends.tests.LastQuery.test_sub) [<object object at 0x7fb256ba2ce0>] (i=0)
A docstring of the test.
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/django/tests/backends/tests.py", line 15, in test_sub
    self.assertEqual(i, 1)
    ^^^^^^^
AssertionError: 0 != 1

======================================================================
FAIL: test_diff (backends.tests.LastQuery.test_diff)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/django/tests/backends/tests.py", line 25, in test_diff
    def test_diff(self): self.assertEqual("a\\nb", "a\\nc")
      ^^^^^^^^^^^^^^^^^
AssertionError: 'a\\nb' != 'a\\nc'
  a
- b
+ c


======================================================================
UNEXPECTED SUCCESS: test_unexpected (backends.tests.LastQuery.test_unexpected)
----------------------------------------------------------------------
Ran 9 tests in 0.052s

FAILED (failures=3, errors=3, skipped=1, expected failures=1, unexpected successes=1)
Destroying test database for alias 'default'...
Total run took 0.539s
"""
NOT_LOADED = """\
E
======================================================================
ERROR: nix (unittest.loader._FailedTest.nix)
----------------------------------------------------------------------
ImportError: Failed to import test module: nix
Traceback (most recent call last):
  File "/python/unittest/loader.py", line 137, in loadTestsFromName
    module = __import__(module_name)
ModuleNotFoundError: No module named 'schema.nix'


----------------------------------------------------------------------
Ran 1 test in 0.000s

FAILED (errors=1)
"""
NOT_STARTED = """\
Traceback (most recent call last):
  File "/venv/django/db/utils.py", line 129, in load_backend
    raise ImproperlyConfigured(
django.core.exceptions.ImproperlyConfigured: 'django_psycopg_pooled.backends.postgresql' isn't an \
available database backend or couldn't be imported.
"""
TEARDOWN_BROKE = """\
----------------------------------------------------------------------
Ran 30 tests in 3.881s

{result}
Destroying test database for alias 'default'...
Traceback (most recent call last):
  File "/venv/psycopg/cursor.py", line 117, in execute
    raise ex.with_traceback(None)
django.db.utils.OperationalError: database "test_django_suite" is being accessed by other users
"""


def outcome(*tests: str) -> Outcome:
    return Outcome(10, 1, 0, tuple(map(Failure, tests)))


def row(test: str) -> Expected:
    return Expected(test, "a reason")


# --- The log


def test_a_run_without_failures_is_read() -> None:
    read = log.read(PASSED, 0)
    assert (read.ran, read.passed, read.skipped, read.failing) == (411, 318, 93, ())


def test_every_kind_of_failure_is_read_with_its_subtest() -> None:
    assert [str(failure) for failure in log.read(FAILED, 1).failures] == [
        "ERROR backends.tests.EscapingChecks",
        "FAIL backends.tests.LastQuery.test_diff",
        "ERROR backends.tests.LastQuery.test_message [lookup] (field=<object object>)",
        "ERROR backends.tests.LastQuery.test_message [other]",
        "FAIL backends.tests.LastQuery.test_sub (i=0)",
        "UNEXPECTED SUCCESS backends.tests.LastQuery.test_unexpected",
    ]


def test_the_message_is_the_first_line_of_the_exception_that_the_test_saw() -> None:
    messages = [failure.message for failure in log.read(FAILED, 1).failures]
    assert messages[0] == "RuntimeError: no connection"
    assert messages[1] == r"AssertionError: 'a\nb' != 'a\nc'"
    assert messages[2] == 'django.db.utils.ProgrammingError: column "foo" does not exist'
    assert messages[5] == ""


def test_a_test_counts_once_for_all_its_subtests_and_a_broken_class_not_as_a_test() -> None:
    # Of 9, one was skipped, one failed as it should, and four did not pass.
    assert log.read(FAILED, 1).passed == 3


def test_failing_tests_are_labels_each_once() -> None:
    assert log.read(FAILED, 1).failing == (
        "backends.tests.EscapingChecks",
        "backends.tests.LastQuery.test_diff",
        "backends.tests.LastQuery.test_message",
        "backends.tests.LastQuery.test_sub",
        "backends.tests.LastQuery.test_unexpected",
    )


def test_only_the_last_result_of_a_log_counts() -> None:
    """Tests of test runners print results of their own."""
    assert log.read("Ran 2 tests in 0.1s\n\nOK\n" + PASSED, 0).ran == 411


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (NOT_STARTED, 1, "isn't an available database backend"),
        ("", -9, "status -9"),
        (PASSED[:150], -6, "did not start, or not finish"),
        (NOT_LOADED, 1, "nix: ModuleNotFoundError: No module named 'schema.nix'"),
        (TEARDOWN_BROKE.format(result="OK"), 1, "being accessed by other users"),
        (TEARDOWN_BROKE.format(result="FAILED (errors=1)"), 1, "ended badly after its last test"),
        (PASSED, 1, "ended badly after its last test"),
        (FAILED, 0, "ended badly after its last test"),
        (PASSED.replace("OK", "FAILED"), 1, "failures that could not be read"),
        (FAILED.replace("FAILED (", "OK ("), 0, "failures that could not be read"),
    ],
)
def test_a_log_without_a_sound_result_is_refused(text: str, status: int, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        log.read(text, status)
    assert said in str(caught.value)


def test_what_failed_before_a_broken_end_is_told() -> None:
    """A connection that a failing test left open is what breaks the end of the run."""
    with pytest.raises(SuiteError) as caught:
        log.read(FAILED + TEARDOWN_BROKE.partition("{result}\n")[2], 1)
    assert "being accessed by other users" in str(caught.value)
    assert "ERROR backends.tests.EscapingChecks: RuntimeError: no connection" in str(caught.value)


# --- Ours against stock


def test_a_failure_counts_unless_stock_has_it_or_the_table_allows_it() -> None:
    mine = outcome("a.T.test_ours", "a.T.test_both", "a.T.test_listed")
    verdict = judge(mine, outcome("a.T.test_both"), {"a.T.test_listed": row("a.T.test_listed")})
    assert verdict.ours == (Failure("a.T.test_ours"),)
    assert verdict.shared == (Failure("a.T.test_both"),)
    assert verdict.allowed == ((Failure("a.T.test_listed"), "a reason"),)
    assert (verdict.failed, verdict.stale) == (1, ())


def test_a_subtest_that_passes_with_stock_counts_though_another_fails_there() -> None:
    mine = Outcome(1, 0, 0, (Failure("a.T.test_b", "(i=1)"), Failure("a.T.test_b", "(i=2)")))
    stock = Outcome(1, 0, 0, (Failure("a.T.test_b", "(i=1)"),))
    assert judge(mine, stock, {}).ours == (Failure("a.T.test_b", "(i=2)"),)


def test_subtests_of_one_test_are_one_failed_test() -> None:
    mine = Outcome(1, 0, 0, (Failure("a.T.test_b", "(i=1)"), Failure("a.T.test_b", "(i=2)")))
    assert judge(mine, outcome(), {}).failed == 1


def test_a_row_is_stale_if_its_test_did_not_fail_or_fails_with_stock_too() -> None:
    table = {test: row(test) for test in ("a.T.test_passes", "a.T.test_both")}
    verdict = judge(outcome("a.T.test_both"), outcome("a.T.test_both"), table)
    assert verdict.stale == ("a.T.test_both", "a.T.test_passes")
    assert verdict.failed == 0


def test_without_failures_there_is_no_run_with_stock() -> None:
    assert judge(outcome(), None, {}).ours == ()


# --- The table


def test_a_row_applies_by_driver_series_and_label() -> None:
    new = Expected("a.b.T.test_c", "a reason", drivers=("psycopg",), since=(6, 1))
    assert expected.where([new], "psycopg", (6, 1), ("a.b",)) == {"a.b.T.test_c": new}
    assert expected.where([new], "psycopg", (7, 0), ()) == {"a.b.T.test_c": new}
    assert not expected.where([new], "psycopg2", (6, 1), ())
    assert not expected.where([new], "psycopg", (5, 2), ())
    assert not expected.where([new], "psycopg", (6, 1), ("a.bb", "a.b.T.test_cc"))


def test_each_row_of_the_table_is_of_another_test_and_has_a_reason() -> None:
    tests = [entry.test for entry in expected.TABLE]
    assert len(tests) == len(set(tests))
    assert all(entry.reason for entry in expected.TABLE)
    assert all(set(entry.drivers) <= set(choices.DRIVERS) for entry in expected.TABLE)


# --- The report


def test_the_report_ends_with_the_count() -> None:
    mine = outcome("a.T.test_ours", "a.T.test_both", "a.T.test_listed")
    table = {test: row(test) for test in ("a.T.test_listed", "a.T.test_stale")}
    text = report.text(judge(mine, outcome("a.T.test_both"), table))
    assert text.splitlines()[-1] == "6 passed, 1 failed, 1 skipped"
    for test in ("a.T.test_ours", "a.T.test_both", "a.T.test_listed", "a.T.test_stale"):
        assert text.count(test) == 1


def test_a_clean_report_is_the_count_alone() -> None:
    assert report.text(judge(outcome(), None, {})) == "9 passed, 0 failed, 1 skipped"


def test_the_report_of_stock_counts_its_failing_tests() -> None:
    text = report.stock_text(log.read(FAILED, 1))
    assert text.splitlines()[-1] == "3 passed, 5 failed, 1 skipped"


# --- What is run


@pytest.fixture
def django_tests(tmp_path: Path) -> Path:
    for name in ("backends", "schema", "servers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "requirements").mkdir()
    return tmp_path


def test_lists_become_the_labels_that_this_django_has(django_tests: Path) -> None:
    resolved = labels.resolve(["schema.tests.SchemaTests", "ci"], django_tests)
    assert resolved[0] == "schema.tests.SchemaTests"
    assert sorted(resolved[1:]) == ["backends", "schema", "servers"]


def test_all_is_no_label(django_tests: Path) -> None:
    assert labels.resolve(["backends", "all"], django_tests) == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["schemas"], "Did you mean 'schema'?"),
        (["requirements"], "'requirements' is not a test label"),
        ([], "No labels"),
    ],
)
def test_what_is_no_label_is_refused(words: list[str], said: str, django_tests: Path) -> None:
    with pytest.raises(SuiteError, match="label") as caught:
        labels.resolve(words, django_tests)
    assert said in str(caught.value)


def test_a_list_may_have_comments() -> None:
    assert labels.listed("# all\nbackends\n\nschema # slow\n") == ["backends", "schema"]


@pytest.mark.parametrize("name", labels.LISTS)
def test_a_list_names_no_label_twice(name: str) -> None:
    listed = labels.listed(labels.LISTS[name].read_text())
    assert len(listed) == len(set(listed))


def test_the_smaller_list_is_part_of_the_larger_one() -> None:
    core, ci = (labels.listed(labels.LISTS[name].read_text()) for name in ("core", "ci"))
    assert set(ci) < set(core)


def test_stock_gets_the_same_options_without_the_pool() -> None:
    given = choices.parse(["--options", '{"pool": {"max_size": 4}, "server_side_binding": true}'])
    assert given.options["pool"] == {"max_size": 4}
    assert given.stock_options == {"server_side_binding": True}


def test_empty_arguments_of_make_are_the_defaults() -> None:
    given = choices.parse(["--labels", "a b", "--django", "", "--options", ""])
    assert (given.labels, given.django, given.options) == (("a", "b"), "", {})


@pytest.mark.parametrize("text", ["{", "[]", "pool"])
def test_options_that_are_no_json_object_are_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        choices.parse(["--options", text])
    assert "--options" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["6", "main", "6.1 "])
def test_what_is_no_release_of_django_is_refused(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        choices.parse(["--django", version])
    assert "5.2.19" in capsys.readouterr().err


def test_an_unknown_driver_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        choices.parse(["--driver", "pg8000"])
    assert "pg8000" in capsys.readouterr().err


def test_requirements_that_need_a_browser_or_a_c_library_are_left_out() -> None:
    text = "aiosmtpd >= 1.4.5\n# a comment\npylibmc; sys_platform != 'win32'\nselenium >= 4.23\n"
    assert environment.needed(text) == ["aiosmtpd >= 1.4.5"]


def test_the_series_of_a_release_is_its_first_two_numbers() -> None:
    def series(version: str) -> tuple[int, int]:
        here = Path()
        return environment.Environment("", version, here, here, here).series

    assert [series(v) for v in ("5.2.19", "6.1", "6.1rc1")] == [(5, 2), (6, 1), (6, 1)]


def test_the_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with lock.alone(work), pytest.raises(SuiteError, match="Another run"), lock.alone(work):
        pass
    with lock.alone(work):
        pass


def test_stand_ins_are_extensions_that_the_server_can_find(tmp_path: Path) -> None:
    folder = server.make_extensions(tmp_path / "stand-ins") / "extension"
    made = sorted(path.name for path in folder.iterdir())
    assert made == ["pgcrypto--1.0.sql", "pgcrypto.control",
                    "uuid-ossp--1.0.sql", "uuid-ossp.control"]  # fmt: skip


def test_the_settings_of_the_suite_stand_alone_in_their_folder() -> None:
    """That folder is on the path of Django's tests: nothing else of ours may be importable."""
    folder = Path(environment.__file__).parent / "on_path"
    assert [path.name for path in folder.glob("*.py")] == ["django_suite_settings.py"]
