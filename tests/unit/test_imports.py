"""Imports point one way, and only where each room may look."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_psycopg_pooled

ROOT = Path(django_psycopg_pooled.__file__).parent
PACKAGE = "django_psycopg_pooled"

# room: (rooms of ours that it may import, packages of others that it may import)
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "version": (set(), set()),
    "errors": (set(), set()),
    "clock": (set(), set()),
    "facts": (set(), set()),
    "option_values": (set(), set()),
    "options": ({"errors", "option_values"}, set()),
    "session": (set(), set()),
    "resets": ({"session", "drivers"}, set()),
    "observing": ({"facts"}, set()),
    "forking": (set(), set()),
    "stats": (set(), set()),
    "server": ({"facts"}, set()),
    "tables": ({"facts"}, set()),
    "runtime": ({"clock"}, set()),
    "drivers": ({"errors", "session"}, set()),
    "drivers.psycopg3_binding": ({"drivers"}, {"psycopg"}),
    "drivers.psycopg2_binding": ({"drivers"}, {"psycopg2"}),
    "drivers.psycopg3_shape": (set(), {"psycopg"}),
    "drivers.psycopg3": ({"errors", "session", "drivers", "drivers.psycopg3_shape"}, {"psycopg"}),
    "drivers.psycopg2_shape": (set(), set()),
    "drivers.psycopg2_cancel": (set(), {"psycopg2"}),
    "drivers.psycopg2_room": (
        {"session", "drivers.psycopg2_shape", "drivers.psycopg2_cancel"},
        {"psycopg2"},
    ),
    "drivers.psycopg2": (
        {
            "errors",
            "session",
            "drivers",
            "drivers.psycopg2_room",
            "drivers.psycopg2_shape",
            "drivers.psycopg2_cancel",
        },
        {"psycopg2"},
    ),
    "pool": (
        {
            "errors",
            "clock",
            "facts",
            "options",
            "tables",
            "session",
            "resets",
            "observing",
            "forking",
            "runtime",
            "drivers",
        },
        set(),
    ),
    "preparing": ({"clock", "drivers", "forking", "facts", "statements"}, set()),
    "statements": ({"clock", "session", "forking", "stats", "facts"}, set()),
    "tracking": (set(), set()),
    "testing": ({"errors", "session", "runtime", "drivers"}, set()),
    "execution": (
        {"clock", "options", "session", "drivers", "statements", "preparing", "tracking"},
        set(),
    ),
    # Below this line Django is imported, and nowhere above it.
    "signals": (set(), {"django"}),
    "control": ({"clock", "errors", "forking", "pool"}, set()),
    "integration": (
        {
            "control",
            "errors",
            "clock",
            "forking",
            "options",
            "facts",
            "tables",
            "server",
            "signals",
            "runtime",
            "session",
            "pool",
            "drivers",
            "drivers.psycopg3",
            "drivers.psycopg2",
            "drivers.psycopg3_binding",
            "drivers.psycopg2_binding",
            "preparing",
            "stats",
            "statements",
            "tracking",
            "execution",
        },
        {"django", "celery"},
    ),
    "testing.idling": ({"drivers", "pool", "session", "facts"}, set()),
    "testing.assertions": (
        {"integration", "pool", "facts", "statements", "testing.idling"},
        {"django"},
    ),
    "testing.faults": ({"integration"}, {"django"}),
    "backends": ({"integration"}, {"django"}),
    "checks": ({"control", "errors", "options", "integration"}, {"django"}),
    "management": (
        {
            "version",
            "clock",
            "control",
            "integration",
            "facts",
            "tables",
            "server",
            "statements",
            "stats",
        },
        {"django"},
    ),
    "apps": ({"checks", "integration", "management"}, {"django"}),
    "": ({"errors", "version", "integration", "preparing"}, set()),
}


def _room(module: str) -> str:
    """The room of a module, by its dotted name without the package's."""
    if module in ROOMS:
        return module
    return module.split(".")[0]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            if node.module == PACKAGE:  # its modules, or what it exports
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def _sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_each_room_imports_only_what_it_may(path: Path) -> None:
    relative = path.relative_to(ROOT).with_suffix("")
    own = _room(".".join(p for p in relative.parts if p != "__init__"))
    ours, others = ROOMS[own]
    for name in _imports(path):
        top = name.split(".")[0]
        if top == PACKAGE:
            room = _room(name.removeprefix(PACKAGE).lstrip("."))
            assert room == own or room in ours, f"{own} imports {room}"
        elif top not in sys.stdlib_module_names:
            assert top in others, f"{own} imports {top}"


def test_only_the_clock_asks_for_the_time_above_djangos_line() -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in _sources()
        if "time" in {name.split(".")[0] for name in _imports(path)}
    ]
    # Django's wrapper keeps close_at by its own clock.
    assert users == ["clock.py", "integration/wrapper.py"]


def test_importing_the_package_imports_neither_django_nor_a_driver() -> None:
    code = (
        "import sys, django_psycopg_pooled as p, django_psycopg_pooled.pool.pool;"
        "assert not {'django', 'psycopg', 'psycopg2'} & set(sys.modules), sorted(sys.modules);"
        "assert p.PoolTimeout.code == 'P101'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_computed_under_a_lock_that_no_child_renews(path: Path) -> None:
    """On Python 3.11 functools.cached_property has one for all instances; Django's has none."""
    text = path.read_text()
    assert not re.search(
        r"from functools import .*cached_property|functools\.cached_property", text
    )
