"""Every way to say where the server is, and what a user reads if it is not there."""

import functools
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import OperationalError

from devtools.postgres import PostgresServer, free_port
from django_psycopg_pooled.integration.driver import DRIVER
from tests.server.databases import Databases, looked_after
from tests.server.support import (
    DATABASE,
    DEBIAN_BIN,
    borrow,
    eventually,
    pool_of,
    require,
    run_script,
    value,
)


def twice(databases: Databases, sql: str, **entry: object) -> object:
    """What *sql* gives on the second loan of one connection."""
    connection = databases.add(**entry)  # type: ignore[arg-type]
    first = borrow(connection)
    connection.close()
    assert borrow(connection) == first
    return value(connection, sql)


def test_a_service_file_names_the_server(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = databases.server
    file = tmp_path / "services.conf"
    file.write_text(
        f"[shop]\nhost={server.host}\nport={server.port}\nuser={server.user}\n"
        f"password={server.password}\ndbname={DATABASE}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    nothing = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), "")
    found = twice(databases, "SELECT current_database()", options={"service": "shop"}, **nothing)
    assert found == DATABASE


def test_a_password_file_gives_the_password(databases: Databases, tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{databases.server.password}\n")
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    entry = {"PASSWORD": "", "options": {"passfile": str(file)}}
    assert twice(databases, "SELECT 1", **entry) == 1


def test_a_unix_socket_may_be_the_host(databases: Databases) -> None:
    folder = str(databases.server.data.parent)
    assert twice(databases, "SELECT inet_server_addr() IS NULL", HOST=folder) is True


def test_several_hosts_are_tried_until_one_can_be_written_to(databases: Databases) -> None:
    port = databases.server.port
    found = twice(
        databases,
        "SELECT inet_server_port()",
        HOST="127.0.0.1,127.0.0.1",
        PORT=f"{free_port()},{port}",
        options={"target_session_attrs": "read-write"},
    )
    assert found == port


def test_one_port_serves_several_hosts(databases: Databases) -> None:
    options = {"target_session_attrs": "read-write"}
    assert twice(databases, "SELECT 1", HOST="127.0.0.1,127.0.0.1", options=options) == 1


def test_a_server_that_is_not_what_the_attributes_want_is_refused(databases: Databases) -> None:
    connection = databases.add(
        HOST="127.0.0.1,127.0.0.1", options={"target_session_attrs": "standby"}
    )
    with pytest.raises(OperationalError, match="not in hot standby mode"):
        connection.ensure_connection()


# Without an answer within this, a request would have waited for the pool's timeout.
FAST_S = 10.0


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"PASSWORD": "wrong"}, "password authentication failed for user"),
        ({"NAME": "no_such_database"}, 'database "no_such_database" does not exist'),
        ({"USER": "nobody_knows"}, "password authentication failed|does not exist"),
        ({"options": {"sslmode": "require"}}, "server does not support SSL"),
        ({"options": {"no_such_option": "1"}}, "invalid .*option"),
    ],
    ids=["password", "database", "user", "TLS", "option"],
)
@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_wrong_setting_fails_at_once_in_the_drivers_words(
    databases: Databases, entry: dict[str, object], words: str, num_workers: int
) -> None:
    connection = databases.add({"num_workers": num_workers}, **entry)  # type: ignore[arg-type]
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(connection.Database.Error.__mro__[1], match=words) as raised:
            connection.ensure_connection()
        assert time.monotonic() - began < FAST_S
        assert DRIVER.PoolTimeout not in map(type, (raised.value, raised.value.__cause__))


@pytest.mark.parametrize("num_workers", [3, 0])
def test_a_server_that_is_not_there_fails_the_first_request_at_once(
    databases: Databases, num_workers: int
) -> None:
    connection = databases.add({"num_workers": num_workers}, PORT=str(free_port()))
    began = time.monotonic()
    with pytest.raises(OperationalError, match="Connection refused") as raised:
        connection.ensure_connection()
    assert time.monotonic() - began < FAST_S
    assert isinstance(raised.value.__cause__, connection.Database.OperationalError)
    assert connection.connection is None
    assert not pool_of(connection).snapshot().count("lent")


def test_a_password_stays_out_of_the_error(databases: Databases) -> None:
    connection = databases.add(PASSWORD="hunter2 is secret")
    with pytest.raises(OperationalError) as raised:
        connection.ensure_connection()
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in pool_of(connection).as_table()
    assert "hunter2" not in repr(pool_of(connection))


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, Path]]:
    """A server with a certificate of an authority of our own, and the authority's certificate."""
    require(DEBIAN_BIN.is_dir(), "TLS needs Debian's server: 'apt-get install postgresql-15'.")
    require(Path("/usr/bin/openssl").exists(), "TLS needs openssl: 'apt-get install openssl'.")
    folder = tmp_path_factory.mktemp("tls")
    make = functools.partial(openssl, folder)
    make("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test CA",
         "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    make("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
         "-keyout", "server.key", "-out", "server.csr")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    make("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
         "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.crt")  # fmt: skip
    with PostgresServer(bin_dir=DEBIAN_BIN, system_user="postgres") as server:
        owner = server.data.stat()
        for name in ("server.key", "server.crt"):
            file = server.data / name
            file.write_bytes((folder / name).read_bytes())
            file.chmod(0o600)
            os.chown(file, owner.st_uid, owner.st_gid)
        server.configure({"ssl": "on"})
        server.restart()
        server.create_database(DATABASE)
        yield server, folder / "ca.crt"


@pytest.fixture
def tls_databases(tls: tuple[PostgresServer, Path]) -> Iterator[Databases]:
    yield from looked_after(Databases(tls[0]))


ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def test_a_connection_may_be_encrypted_and_the_server_verified(
    tls_databases: Databases, tls: tuple[PostgresServer, Path]
) -> None:
    options = {"sslmode": "verify-full", "sslrootcert": str(tls[1])}
    assert twice(tls_databases, ENCRYPTED, options=options) is True


def test_an_encrypted_connection_that_the_server_ended_is_replaced(
    tls_databases: Databases, tls: tuple[PostgresServer, Path]
) -> None:
    options = {"sslmode": "verify-full", "sslrootcert": str(tls[1])}
    connection = tls_databases.add(options=options)
    first = borrow(connection)
    connection.close()
    tls_databases.server.terminate_backends(DATABASE)
    assert value(connection, ENCRYPTED) is True
    assert borrow(connection) != first
    eventually(lambda: pool_of(connection).get_stats()["connections_lost"] == 1)


ENCRYPTED_AT_A_FORK = """
import os
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
    raw = connection.connection
    forked = os.fork()
    if not forked:
        try:
            cursor.execute("SELECT 'the child'")
        except Exception:
            raw.close()  # TLS would say goodbye
            with connection.cursor() as own:
                own.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                os._exit(0 if own.fetchone() == (True,) else 2)
        os._exit(1)
    assert os.waitpid(forked, 0)[1] == 0
    cursor.execute("SELECT 'the parent'")
    assert cursor.fetchone() == ("the parent",)
"""


def test_a_child_of_fork_says_no_word_on_its_parents_encrypted_connection(
    tls_databases: Databases, tls: tuple[PostgresServer, Path]
) -> None:
    options = {"sslmode": "verify-full", "sslrootcert": str(tls[1])}
    done = run_script(ENCRYPTED_AT_A_FORK, {"default": tls_databases.settings(options=options)})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_certificate_of_a_stranger_is_refused_at_once(
    tls_databases: Databases, tls: tuple[PostgresServer, Path], tmp_path: Path
) -> None:
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=stranger", "-keyout", "key", "-out", "crt")  # fmt: skip
    options = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "crt")}
    connection = tls_databases.add(options=options)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        connection.ensure_connection()
