"""Processor time of process trees: what a request costs, also on a machine that others use."""

import contextlib
from collections.abc import Iterable

import psutil


def seconds_used(roots: Iterable[int]) -> float:
    """User and system time of these processes and their children, also of those that have ended."""
    return sum(_tree(pid) for pid in roots)


def _tree(pid: int) -> float:
    root = psutil.Process(pid)
    ended = root.cpu_times().children_user + root.cpu_times().children_system
    return float(ended + sum(_own(p) for p in [root, *root.children(recursive=True)]))


def _own(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
