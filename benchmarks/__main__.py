"""All benchmarks, one after the other, each against a server of its own."""

import argparse
import importlib
from pathlib import Path

from benchmarks.command import Run, add_arguments, server, tell
from benchmarks.peers import Driver

ALL: tuple[tuple[str, Driver], ...] = (
    ("cycle", "psycopg"),
    ("cycle", "psycopg2"),
    ("contention", "psycopg"),
    ("spike", "psycopg"),
    ("overload", "psycopg"),
    ("restart", "psycopg"),
    ("scale", "psycopg"),
    ("faults", "psycopg"),
    ("prepared", "psycopg"),
    ("prepared", "psycopg2"),
    ("watching", "psycopg"),
)


def main() -> None:
    """Read the command line, run all, print each report as it comes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_arguments(parser, ("psycopg",), json_help="a folder: one file a benchmark")
    args = parser.parse_args()
    for name, driver in ALL:
        measure = importlib.import_module(f"benchmarks.{name}").measure
        with server() as started:
            report = measure(started, Run(args.peers, args.quick, driver))
        tell(report, _file(args.json, f"{name}-{driver}.json"))
        print(flush=True)


def _file(folder: Path | None, name: str) -> Path | None:
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


if __name__ == "__main__":
    main()
