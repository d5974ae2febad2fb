"""The pools of this process."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, overload

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from django_psycopg_pooled.forking import carried_through
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.identity import Identity, target_of

T = TypeVar("T")


class Registry:
    """Finds the pool for an identity, or makes it; lives as long as the process.

    The pool of a configured alias is held until its settings change, whether a thread uses it or
    not. Any other (a test's clone, a temporary alias) lives as long as a wrapper that uses it.

    Guards: `_lock` guards all other attributes.
    Lock order: taken before a pool's; no connection is opened or closed while it is held.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[DatabasePool, Identity]] = {}
        self._known: list[tuple[str, Identity, weakref.ref[DatabasePool]]] = []
        self._gives_back_at_exit = False

    def unlock(self) -> None:
        """In a child of fork(): a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def get(
        self, name: str, identity: Identity, make: Callable[[], DatabasePool], *, alias: str | None
    ) -> DatabasePool:
        """The open pool of that name and identity, made if there is none. Does not block.

        alias   the configured alias that holds it; None if none does
        """
        with self._lock:
            pool = self._find_locked(name, identity)
            if pool is None:
                pool = self._make_locked(make)
                self._known.append((name, identity, weakref.ref(pool)))
            held_before = self._held
            self._held = {a: held for a, held in held_before.items() if _is_current(a, held[1])}
            if alias is not None:
                self._held[alias] = pool, identity
        # What is held no longer goes here, outside the lock, if nobody else refers to it.
        del held_before
        return pool

    def close(self, settings: Mapping[str, object]) -> None:
        """Close every pool of the database that *settings* name. Blocks as Pool.close() does."""
        target = target_of(settings)
        self._close([pool for pool, identity in self._found() if identity.target == target])

    def close_everywhere(self, database: str) -> None:
        """Close every pool of a database of that name, whatever its HOST and PORT.

        One server may be reached by several: a test's mirror takes only the name from its primary.
        Blocks as Pool.close() does.
        """
        found = self._found()
        self._close([pool for pool, identity in found if identity.settings["NAME"] == database])

    def _found(self) -> list[tuple[DatabasePool, Identity]]:
        with self._lock:
            known = [(ref(), identity) for _, identity, ref in self._known]
        return [(pool, identity) for pool, identity in known if pool is not None]

    def _close(self, closing: list[DatabasePool]) -> None:
        with self._lock:
            held_before = self._held
            self._held = {a: held for a, held in held_before.items() if held[0] not in closing}
        for pool in closing:
            pool.close()

    def all(self) -> list[DatabasePool]:
        """Every open pool."""
        with self._lock:
            pools = [ref() for _, _, ref in self._known]
        return [pool for pool in pools if pool is not None and not pool.closed]

    def _make_locked(self, make: Callable[[], DatabasePool]) -> DatabasePool:
        if not self._gives_back_at_exit:
            # Drivers warn of a connection that is dropped while open, as one that the main thread
            # has borrowed would be at the interpreter's exit.
            atexit.register(connections.close_all)
            self._gives_back_at_exit = True
        return make()

    def _find_locked(self, name: str, identity: Identity) -> DatabasePool | None:
        self._known = [known for known in self._known if _is_open(known[2]())]
        for known_name, known_identity, ref in self._known:
            if known_name == name and known_identity == identity:
                return ref()
        return None


def _is_open(pool: DatabasePool | None) -> bool:
    return pool is not None and not pool.closed


def _is_current(alias: str, identity: Identity) -> bool:
    """Whether *alias* is still configured as when its pool was made."""
    return identity.fits(connections.settings.get(alias))


REGISTRY = Registry()
os.register_at_fork(after_in_child=carried_through(REGISTRY.unlock))


class NoSuchAlias(ConnectionDoesNotExist, KeyError):
    """What `pools` raises for an alias that DATABASES does not have."""

    __str__ = Exception.__str__  # KeyError's is the text in quotes


class Pools(Mapping[str, DatabasePool]):
    """The pools of the configured aliases: `pools["default"]`. Any thread; nothing blocks.

    A pool is made when it is first asked for, and opens its connections when it is first used.
    """

    def __getitem__(self, alias: str) -> DatabasePool:
        """The alias's pool, made if it was never asked for.

        Raises KeyError if it has none or there is no such alias (then ConnectionDoesNotExist, too),
        and ImproperlyConfigured if its options are wrong.
        """
        try:
            pool = getattr(connections[alias], "pool", None)
        except ConnectionDoesNotExist as error:
            raise NoSuchAlias(*error.args) from None
        if not isinstance(pool, DatabasePool):
            engine = connections[alias].settings_dict["ENGINE"]
            raise KeyError(
                f"{alias!r} has no pool. Its ENGINE is {engine!r}; it must be one of"
                " django_psycopg_pooled.backends, and OPTIONS['pool'] must not be False."
            )
        return pool

    def __contains__(self, alias: object) -> bool:
        """Whether the alias is there and has a pool that can be had: what iterating gives."""
        # For wrong options the system checks and the first use say why.
        return isinstance(alias, str) and self.get(alias) is not None

    @overload
    def get(self, alias: str, /) -> DatabasePool | None: ...
    @overload
    def get(self, alias: str, /, default: DatabasePool | T) -> DatabasePool | T: ...
    def get(self, alias: str, /, default: object = None) -> object:
        """The alias's pool, or *default* if it is not among them."""
        try:
            return self[alias]
        except (KeyError, ImproperlyConfigured):
            return default

    def __iter__(self) -> Iterator[str]:
        return (alias for alias in connections if alias in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def all(self) -> list[DatabasePool]:
        """Every open pool of this process, also those of copies and of other threads' settings."""
        return REGISTRY.all()


pools = Pools()
