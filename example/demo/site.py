"""The shop served by gunicorn with one variant's settings; lives from start() to stop()."""

import http.client
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from example.demo.facts import DemoError
from example.demo.interrupts import check, uninterrupted
from example.demo.manage import manage
from example.demo.process import Process
from example.variants import Variant

HOST = "127.0.0.1"
READY_WITHIN_S = 30.0


class Site:
    """One gunicorn: its socket, its processes, its log."""

    def __init__(self, variant: Variant, database: str, folder: Path) -> None:
        self.variant = variant
        self.database = database
        self.environ: Mapping[str, str] = {}  # of its processes, and of manage.py for it
        self.folder = folder
        self.process = Process(f"gunicorn ({variant.title})", folder / f"{variant.key}.log")
        self.port = 0

    def start(self, environ: Mapping[str, str], port: int = 0) -> None:
        """Start gunicorn on *port*, 0 for a free one; does not wait for it."""
        self.environ = {**environ, "SHOP_BACKEND": self.variant.key}
        # Bound here and inherited: no moment in which another program could take the port.
        with uninterrupted(), _listen(port) as listener:
            self.port = listener.getsockname()[1]
            fd = listener.fileno()
            self.process.start(
                ["-m", "gunicorn", "-c", "example/gunicorn_conf.py", "-b", f"fd://{fd}",
                 "example.wsgi"],
                self.environ,
                pass_fds=[fd],
            )  # fmt: skip

    def stop(self) -> None:
        self.process.stop()

    def manage(self, *arguments: str) -> str:
        """Run one manage.py command with the site's settings; its output."""
        return manage(self.folder, self.environ, *arguments)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def wait_until_ready(self) -> None:
        """Until the front page is there; DemoError with gunicorn's last words if it never is."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not (status := self._front_page()):
            if self.process.exit_code is not None or time.monotonic() > deadline:
                raise DemoError(f"gunicorn does not serve the site.\n{self.process.tail()}")
            check()
            time.sleep(0.1)
        if status != 200:
            raise DemoError(f"The site answers with {status}.\n{self.process.tail()}")

    def _front_page(self) -> int:
        """The status of the front page; 0 if there is no answer yet."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=512)
    except OSError as error:
        raise DemoError(
            f"Port {port} of {HOST} cannot be used: {os.strerror(error.errno or 0)}. "
            "Choose another with PORT=..., or none for a free one."
        ) from None
