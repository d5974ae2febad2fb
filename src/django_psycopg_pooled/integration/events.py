"""What follows from what happens in a pool: the user's hook, signals, incidents."""

import logging
import threading
import weakref
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from django_psycopg_pooled.clock import SYSTEM_CLOCK
from django_psycopg_pooled.facts.incidents import Incident, Kind
from django_psycopg_pooled.facts.pool import ConnectionSnapshot, PoolSnapshot
from django_psycopg_pooled.facts.server import BlockingNode, ServerFacts
from django_psycopg_pooled.forking import restart_in_child
from django_psycopg_pooled.integration.incidents import QUERIES, Incidents
from django_psycopg_pooled.integration.inspection import ask_server
from django_psycopg_pooled.signals import idle_in_transaction, incident

if TYPE_CHECKING:
    from django_psycopg_pooled.integration.database_pool import DatabasePool

logger = logging.getLogger(__name__)

TIMEOUT: Kind = "pool timeout"
BLOCKS: Kind = "idle in transaction blocks others"

ASK_AGAIN_S = 5.0  # while a transaction stays idle: others may come to wait for it


class Events:
    """The Listener of one pool; lives as long as it. Any thread.

    Guards: `_lock` guards `_asking`.
    """

    def __init__(self) -> None:
        self.incidents = Incidents()
        # Weak, since the pool has it.
        self.pool: Callable[[], DatabasePool | None] = _nobody
        self.restart()
        restart_in_child(self)

    def restart(self) -> None:
        """In a child of fork(): nobody asks there."""
        self._lock = threading.Lock()
        self._asking = False  # somebody asks the server who waits, or will do so again

    def belong_to(self, pool: "DatabasePool") -> None:
        self.pool = weakref.ref(pool)

    def timed_out(self) -> None:
        """Keep what can be seen now; ask the server in the background: the request has waited."""
        pool = self.pool()
        if pool is not None and self.incidents.is_new(TIMEOUT):
            seen = pool.snapshot()
            pool.in_background(lambda: self._keep(TIMEOUT, seen))

    def idle_in_transaction(self, facts: ConnectionSnapshot) -> None:
        """Tell those who asked; see in the background whether others wait for it."""
        pool = self.pool()
        if pool is None:
            return
        self._call_hook(pool, facts)
        for _, answer in idle_in_transaction.send_robust(
            sender=type(pool), pool=pool, connection=facts
        ):
            if isinstance(answer, Exception):
                logger.error("a receiver of idle_in_transaction failed", exc_info=answer)
        with self._lock:
            if self._asking or not self.incidents.is_due(BLOCKS):
                return
            self._asking = True
        pool.in_background(self._ask_who_waits)

    def looked(self) -> None:
        """Count what was executed meanwhile, also if that is too little to be counted by itself."""
        pool = self.pool()
        if pool is not None:
            pool.queries.count()

    def _call_hook(self, pool: "DatabasePool", facts: ConnectionSnapshot) -> None:
        hook = pool.options.on_idle_in_transaction
        if hook is None:
            return
        try:
            hook(facts)
        except Exception:
            logger.exception("pool %r: on_idle_in_transaction failed", pool.name)

    def _ask_who_waits(self) -> None:
        """Blocks for a connect, and so holds up one worker: there is one such look at a time."""
        pool = self.pool()
        again = False
        try:
            again = pool is not None and not self._has_kept_who_waits(pool)
        finally:
            with self._lock:
                self._asking = again
        if again and pool is not None:
            pool.in_a_while(ASK_AGAIN_S, self._ask_who_waits)

    def _has_kept_who_waits(self, pool: "DatabasePool") -> bool:
        """False if there may be more to see later."""
        limit = pool.options.idle_in_transaction_threshold
        idle = {loan.server_pid for loan in pool.idle_in_transaction(older_than=limit)}
        if not idle or pool.closed or not self.incidents.is_due(BLOCKS):
            return True
        try:
            server, _ = ask_server(pool)
        except Exception as error:
            logger.info("pool %r: could not ask who waits for an idle transaction: %s",
                        pool.name, type(error).__name__)  # fmt: skip
            return False
        if not any(_blocks(node, idle) for node in server.blocking):
            return False
        if self.incidents.is_new(BLOCKS):
            self._add(pool, BLOCKS, pool.snapshot(), server, "")
        return True

    def _keep(self, kind: Kind, seen: PoolSnapshot) -> None:
        pool = self.pool()
        if pool is None:
            return
        server, problem = None, ""
        try:
            server, _ = ask_server(pool)
        except Exception as error:
            problem = f"the server could not be asked: {type(error).__name__}: {error}"
        try:
            self._add(pool, kind, seen, server, problem)
        except Exception:
            logger.exception("pool %r: an incident could not be kept", pool.name)

    def _add(
        self,
        pool: "DatabasePool",
        kind: Kind,
        seen: PoolSnapshot,
        server: ServerFacts | None,
        problem: str,
    ) -> None:
        kept = Incident(
            kind=kind,
            at=SYSTEM_CLOCK.wall(),
            pool=seen,
            queries=tuple(pool.queries.top(QUERIES)),
            server=server,
            problem=problem,
        )
        self.incidents.kept.append(kept)
        logger.warning("pool %r: %s; what was seen is kept: pool.incidents(), or `manage.py pools"
                       " incidents`", pool.name, kind)  # fmt: skip
        for _, answer in incident.send_robust(sender=type(pool), pool=pool, incident=kept):
            if isinstance(answer, Exception):
                logger.error("a receiver of incident failed", exc_info=answer)


def _blocks(node: BlockingNode, pids: Collection[int | None]) -> bool:
    """Whether somebody waits for one of those sessions, here or further down."""
    return (node.who in pids and node.blocks > 0) or any(_blocks(w, pids) for w in node.waiters)


def _nobody() -> None:
    return None
