"""What a process is asked about its pools, and asked to do with them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from django_psycopg_pooled.control.answers import Ask
from django_psycopg_pooled.control.protocol import Refused
from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.pool.pool import Pool

Args = Mapping[str, Any]


class PoolAsks:
    """The asks about pools; lives as long as the process.

    Each takes {"pool": NAME} for the pools of that name, or null for all.

    pools   the open pools of the process
    facts   what else there is to say of it
    """

    def __init__(
        self, pools: Callable[[], Iterable[Pool]], facts: Callable[[], dict[str, Any]]
    ) -> None:
        self._pools = pools
        self._facts = facts

    def table(self) -> dict[str, Ask]:
        """By what is asked; a new ask is one line here."""
        return {
            "status": self.status,
            "configure": self.configure,
            "drain": self.drain,
            "pause": self.pause,
            "resume": self.resume,
        }

    def status(self, args: Args) -> object:
        return {"process": self._facts(), "pools": [_facts_of(pool) for pool in self._named(args)]}

    def configure(self, args: Args) -> object:
        """{"options": {"max_size": 20}}. Numbers only: what is code comes from the settings."""
        options = args.get("options")
        if not isinstance(options, dict) or not options:
            raise Refused("args", "options must be an object, and name some")
        wrong = [name for name, value in options.items() if type(value) not in (int, float)]
        if wrong:
            raise Refused("args", f"only numbers can be changed, not {', '.join(sorted(wrong))}")
        return self._each(args, lambda pool: pool.configure(**options))

    def drain(self, args: Args) -> object:
        return self._each(args, Pool.drain)

    def pause(self, args: Args) -> object:
        # Without waiting for loans to end: nobody else would be answered meanwhile.
        return self._each(args, Pool.pause)

    def resume(self, args: Args) -> object:
        return self._each(args, Pool.resume)

    def _each(self, args: Args, act: Callable[[Pool], object]) -> object:
        """Have *act* done to each pool named, then the facts of these."""
        pools = self._named(args)
        for pool in pools:
            try:
                act(pool)
            except OptionsError as error:
                raise Refused("options", "; ".join(error.problems)) from None
        return {"process": self._facts(), "pools": [_facts_of(pool) for pool in pools]}

    def _named(self, args: Args) -> list[Pool]:
        name = args.get("pool")
        pools = ((pool.snapshot().name, pool) for pool in self._pools())
        return [pool for own, pool in pools if name in (None, own)]


def _facts_of(pool: Pool) -> dict[str, Any]:
    return {**asdict(pool.snapshot()), "stats": pool.get_stats()}
