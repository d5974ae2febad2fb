"""Runs a manage.py command of the shop, as a person would from a terminal."""

from collections.abc import Mapping
from pathlib import Path

from example.demo.facts import DemoError
from example.demo.interrupts import uninterrupted
from example.demo.process import Process

ENDS_WITHIN_S = 60.0


def manage(folder: Path, environ: Mapping[str, str], *arguments: str) -> str:
    """Run it to its end; its output. DemoError with its last words if it fails.

    folder   for its output and its log
    """
    output = folder / "manage.out"
    output.unlink(missing_ok=True)
    process = Process(f"manage.py {arguments[0]}", folder / "manage.log")
    try:
        process.start(["-m", "example.manage", *arguments], environ, output=output)
        if not process.wait(ENDS_WITHIN_S) or process.exit_code:
            raise DemoError(f"manage.py {arguments[0]} failed.\n{process.tail()}")
    finally:
        with uninterrupted():
            process.stop()
    return output.read_text().strip()
