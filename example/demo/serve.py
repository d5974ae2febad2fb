"""make demo SERVE=1: the shop stays up with one variant until it is interrupted."""

import contextlib
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from example.demo.database import TEMPLATE, Database
from example.demo.facts import DemoError
from example.demo.interrupts import check, uninterrupted
from example.demo.process import ROOT
from example.demo.site import Site
from example.variants import OURS, Variant

ADMIN = "admin"


def serve(
    variant: Variant,
    port: int,
    database: Database,
    folder: Path,
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
) -> None:
    """Serve the shop; returns only by KeyboardInterrupt, or by DemoError if gunicorn ends."""
    password = _make_admin(database)
    site = Site(variant, TEMPLATE, folder)
    with uninterrupted():
        stack.callback(site.stop)
        site.start(database.environ(TEMPLATE), port)
    site.wait_until_ready()
    say(f"\nThe shop, with {variant.title}:  {site.url}")
    say(f"Its staff pages:  {site.url}admin/  as {ADMIN!r} with the password {password!r}")
    if variant.engine == OURS:
        say(f"Its pools, from another terminal:  {_manage_script(site)} pools")
    say("Ctrl-C ends it and removes its database.")
    while site.process.exit_code is None:
        check()
        time.sleep(0.5)
    raise DemoError(f"gunicorn ended.\n{site.process.tail()}")


def _manage_script(site: Site) -> Path:
    """manage.py with the site's settings, its password among them; in the demo's own folder."""
    script = site.folder / "manage"
    exports = (f"export {name}={shlex.quote(value)}" for name, value in site.environ.items())
    call = f'exec {shlex.quote(sys.executable)} -m example.manage "$@"'
    lines = ["#!/bin/sh", f"cd {shlex.quote(str(ROOT))} || exit", *exports, call]
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o700)
    return script


def _make_admin(database: Database) -> str:
    """A superuser for this run; its password."""
    password = secrets.token_urlsafe(9)
    database.manage(
        "createsuperuser", "--noinput", f"--username={ADMIN}", "--email=admin@example.com",
        environ={"DJANGO_SUPERUSER_PASSWORD": password},
    )  # fmt: skip
    return password
