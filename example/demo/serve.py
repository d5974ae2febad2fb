"""make demo SERVE=1: the shop stays up with one variant until it is interrupted."""

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from example.demo.database import TEMPLATE, Database
from example.demo.facts import DemoError
from example.demo.interrupts import check, uninterrupted
from example.demo.site import Site
from example.variants import Variant

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
    say("Ctrl-C ends it and removes its database.")
    while site.process.exit_code is None:
        check()
        time.sleep(0.5)
    raise DemoError(f"gunicorn ended.\n{site.process.tail()}")


def _make_admin(database: Database) -> str:
    """A superuser for this run; its password."""
    password = secrets.token_urlsafe(9)
    database.manage(
        "createsuperuser", "--noinput", f"--username={ADMIN}", "--email=admin@example.com",
        environ={"DJANGO_SUPERUSER_PASSWORD": password},
    )  # fmt: skip
    return password
