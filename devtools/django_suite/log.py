"""What a run of Django's suite said: its log as facts."""

import re
from dataclasses import dataclass, field

from devtools.django_suite.errors import SuiteError, last_lines

RAN = re.compile(r"^Ran (\d+) tests? in [\d.]+s\n\n(OK|FAILED)(?: \((.*)\))?$", re.M)
# ERROR: test_a (backends.tests.SomeTests.test_a) (i=1)
HEAD = re.compile(r"(FAIL|ERROR|UNEXPECTED SUCCESS): (\S+) \(([\w.]+)\)(.*)")
BLOCK = re.compile(rf"^{'=' * 70}\n(?=FAIL: |ERROR: |UNEXPECTED SUCCESS: )", re.M)
TRACEBACK = "Traceback (most recent call last):"
NOT_LOADED = "unittest.loader._FailedTest."


@dataclass(frozen=True, order=True)
class Failure:
    """One test, or subtest, that did not pass. Two are equal if they are of the same test."""

    test: str  # a label for runtests.py: of a test, or of a class that could not be set up
    subtest: str = ""
    kind: str = field(default="FAIL", compare=False)  # FAIL, ERROR or UNEXPECTED SUCCESS
    message: str = field(default="", compare=False)  # the exception's first line
    was_run: bool = field(default=True, compare=False)  # False: only its class was begun

    def __str__(self) -> str:
        return f"{self.kind} {self.test} {self.subtest}".rstrip()


@dataclass(frozen=True)
class Outcome:
    """The result of a complete run."""

    ran: int
    skipped: int
    expected_failures: int  # by unittest.expectedFailure
    failures: tuple[Failure, ...]

    @property
    def failing(self) -> tuple[str, ...]:
        """The tests that did not pass, each once."""
        return tuple(sorted({failure.test for failure in self.failures}))

    @property
    def passed(self) -> int:
        failed = {failure.test for failure in self.failures if failure.was_run}
        return self.ran - self.skipped - self.expected_failures - len(failed)


def read(text: str, status: int) -> Outcome:
    """The outcome of the run that printed *text* and ended with *status*.

    Raises SuiteError if the run did not start, did not finish, could not load a label, or broke
    after its last test: then no number in the log means anything.
    """
    ends = list(RAN.finditer(text))
    if not ends:
        raise _broken("did not start, or not finish", status, text)
    end = ends[-1]
    failures = _failures(text[: end.start()])
    _check_loaded(failures)
    if TRACEBACK in text[end.end() :] or (status != 0) != (end[2] == "FAILED"):
        raise _broken("ended badly after its last test", status, text, failures)
    if bool(failures) != (end[2] == "FAILED"):
        raise _broken("reported failures that could not be read", status, text)
    counts = dict(re.findall(r"(\w[\w ]*)=(\d+)", end[3] or ""))
    return Outcome(
        ran=int(end[1]),
        skipped=int(counts.get("skipped", 0)),
        expected_failures=int(counts.get("expected failures", 0)),
        failures=failures,
    )


def _failures(text: str) -> tuple[Failure, ...]:
    found = (_failure(block) for block in BLOCK.split(text)[1:])
    return tuple(sorted(dict.fromkeys(failure for failure in found if failure)))


def _failure(block: str) -> Failure | None:
    head, _, body = block.partition("\n")
    match = HEAD.match(head)
    if not match:
        return None
    kind, name, test, rest = match.groups()
    return Failure(
        test=test,
        subtest=_alike(rest),
        kind=kind,
        message=_message(body),
        was_run=test.endswith(f".{name}"),
    )


def _alike(subtest: str) -> str:
    """A subtest's description without what differs from run to run.

    The object is unittest's mark for "no message", which a worker process cannot pass on as itself.
    """
    return re.sub(r" at 0x[0-9a-f]+", "", subtest).replace("[<object object>]", "").strip()


def _message(body: str) -> str:
    """The first line of the last exception: of a traceback, all lines before it are indented."""
    _, found, after = body.rpartition(TRACEBACK)
    lines = (line for line in after.splitlines() if line and not line.startswith(" "))
    return next(lines, "") if found else ""


def _check_loaded(failures: tuple[Failure, ...]) -> None:
    missing = [failure for failure in failures if failure.test.startswith(NOT_LOADED)]
    if missing:
        listed = "\n".join(
            f"    {failure.test.removeprefix(NOT_LOADED)}: {failure.message}" for failure in missing
        )
        raise SuiteError(f"These labels could not be loaded (misspelt?):\n{listed}")


def _broken(what: str, status: int, text: str, failures: tuple[Failure, ...] = ()) -> SuiteError:
    before = "".join(f"    {failure}: {failure.message}\n" for failure in failures)
    before = f"Before that, these failed, with ours or with stock too:\n{before}" if before else ""
    return SuiteError(
        f"The suite {what} (status {status}). Its last lines:\n{last_lines(text)}\n{before}"
    )
