"""No driver is installed: development on SQLite, or an install that chose no extra."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.support import run_python

MISSING = 'raise ModuleNotFoundError("No module named {0}", name="{0}")'
DRIVERS = {f"{name}/__init__.py": MISSING.format(name) for name in ("psycopg", "psycopg2")}
CODE = """
import json, os
from django.conf import settings
settings.configure(
    DATABASES=json.loads(os.environ["TEST_DATABASES"]),
    INSTALLED_APPS=["django.contrib.contenttypes", "django_psycopg_pooled"],
)
import django
from django.core.management import call_command
django.setup()
"""
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
OURS = {"ENGINE": "django_psycopg_pooled.backends.postgresql", "NAME": "shop"}
POSTGIS = {"ENGINE": "django_psycopg_pooled.backends.postgis", "NAME": "shop"}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(script_folder: Callable[[dict[str, str]], Path]) -> Run:
    """Runs code with these DATABASES where neither driver can be imported."""
    path = os.pathsep.join([str(script_folder(DRIVERS)), os.environ.get("PYTHONPATH", "")])

    def run(databases: object, code: str) -> "subprocess.CompletedProcess[str]":
        environ = {"PYTHONPATH": path, "TEST_DATABASES": json.dumps(databases)}
        return run_python("-c", CODE + code, environ=environ)

    return run


def test_django_runs_on_sqlite(run: Run) -> None:
    done = run({"default": SQLITE}, "call_command('check'); call_command('migrate')")
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout + done.stderr


@pytest.mark.parametrize("ours", [OURS, POSTGIS])
def test_an_alias_that_needs_a_driver_is_named_by_a_check(run: Run, ours: object) -> None:
    code = "call_command('check', tags=['django_psycopg_pooled'])"
    done = run({"default": SQLITE, "shop": ours}, code)
    assert done.returncode != 0
    assert "(django_psycopg_pooled.E003) DATABASES['shop']: Error loading psycopg2 or" in (
        done.stderr
    )
    assert "django-psycopg-pooled[psycopg]" in done.stderr


@pytest.mark.parametrize("ours", [OURS, POSTGIS])
@pytest.mark.parametrize(
    "code",
    [
        "from django.db import connection; connection.cursor()",
        "call_command('migrate')",
        "from django_psycopg_pooled import pools",
    ],
)
def test_what_needs_a_driver_says_how_to_get_one(run: Run, ours: object, code: str) -> None:
    done = run({"default": ours}, code)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "django.core.exceptions.ImproperlyConfigured: Error loading psycopg2 or psycopg module"
    )
    assert 'pip install "django-psycopg-pooled[psycopg]" for psycopg 3' in last
    assert "[psycopg2]" in last
