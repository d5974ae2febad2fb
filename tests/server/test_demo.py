"""The demo on real processes: what it prints, and that it leaves nothing behind."""

import http.cookiejar
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from example.variants import PLAIN, PREPARED, VARIANTS

ROOT = Path(__file__).resolve().parents[2]
MARK = "DEMO_TEST_RUN"
SHORT = ("--seconds=1", "--rounds=1", "--warm-up=0.3", "--clients=4", "--carrier-ms=10")


class Demo:
    """One run of the demo, marked in its environment, which all its processes inherit."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.output = folder / "output"
        # Not pytest's: PostgreSQL's system user must be able to reach it.
        self.temporary = Path(tempfile.mkdtemp(prefix="demo-test-"))
        self.temporary.chmod(0o755)
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Sequence[str], **environ: str) -> None:
        with self.output.open("wb") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "example.demo", *arguments],
                cwd=ROOT,
                env={**os.environ, **environ, MARK: self.mark, "TMPDIR": str(self.temporary)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def end(self, seconds: float = 120) -> int:
        assert self._popen is not None
        return self._popen.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        assert self._popen is not None
        self._popen.send_signal(number)

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert self._popen is not None
            assert self._popen.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if self._is_mine(p)]

    def left(self) -> list[object]:
        """Processes and folders of this run that are still there."""
        return [*self.processes(), *self.temporary.iterdir()]

    def destroy(self) -> None:
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.temporary)

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    run = Demo(tmp_path)
    yield run
    run.destroy()


def command_lines(demo: Demo) -> str:
    return "\n".join(" ".join(process.cmdline()) for process in demo.processes())


def test_every_variant_has_a_row_without_errors_and_nothing_keeps_running(demo: Demo) -> None:
    demo.start(SHORT)
    assert demo.end() == 0, demo.text()
    for variant in (*VARIANTS, PLAIN, PREPARED):
        [row] = [line for line in demo.text().splitlines() if line.startswith(variant.title)]
        rate, p50, p99, cpu, peak, _connects, errors = row.removeprefix(variant.title).split()
        assert int(rate) > 0
        assert 0 < float(p50) <= float(p99)
        assert float(cpu) > 0
        assert 1 <= int(peak) <= 8
        assert errors == "0"
    assert_statements_are_shown(demo.text())
    assert demo.left() == []


def assert_statements_are_shown(text: str) -> None:
    """With their callers, from gunicorn's own processes; and some of them prepared."""
    assert re.search(r"^ +by example/shop/views.py:\d+ in product_detail \(", text, re.MULTILINE)
    assert "in GET /products/<int:pk>/ (" in text
    figures = r"^ +\d+ +[\d.]+ ms +[\d.]+ ms +\d+ x +[\d.]+ ms +[\d.]+ ms +[\d.]+$"
    assert re.search(figures, text, re.MULTILINE), text
    assert re.search(r"\b[1-9]\d* prepared", text)


def test_an_interrupt_under_load_stops_everything(demo: Demo) -> None:
    demo.start(["--seconds=60", "--rounds=1", "--warm-up=0.1", "--variant", "stock"])
    demo.wait_for("1. Django")
    running = command_lines(demo)
    assert "gunicorn" in running
    assert "postgres" in running
    demo.signal(signal.SIGINT)
    assert demo.end(30) == 130, demo.text()
    assert "Traceback" not in demo.text()
    assert demo.left() == []


@pytest.mark.parametrize("delay_s", [0.3, 1.0])
def test_an_interrupt_while_postgres_starts_stops_everything(demo: Demo, delay_s: float) -> None:
    demo.start(SHORT)
    demo.wait_for("PostgreSQL")
    time.sleep(delay_s)
    demo.signal(signal.SIGTERM)
    assert demo.end(30) == 130, demo.text()
    assert "Traceback" not in demo.text()
    assert demo.left() == []


def test_a_gunicorn_that_does_not_start_is_shown_with_its_log(demo: Demo) -> None:
    demo.start([*SHORT, "--variant", "stock"], GUNICORN_CMD_ARGS="--no-such-option")
    assert demo.end(60) == 1
    assert "gunicorn does not serve the site." in demo.text()
    assert "unrecognized arguments: --no-such-option" in demo.text()
    assert "Traceback" not in demo.text()
    assert demo.left() == []


def test_a_taken_port_is_named(demo: Demo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo.start(["--serve", "--variant", "stock", f"--port={port}"])
        assert demo.end(60) == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in demo.text()
    assert demo.left() == []


def test_a_served_site_lets_its_admin_in_and_stays_until_it_is_interrupted(demo: Demo) -> None:
    demo.start(["--serve", "--variant", "pooled"])
    demo.wait_for("Ctrl-C")
    words = demo.text().split()
    url = next(word for word in words if word.endswith("/admin/"))
    password = words[words.index("password") + 1].strip("'")
    assert logged_in(url, password)
    assert_its_pools_can_be_asked_for(demo.text())
    demo.signal(signal.SIGINT)
    assert demo.end(30) == 130
    assert demo.left() == []


def assert_its_pools_can_be_asked_for(text: str) -> None:
    [call] = re.findall(r"from another terminal: +(.+)", text)
    said = subprocess.run(call.split(), stdout=subprocess.PIPE, text=True, check=True).stdout
    assert re.search(r"^ *\d+ +gunicorn.* default ", said, re.MULTILINE), said


def logged_in(url: str, password: str) -> bool:
    """Whether the admin's start page opens for this password."""
    cookies = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    with opener.open(url) as page:
        login, text = page.url, page.read().decode()
    token = text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    fields = {"username": "admin", "password": password, "csrfmiddlewaretoken": token}
    with opener.open(login, urllib.parse.urlencode(fields).encode()) as page:
        return "Site administration" in page.read().decode()
