"""Which tests are run: the user's words as labels of runtests.py."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from devtools.django_suite.errors import SuiteError

LISTS = {name: Path(__file__).with_name(f"{name}.txt") for name in ("core", "ci")}


def resolve(words: Sequence[str], tests: Path) -> tuple[str, ...]:
    """Labels for the suite in *tests*; none at all means every test.

    What a list names and this version of Django lacks is left out. Raises SuiteError for any
    other word that is no test package.
    """
    if not words:
        raise SuiteError("No labels were given: name some, or one of the words ci, core, all.")
    if "all" in words:
        return ()
    labels: list[str] = []
    for word in words:
        if word in LISTS:
            labels += [label for label in listed(LISTS[word].read_text()) if _known(label, tests)]
        elif _known(word, tests):
            labels.append(word)
        else:
            raise SuiteError(_unknown(word, tests))
    return tuple(dict.fromkeys(labels))


def listed(text: str) -> list[str]:
    """The labels of a list file: one a line; the rest of a line after # is a comment."""
    words = (line.partition("#")[0].strip() for line in text.splitlines())
    return [word for word in words if word]


def covers(labels: Iterable[str], test: str) -> bool:
    """Whether a run of *labels* includes *test*; no labels are all tests."""
    labels = tuple(labels)
    return not labels or any(test == label or test.startswith(f"{label}.") for label in labels)


def _known(label: str, tests: Path) -> bool:
    return (tests / label.split(".")[0] / "__init__.py").exists()


def _unknown(word: str, tests: Path) -> str:
    known = [path.parent.name for path in tests.glob("*/__init__.py")]
    near = difflib.get_close_matches(word.split(".")[0], known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{word!r} is not a test label of this version of Django.{hint}"
