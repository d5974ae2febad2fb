"""What a process is asked about its pools, and asked to do with them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Generic, TypeVar

from django_psycopg_pooled.control.answers import Ask
from django_psycopg_pooled.control.protocol import Refused
from django_psycopg_pooled.errors import OptionsError
from django_psycopg_pooled.pool.pool import Pool

Args = Mapping[str, Any]
P = TypeVar("P", bound=Pool)
# What there is to say of one pool.
Look = Callable[[P, Args], dict[str, Any]]


class PoolAsks(Generic[P]):
    """The asks about pools; lives as long as the process.

    Each takes {"pool": NAME} for the pools of that name, or null for all.

    pools   the open pools of the process
    facts   what else there is to say of it
    looks   more that may be asked of each pool
    """

    def __init__(
        self,
        pools: Callable[[], Iterable[P]],
        facts: Callable[[], dict[str, Any]],
        looks: Mapping[str, Look[P]] | None = None,
    ) -> None:
        self._pools = pools
        self._facts = facts
        self._looks = looks or {}

    def table(self) -> dict[str, Ask]:
        """By what is asked."""
        return {
            **{what: partial(self._look, look) for what, look in self._looks.items()},
            "status": self.status,
            "configure": self.configure,
            "drain": self.drain,
            "pause": self.pause,
            "resume": self.resume,
        }

    def status(self, args: Args) -> object:
        return self._look(lambda pool, args: _facts_of(pool), args)

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

    def _look(self, look: Look[P], args: Args) -> object:
        pools = [{"name": pool.snapshot().name, **look(pool, args)} for pool in self._named(args)]
        return {"process": self._facts(), "pools": pools}

    def _each(self, args: Args, act: Callable[[Pool], object]) -> object:
        """Have *act* done to each pool named, then the facts of these."""
        for pool in self._named(args):
            try:
                act(pool)
            except OptionsError as error:
                raise Refused("options", " ".join(error.problems)) from None
        return self.status(args)

    def _named(self, args: Args) -> list[P]:
        name = args.get("pool")
        pools = ((pool.snapshot().name, pool) for pool in self._pools())
        return [pool for own, pool in pools if name in (None, own)]


def _facts_of(pool: Pool) -> dict[str, Any]:
    return {**asdict(pool.snapshot()), "stats": pool.get_stats()}
