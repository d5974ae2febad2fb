"""Our end of a peer's process (benchmarks.worker); lives for one benchmark or one round of it."""

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers import STOCK, Driver, Peer, PoolSize

ROOT = Path(__file__).parent.parent
START_LIMIT_S = 60.0
TASK_LIMIT_S = 120.0


class PeerError(Exception):
    """The peer cannot do what was asked; the text is its own error."""


class Stalled(PeerError):
    """The peer has not answered within the time given; its process is gone."""


class PeerProcess:
    """One peer with one database; ask() gives it a task and waits for the answer."""

    def __init__(
        self,
        peer: Peer,
        address: dict[str, Any],
        size: PoolSize,
        driver: Driver = "psycopg",
    ) -> None:
        self.peer = peer
        self._setup = {
            "greenlets": peer.greenlets,
            "keeps": peer.keeps,
            "driver": driver,
            "databases": {
                "default": {**address, **peer.database(size, driver)},
                "plain": {**address, "ENGINE": STOCK},
            },
        }
        self._driver = driver

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and have it load Django with the peer's settings."""
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        if self._driver == "psycopg2":
            path.insert(0, str(ROOT / "devtools" / "without_psycopg"))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
            cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )  # fmt: skip
        try:
            self._exchange(self._setup, START_LIMIT_S)
        except BaseException:
            self.stop()
            raise

    def ask(self, task: str, limit_s: float = TASK_LIMIT_S, /, **args: Any) -> Any:
        """Have *task* of benchmarks.tasks carried out; PeerError if it fails, Stalled if late."""
        return self._exchange({"task": task, "args": args}, limit_s)

    def stop(self) -> None:
        """End the process; never waits for the peer's own shutdown."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def _exchange(self, request: dict[str, Any], limit_s: float) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(self._last_words()) from None
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            self._process.kill()
            raise Stalled(f"no answer within {limit_s:.0f} s")
        answer = self._process.stdout.readline()
        if not answer:
            raise PeerError(self._last_words())
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply["result"]

    def _last_words(self) -> str:
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        said = [line for line in lines if line.strip()][-1:]
        return f"its process ended with {self._process.returncode}: {''.join(said)}"
