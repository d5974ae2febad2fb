"""Whole test runs of a small project, each in a process of its own, as users start them."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.databases import Databases
from tests.server.support import ROOT, run_python

Write = Callable[[dict[str, str]], Path]

SETTINGS = """
import json, os
DATABASES = json.loads(os.environ["TEST_DATABASES"])
INSTALLED_APPS = ["notes"]
SECRET_KEY = "x"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "notes.urls"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
STATIC_URL = "static/"
"""
MODELS = """
from django.db import models

class Note(models.Model):
    text = models.TextField()
"""
MIGRATION = """
from django.db import migrations, models

def first_note(apps, schema_editor):
    apps.get_model("notes", "Note").objects.create(text="from the migration")

class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel("Note", [
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("text", models.TextField()),
        ]),
        migrations.RunPython(first_note, migrations.RunPython.noop),
    ]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from notes.models import Note

def count(request):
    return HttpResponse(str(Note.objects.count()))

def add(request):
    Note.objects.create(text="from the page")
    return HttpResponse("done")

urlpatterns = [path("count/", count), path("add/", add)]
"""
# Two classes of each kind, so that two processes have something to do.
DJANGO_TESTS = """
import threading
import urllib.request
from django.db import connection, transaction
from django.test import LiveServerTestCase, TestCase, TransactionTestCase
from notes.models import Note

class Plain:
    def test_pooled(self):
        assert connection.pool is not None
        assert connection.settings_dict["NAME"].startswith("test_")

    def test_isolated(self):
        Note.objects.create(text="mine")
        self.assertEqual(Note.objects.filter(text="mine").count(), 1)

    def test_isolated_too(self):
        self.test_isolated()

class Plain1(Plain, TestCase):
    pass

class Plain2(Plain, TestCase):
    pass

class Serialized(TransactionTestCase):
    serialized_rollback = True

    def test_has_the_migrations_data(self):
        self.assertEqual(Note.objects.get().text, "from the migration")
        Note.objects.all().delete()

    def test_has_it_again(self):
        self.test_has_the_migrations_data()

class Threads(TransactionTestCase):
    serialized_rollback = True

    def test_threads_see_what_was_committed(self):
        Note.objects.create(text="seen")
        seen = []
        def look():
            seen.append(Note.objects.filter(text="seen").count())
            connection.close()
        threads = [threading.Thread(target=look) for _ in range(5)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        self.assertEqual(seen, [1] * 5)

class Live:
    serialized_rollback = True

    def get(self, path):
        with urllib.request.urlopen(self.live_server_url + path) as page:
            return page.read().decode()

    def test_pages_read_and_write(self):
        before = Note.objects.count()
        self.assertEqual(self.get("/count/"), str(before))
        self.assertEqual(self.get("/add/"), "done")
        self.assertEqual(Note.objects.count(), before + 1)
        with transaction.atomic():
            self.assertEqual(Note.objects.select_for_update().count(), before + 1)

class Live1(Live, LiveServerTestCase):
    pass

class Live2(Live, LiveServerTestCase):
    pass
"""
PYTEST_TESTS = """
import threading
import pytest
from django.db import connection
from notes.models import Note

@pytest.mark.django_db
def test_isolated():
    assert connection.pool is not None
    assert Note.objects.count() == 1
    Note.objects.create(text="mine")

@pytest.mark.django_db
def test_isolated_too():
    assert Note.objects.count() == 1

@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_with_a_thread():
    Note.objects.create(text="seen")
    def look():
        assert Note.objects.filter(text="seen").exists()
        connection.close()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

@pytest.mark.django_db(transaction=True)
def test_live(live_server):
    import urllib.request
    with urllib.request.urlopen(live_server.url + "/count/") as page:
        assert page.read().decode() == str(Note.objects.count())

def test_forbidden_without_the_mark():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Note.objects.count()
"""
MIRROR_TESTS = """
from django.db import connections
from django.test import TransactionTestCase
from notes.models import Note

class Mirrored:
    databases = {"default", "replica"}

    def test_the_mirror_sees_what_was_written(self):
        Note.objects.create(text="mine")
        self.assertEqual(Note.objects.using("replica").filter(text="mine").count(), 1)
        assert connections["replica"].pool is not connections["default"].pool

class Mirrored1(Mirrored, TransactionTestCase):
    pass

class Mirrored2(Mirrored, TransactionTestCase):
    pass
"""
FILES = {
    "project_settings.py": SETTINGS,
    "notes/__init__.py": "",
    "notes/models.py": MODELS,
    "notes/urls.py": URLS,
    "notes/migrations/__init__.py": "",
    "notes/migrations/0001_initial.py": MIGRATION,
}


def run(
    databases: Databases, folder: Path, *arguments: str, pool: object = True, **more: object
) -> subprocess.CompletedProcess[str]:
    """more   other aliases of DATABASES"""
    settings = {"default": databases.settings(pool), **more}
    return run_python(
        *arguments,
        cwd=folder,
        environ={
            "TEST_DATABASES": json.dumps(settings),
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "PYTHONPATH": path_with(folder),
        },
    )


def path_with(folder: Path) -> str:
    """Also where a driver may be hidden, as in this process."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [str((ROOT / part).resolve()) for part in inherited if part]
    return os.pathsep.join([*absolute, str(folder)])


def assert_quiet_success(done: subprocess.CompletedProcess[str]) -> None:
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "being accessed by other users" not in output
    assert "Warning" not in output, output
    assert "Traceback" not in output, output


def left(databases: Databases) -> list[str]:
    return databases.server.psql(r"SELECT datname FROM pg_database WHERE datname LIKE 'test\_%'")


@pytest.mark.parametrize("pool", [True, {"min_size": 4}, {"num_workers": 0}], ids=str)
@pytest.mark.parametrize("parallel", ["1", "2"])
def test_djangos_runner_passes(
    databases: Databases, script_folder: Write, pool: object, parallel: str
) -> None:
    folder = script_folder({**FILES, "notes/tests.py": DJANGO_TESTS})
    done = run(
        databases, folder, "-W", "default",
        "-m", "django", "test", "--noinput", f"--parallel={parallel}", pool=pool,
    )  # fmt: skip
    assert_quiet_success(done)
    assert "Ran 11 tests" in done.stderr
    assert left(databases) == []


@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_mirror_may_reach_the_server_by_another_address(
    databases: Databases, script_folder: Write, parallel: str
) -> None:
    folder = script_folder({**FILES, "notes/tests.py": MIRROR_TESTS})
    replica = databases.settings(HOST="localhost", TEST={"MIRROR": "default"})
    done = run(
        databases, folder, "-W", "default",
        "-m", "django", "test", "--noinput", f"--parallel={parallel}", replica=replica,
    )  # fmt: skip
    assert_quiet_success(done)
    assert "Ran 2 tests" in done.stderr
    assert left(databases) == []


def test_pytest_django_passes(databases: Databases, script_folder: Write) -> None:
    folder = script_folder(
        {**FILES, "test_notes.py": PYTEST_TESTS, "pytest.ini": "[pytest]\nfilterwarnings = error\n"}
    )
    done = run(databases, folder, "-m", "pytest", "-q", "--create-db", "-p", "no:cacheprovider")
    assert_quiet_success(done)
    assert "5 passed" in done.stdout
    assert left(databases) == []
