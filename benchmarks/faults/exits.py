"""How long a program takes to end with its pool open, above one that has none."""

import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.faults.contenders import Trial
from benchmarks.faults.outcomes import Outcome
from benchmarks.field import address
from benchmarks.peers import STOCK, PoolSize
from benchmarks.process import ROOT

ROUNDS, QUICK_ROUNDS = 5, 1
LIMIT_S = 30.0


def exits(trial: Trial) -> Outcome:
    """Stock without a pool and the contender in turn; the difference of the fastest."""
    pooled = trial.peer.database(PoolSize(1, 4), trial.driver)
    stock_ms, pooled_ms, said = [], [], []
    for _ in range(QUICK_ROUNDS if trial.quick else ROUNDS):
        stock_ms.append(_end(trial, {"ENGINE": STOCK})[0])
        try:
            took_ms, complaints = _end(trial, pooled)
        except subprocess.TimeoutExpired:
            return Outcome("hangs", hangs=1)
        pooled_ms.append(took_ms)
        said.append(complaints)
    above = min(pooled_ms) - min(stock_ms)  # the fastest, which other work has disturbed least
    worst = max(said, key=len)
    lines = f"{len(worst)} line{'s'[len(worst) == 1 :]}"
    return Outcome(f"{above:+.0f} ms, {lines}", note=worst[-1] if worst else "")


def _end(trial: Trial, entry: dict[str, Any]) -> tuple[float, list[str]]:
    """Milliseconds from the end of its work to the end of the process, and what it complained."""
    setup = {
        "greenlets": trial.peer.greenlets,
        "databases": {"default": {**address(trial.server, trial.peer), **entry}},
    }
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    if trial.driver == "psycopg2":
        path.insert(0, str(ROOT / "devtools" / "without_psycopg"))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tasks.faults.exits"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        input=json.dumps(setup), capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    ended = time.monotonic()
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if not done.stdout:
        raise RuntimeError(lines[-1] if lines else f"ended with {done.returncode}")
    return 1e3 * (ended - float(done.stdout)), lines
