"""A process migrates; the prepared statements of others on the machine mean what they meant."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.databases import Databases
from tests.server.processes import Program
from tests.server.support import DATABASE
from tests.server.test_control_socket import CONTROLLED, SCRIPT, files

MIGRATED = {
    **CONTROLLED,
    "project_settings.py": CONTROLLED["project_settings.py"] + "INSTALLED_APPS.append('people')\n",
    "people/__init__.py": "",
    "people/models.py": "",
    "people/migrations/__init__.py": "",
    "people/migrations/0001_initial.py": """
from django.db import migrations
class Migration(migrations.Migration):
    initial = True
    operations = [migrations.RunSQL("ALTER TABLE people ALTER name TYPE citext")]
""",
    # Statements that do not select the column: of those that do the server says that they changed.
    "server.py": SCRIPT
    + """
done = Path(__file__).parent / "migrated"
def count():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM people WHERE name = %s", ["anna"])
        return cursor.fetchone()[0]
listen()
print("before:", [count() for _ in range(3)], "here", flush=True)
eventually(done.exists, 30)
print("after:", [count() for _ in range(3)], flush=True)
""",
}
PREPARED = {"prepare": "auto", "prepare_threshold": 0, "max_size": 1}


@pytest.fixture
def folder(databases: Databases, script_folder: Callable[[dict[str, str]], Path]) -> Iterator[Path]:
    psql = databases.server.psql
    psql("CREATE EXTENSION IF NOT EXISTS citext", DATABASE)
    psql("CREATE TABLE people AS SELECT 'Anna'::varchar(20) AS name", DATABASE)
    yield script_folder(MIGRATED)
    psql("DROP TABLE people; DROP TABLE IF EXISTS django_migrations", DATABASE)


def run(databases: Databases, folder: Path, *arguments: str) -> Program:
    return Program(folder, *arguments, databases={"default": databases.settings(PREPARED)})


def migrate(databases: Databases, folder: Path) -> str:
    with run(databases, folder, "-m", "django", "migrate") as migrating:
        assert migrating.end() == 0, migrating.text()
        return migrating.text()


def test_a_migration_has_other_processes_prepare_anew(databases: Databases, folder: Path) -> None:
    """Else they would go on to compare a column as text that is citext now, without an error."""
    with run(databases, folder, "server.py") as serving:
        serving.wait_for("here")
        assert "before: [0, 0, 0]" in serving.text()
        assert "prepared before" not in migrate(databases, folder)
        (folder / "migrated").touch()
        assert serving.end() == 0
        assert "after: [1, 1, 1]" in serving.text()


def test_a_process_that_hangs_delays_a_migration_by_seconds_and_is_named(
    databases: Databases, folder: Path
) -> None:
    with run(databases, folder, "server.py") as serving:
        serving.wait_for("here")
        serving.signal(signal.SIGSTOP)
        [name] = files(folder)
        said = migrate(databases, folder)
    assert said.count("prepared before") == 1
    assert f"process {name.partition('-')[0]} may go on" in said
    assert "no answer within" in said
