"""The comparison: all variants are served at once, and the load visits one after another.

Short turns in several rounds, instead of one long turn each, because a shared machine is not the
same machine a minute later: whatever slows it down then slows every variant down.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from example.demo.audit import audit
from example.demo.cpu import seconds_used
from example.demo.database import Database, Watch
from example.demo.facts import DemoError, Load, Plan, Round, Row
from example.demo.interrupts import uninterrupted
from example.demo.process import Process
from example.demo.site import Site
from example.variants import Variant

# After its time is over, a visitor still waits for the answer under way.
LOAD_MAY_END_LATER_S = 30.0


@dataclass
class Contender:
    """One variant's site and what it has shown so far."""

    site: Site
    warm_up: Load = field(default_factory=Load)
    rounds: list[Round] = field(default_factory=list)

    @property
    def loads(self) -> list[Load]:
        return [self.warm_up, *(turn.load for turn in self.rounds)]


class Comparison:
    """Serves, drives and watches the variants; lives until *stack* closes."""

    def __init__(
        self, plan: Plan, database: Database, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.contenders: list[Contender] = []
        self._database = database
        self._folder = folder
        self._say = say
        self._sizes = {name: database.count(name) for name in ("product", "customer", "order")}

    def serve(self, variants: Sequence[Variant], stack: contextlib.ExitStack) -> None:
        """Start a site for each, on its own copy of the shop."""
        stack.callback(self._stop)
        for variant in variants:
            site = Site(variant, self._database.copy(variant.key), self._folder)
            self.contenders.append(Contender(site))
            environ = self._database.environ(site.database)
            site.start({**environ, "SHOP_CARRIER_MS": str(self.plan.carrier_ms)})
        for contender in self.contenders:
            contender.site.wait_until_ready()

    @property
    def sites(self) -> list[Site]:
        return [contender.site for contender in self.contenders]

    def _stop(self) -> None:
        for contender in self.contenders:
            contender.site.process.ask_to_end()
        for contender in self.contenders:
            contender.site.stop()

    def warm_up(self) -> None:
        """Drive each site for a while that does not count."""
        with contextlib.closing(self._database.watch()) as watch:
            for contender in self.contenders:
                turn = self._turn(contender, self.plan.warm_up, "warm-up", watch)
                contender.warm_up = turn.load

    def run(self) -> list[Row]:
        """Drive all rounds, check the books; a row for each variant."""
        with contextlib.closing(self._database.watch()) as watch:
            for number in range(self.plan.rounds):
                self._round(number, watch)
        return [self._row(contender) for contender in self.contenders]

    def _round(self, number: int, watch: Watch) -> None:
        # Nobody is always first, nobody always after the same neighbour.
        shift = number % len(self.contenders)
        order = self.contenders[shift:] + self.contenders[:shift]
        for contender in order if number % 2 == 0 else reversed(order):
            seconds = self.plan.seconds / self.plan.rounds
            contender.rounds.append(self._turn(contender, seconds, f"round {number}", watch))
        rates = "".join(f"{c.rounds[-1].load.rate:9.0f}" for c in self.contenders)
        self._say(f"round {number + 1} of {self.plan.rounds}: {rates} requests/s")

    def _turn(self, contender: Contender, seconds: float, seed: str, watch: Watch) -> Round:
        site = contender.site
        before, cpu = watch.connects(site.database), self._cpu(site)
        load, peak = self._drive(site, seconds, seed, watch)
        if site.process.exit_code is not None:
            raise DemoError(f"gunicorn ended under load.\n{site.process.tail()}")
        connects = watch.connects(site.database) - before
        return Round(load, peak, connects, self._cpu(site) - cpu)

    def _cpu(self, site: Site) -> float:
        return seconds_used([site.process.pid, self._database.server.pid])

    def _drive(self, site: Site, seconds: float, seed: str, watch: Watch) -> tuple[Load, int]:
        """One run of the load process; what it saw, and the peak of server connections."""
        output = self._folder / "load.json"
        output.unlink(missing_ok=True)
        process = Process("the load", self._folder / "load.log")
        may_take = self.plan.lead_in + seconds + LOAD_MAY_END_LATER_S
        try:
            process.start(self._arguments(site, seconds, seed), {}, output=output)
            peak = watch.peak_while(process, site.database, may_take)
        finally:
            with uninterrupted():
                process.stop()
        if process.exit_code:
            raise DemoError(f"The load could not be made.\n{process.tail()}")
        return Load.from_json(output.read_text()), peak

    def _arguments(self, site: Site, seconds: float, seed: str) -> list[str]:
        values = {
            "port": site.port,
            "products": self._sizes["product"],
            "customers": self._sizes["customer"],
            "clients": self.plan.clients,
            "lead-in": self.plan.lead_in,
            "seconds": seconds,
            "seed": seed,
        }
        return ["-m", "example.demo.load", *(f"--{name}={value}" for name, value in values.items())]

    def _row(self, contender: Contender) -> Row:
        confirmed = [pk for load in contender.loads for pk in load.orders]
        errors = sum((load.errors for load in contender.loads), Counter[str]())
        errors += audit(
            self._database.server, contender.site.database, self._sizes["order"], confirmed
        )
        return Row(contender.site.variant.title, tuple(contender.rounds), errors)
