"""The demo's command line: compare all variants, or serve the shop with one of them."""

import argparse
import contextlib
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from example.demo import report, statements
from example.demo.database import Database
from example.demo.facts import DemoError, Plan, Row
from example.demo.interrupts import end_on_signals, uninterrupted
from example.demo.measure import Comparison
from example.demo.serve import serve
from example.demo.site import Site
from example.variants import OURS, PLAIN, PREPARED, VARIANTS, Variant, variant

WIDTH = 96
SEE_MORE = """\
To see more of a site that is up (make demo SERVE=1 says how to call manage.py for one):
  manage.py pools        the pool of each process: lent, idle, who waits
  manage.py pools top    the same, with each loan and its line of code, drawn anew until q
  manage.py pools idle   sessions that are idle in a transaction, with the lines that began them"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code: 0 all well, 1 failed or with errors, 130 interrupted."""
    options = _parser().parse_args(arguments)
    end_on_signals()
    stack = contextlib.ExitStack()
    try:
        try:
            return _run(options, stack)
        finally:
            with uninterrupted():
                stack.close()
    except KeyboardInterrupt:
        _say("\nInterrupted: everything that was started is stopped.")
        return 130
    except (DemoError, RuntimeError) as error:
        _say(f"\nThe demo failed. {error}")
        return 1


def _run(options: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dpp-demo-")))
    database = Database(folder)
    with _step("PostgreSQL, on a TCP port of 127.0.0.1"):
        database.start(stack)
    with _step("migrate, fill_shop"):
        said = database.fill()
    _say(f"  {said}")
    variants = [variant(key) for key in options.variant]
    if options.serve:
        serve(variants[-1], options.port, database, folder, stack, _say)
    return _compare(_plan(options), variants, database, folder, stack)


def _compare(
    plan: Plan,
    variants: Sequence[Variant],
    database: Database,
    folder: Path,
    stack: contextlib.ExitStack,
) -> int:
    comparison = _warmed_up(plan, variants, database, folder, stack)
    rows = comparison.run()
    _report(rows)
    _explain([*report.meaning(rows), *report.notes(rows, plan)])
    ours = [site for site in comparison.sites if site.variant.engine == OURS]
    if ours:
        _show_queries(ours[-1])
        rows += _prepare(plan.shorter(), database, folder, stack)
        _say(f"\n{SEE_MORE}")
    return 1 if any(row.errors for row in rows) else 0


def _warmed_up(
    plan: Plan,
    variants: Sequence[Variant],
    database: Database,
    folder: Path,
    stack: contextlib.ExitStack,
) -> Comparison:
    comparison = Comparison(plan, database, folder, _say)
    with _step(f"{len(variants)} x gunicorn, each 2 processes x 4 threads"):
        comparison.serve(variants, stack)
    _say(
        f"{plan.clients} clients, {plan.warm_up:g} s warm-up, then {plan.rounds} rounds "
        f"of {plan.seconds / plan.rounds:.3g} s for each:"
    )
    for number, row in enumerate(variants, 1):
        _say(f"  {number}. {row.title}")
    comparison.warm_up()
    return comparison


def _show_queries(site: Site) -> None:
    said = site.manage("pools", "queries", "-n", "4")
    _say(f"\nWhat {site.variant.title} knows of its statements (manage.py pools queries -n 4):\n")
    _say(textwrap.indent(said, "  "))


def _prepare(
    plan: Plan, database: Database, folder: Path, stack: contextlib.ExitStack
) -> list[Row]:
    """The same load on two sites that differ in the option prepare."""
    _say("\nWhat prepared statements change, on the same pages with few clients:\n")
    comparison = _warmed_up(plan, (PLAIN, PREPARED), database, folder, stack)
    warm = _all_queries(comparison)
    rows = comparison.run()
    plain, prepared = map(statements.between, warm, _all_queries(comparison))
    states = comparison.sites[1].manage("pools", "prepared", "--json")
    found = statements.findings(plain, prepared, states)
    _say(f"\n{statements.table(found)}")
    _report(rows)
    _explain(statements.meaning(rows, found))
    return rows


def _all_queries(comparison: Comparison) -> list[str]:
    return [site.manage("pools", "queries", "--json", "-n", "100") for site in comparison.sites]


def _report(rows: Sequence[Row]) -> None:
    _say(f"\n{report.table(rows)}\n")
    for problem in report.problems(rows):
        _say(f"ERROR {problem}")


def _explain(texts: Sequence[str]) -> None:
    for text in texts:
        _say(textwrap.fill(text, WIDTH))


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what is being done, then how long it took."""
    print(f"{what} ...", end="", flush=True)
    started = time.monotonic()
    yield
    _say(f" {time.monotonic() - started:.1f} s")


def _say(text: str) -> None:
    print(text, flush=True)


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        seconds=options.seconds,
        rounds=options.rounds,
        warm_up=options.warm_up,
        clients=options.clients,
        carrier_ms=options.carrier_ms,
    )


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m example.demo", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=plan.seconds, help="measured per variant (%(default)s)")
    add("--rounds", type=int, default=plan.rounds, help="in how many turns (%(default)s)")
    add("--warm-up", type=float, default=plan.warm_up, help="seconds per variant (%(default)s)")
    add("--clients", type=int, default=plan.clients, help="at the same time (%(default)s)")
    add("--carrier-ms", type=int, default=plan.carrier_ms, help="the slow API (%(default)s)")
    keys = [row.key for row in VARIANTS]
    add("--variant", nargs="+", choices=keys, default=keys, help="all by default")
    add("--serve", action="store_true", help="keep the shop up, with the last variant")
    add("--port", type=int, default=0, help="for --serve; a free one by default")
    return parser
