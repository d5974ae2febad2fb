"""One Django for the whole run, one server for those who need it, and pools that are looked after.

The server starts when a test first asks for it: the tests in tests/unit never do.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import django
import pytest
from django.conf import settings

from devtools.postgres import PostgresServer

pytest.register_assert_rewrite("tests.server.support", "tests.server.databases")

from tests.server.databases import Databases, looked_after  # noqa: E402
from tests.server.support import DATABASE, DEBIAN_BIN, ENGINE, require  # noqa: E402

settings.configure(
    # Each test makes the aliases that it needs; this one is only there because Django wants it.
    DATABASES={"default": {"ENGINE": ENGINE, "NAME": "no such database"}},
    INSTALLED_APPS=[],
    USE_TZ=True,
    TIME_ZONE="UTC",
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

# Files that take 20 s or more. They go first, so that all processes of a run end at the same time.
LONGEST = (
    "test_benchmarks", "test_demo", "test_faults", "test_celery", "test_failover", "test_gevent",
    "test_who_holds", "test_killed_server", "test_fork", "test_testing_kit",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After pytest-randomly, which shuffles the files."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else 99)


# Files come in any order, to either process of a run: none may meet what another has left.
DROP_TABLES = """
DO $$ DECLARE left_over text; BEGIN
    FOR left_over IN SELECT relname FROM pg_class c
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS public.%I CASCADE', left_over);
    END LOOP;
END $$
"""
_running: list[PostgresServer] = []


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A server with a database, for all tests of this run."""
    with PostgresServer() as server:
        server.create_database(DATABASE)
        _running.append(server)
        yield server
        _running.remove(server)


@pytest.fixture(scope="module", autouse=True)
def _no_tables_for_the_next_file() -> Iterator[None]:
    yield
    for server in _running:
        server.psql(DROP_TABLES, DATABASE)


@pytest.fixture(scope="session")
def debian_server() -> Iterator[PostgresServer]:
    """Debian's server, which knows TLS and PostGIS; the embedded one does not."""
    require(
        DEBIAN_BIN.is_dir(),
        f"{DEBIAN_BIN} is missing: 'apt-get install postgresql-15' brings a server with TLS.",
    )
    with PostgresServer(bin_dir=DEBIAN_BIN, system_user="postgres") as server:
        server.create_database(DATABASE)
        yield server


@pytest.fixture
def databases(server: PostgresServer) -> Iterator[Databases]:
    """Aliases on the shared server. After the test nothing may be lent, and nothing be lost."""
    yield from looked_after(Databases(server))


@pytest.fixture
def debian_databases(debian_server: PostgresServer) -> Iterator[Databases]:
    """Aliases on Debian's server."""
    yield from looked_after(Databases(debian_server))


@pytest.fixture
def script_folder(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Writes files by their relative paths into a new folder, and returns it."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write
