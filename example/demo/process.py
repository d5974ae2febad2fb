"""One program of the demo, with all its children; lives from start() to stop()."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from example.demo.interrupts import listen_again, uninterrupted

ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 25


class Process:
    """A Python program in a session of its own: the terminal's Ctrl-C reaches only the driver."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        output: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Run `python *arguments*`; standard output goes to the log unless *output* is given.

        Uninterrupted: an interrupt within the fork is dropped by Python, or loses the child.
        """
        with (
            uninterrupted(),
            self.log.open("ab") as log,
            (output or self.log).open("ab") as out,
        ):
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=listen_again,
            )

    @property
    def pid(self) -> int:
        """Of the program itself; 0 before it is started."""
        return self._popen.pid if self._popen else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and before."""
        return self._popen.poll() if self._popen else None

    def wait(self, seconds: float) -> bool:
        """Whether it ended within *seconds*."""
        if self._popen is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)
        return self._popen.returncode is not None

    def ask_to_end(self) -> None:
        """Tell it to end, if it runs; does not wait."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.terminate()

    def stop(self, seconds: float = 10.0) -> None:
        """End it and its children: asked first, killed after *seconds*."""
        if self._popen is None:
            return
        self.ask_to_end()
        self.wait(seconds)
        # The session may outlive its leader.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def tail(self) -> str:
        """The last lines of the log, for people."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        shown = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
        return f"{self.name} wrote last:\n{shown or '    (nothing)'}"
