"""The seeds of a run's stress tests; they are in the tests' names, and so in the report."""

import os
import random


def seeds(count: int = 1) -> list[int]:
    """DPP_STRESS_SEED, to repeat a run; else new ones, the same in all processes of the run."""
    given = os.environ.get("DPP_STRESS_SEED")
    if given:
        return [int(given)]
    mine = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
    return [mine.randrange(10**6) for _ in range(count)]
