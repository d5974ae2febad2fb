"""The command line that all benchmarks share."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import PEERS, Driver, Peer, named
from benchmarks.report import Report
from devtools.postgres import PostgresServer


@dataclass(frozen=True)
class Run:
    """What was asked for on the command line."""

    peers: Sequence[Peer]
    quick: bool = False
    driver: Driver = "psycopg"


Measure = Callable[[PostgresServer, Run], Report]
MAX_CONNECTIONS = 600


def server() -> PostgresServer:
    """The server that figures are taken against; not started yet."""
    return PostgresServer(options={"max_connections": MAX_CONNECTIONS})


def main(measure: Measure, about: str, drivers: Sequence[Driver] = ("psycopg",)) -> None:
    """Read the command line, run *measure* against a server of its own, print what it found."""
    parser = argparse.ArgumentParser(description=about)
    add_arguments(parser, drivers)
    args = parser.parse_args()
    run = Run(args.peers, args.quick, getattr(args, "driver", "psycopg"))
    with server() as started:
        tell(measure(started, run), args.json)


def add_arguments(
    parser: argparse.ArgumentParser,
    drivers: Sequence[Driver],
    json_help: str = "write all figures to FILE",
) -> None:
    """The arguments of each benchmark."""
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--quick", action="store_true", help="few rounds: only to see it work")
    parser.add_argument("--json", type=Path, metavar="FILE", help=json_help)
    parser.add_argument(
        "--peers", type=_peers, default=PEERS, metavar="A,B", help=f"only these of: {names}"
    )
    if len(drivers) > 1:
        parser.add_argument("--driver", choices=drivers, default=drivers[0])


def tell(report: Report, json_file: Path | None) -> None:
    """Print the report and write it to a file, if one was named."""
    print(report.text(), flush=True)
    if json_file is not None:
        json_file.write_text(report.as_json())


def _peers(names: str) -> list[Peer]:
    try:
        return named([name.strip() for name in names.split(",")])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
