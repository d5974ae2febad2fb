"""The part of a DatabaseWrapper that lends its connection from a pool."""

import os
import time
import weakref
from asyncio import _get_running_loop  # the public one raises, which costs more than close()
from threading import get_ident
from typing import Any

from django.db.backends.base.base import RAN_DB_VERSION_CHECK, BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.asyncio import async_unsafe
from django.utils.functional import cached_property

from django_psycopg_pooled.drivers.protocol import OPEN_TRANSACTION
from django_psycopg_pooled.forking import carried_through
from django_psycopg_pooled.integration.database_pool import DatabasePool
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.idle_ends import NotingErrors
from django_psycopg_pooled.integration.quick_cursors import QuickCursors
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.tracking.stacks import capture_block

_wrappers: "weakref.WeakSet[PooledWrapper]" = weakref.WeakSet()


@carried_through
def _disown_all() -> None:
    """In a child of fork(), after the pools have left their connections to the parent."""
    for wrapper in list(_wrappers):
        wrapper.leave_what_is_the_parents()


os.register_at_fork(after_in_child=_disown_all)


class PooledWrapper(QuickCursors):
    """Mixed in before a PostgreSQL DatabaseWrapper, gives it a pool; lives as long as its thread.

    connect() borrows, close() gives back; `connection` is the driver's real object in between.
    With OPTIONS["pool"] = False every method here steps aside for the stock backend's.
    """

    # The Lease of the last loan, for the next one; only this thread's wrapper has ever had it.
    _spare: Lease | None = None
    _thread_sharing_count: int  # Django's
    # Whether a subclass has an init_connection_state() of its own, or a get_new_connection().
    _initializes = False
    _makes_its_own = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._initializes = cls.init_connection_state is not PooledWrapper.init_connection_state
        cls._makes_its_own = cls.get_new_connection is not PooledWrapper.get_new_connection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ref = weakref.ref(self)
        _wrappers.add(self)

    @cached_property
    def wrap_database_errors(self) -> NotingErrors:
        """Django's, with a note where the server has ended an idle transaction."""
        return NotingErrors(self)

    def connect(self) -> None:
        """Borrow a connection; see Pool.checkout for how long that may block.

        Follows BaseDatabaseWrapper.connect() line by line, less what a borrowed connection has
        already. Guarded against async code where it is called, by ensure_connection() or cursor().
        """
        pool = self.pool
        if pool is None:
            super().connect()
            return
        if self.in_atomic_block or self.needs_rollback or self.savepoint_ids:
            self._forget_blocks()
        settings = self.settings_dict
        max_age = settings["CONN_MAX_AGE"]
        self.close_at = time.monotonic() + max_age if max_age else max_age
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.health_check_done = True
        self._releases_early = pool.options.release == "transaction"
        if self._releases_early:
            self._pinned = True
        if self._lease is not None:
            self._give_back()  # somebody has taken `connection` away without close()
        # Not `allow_thread_sharing`, which takes a lock to read the same number.
        if self._thread_ident == get_ident() and not self._thread_sharing_count:
            # Out of this wrapper's hands: if checkout() is interrupted, the loan must be lost.
            spare, self._spare = self._spare, None
            lease = pool.checkout(bound=True, lease=spare)
        else:  # it is shared, or used by a thread that Django is about to refuse
            lease = pool.checkout()
        self._lease, self._lender = lease, pool
        self.connection = lease.connection
        lease.user = self._ref
        lease.entry.session.blocks = self.atomic_blocks
        if settings["AUTOCOMMIT"] and not self.run_commit_hooks_on_set_autocommit_on:
            self.autocommit = True  # it is lent so
        else:
            self.set_autocommit(settings["AUTOCOMMIT"])
        if self.alias not in RAN_DB_VERSION_CHECK or self._initializes:
            self.init_connection_state()
        if connection_created.receivers:
            self._announce(pool)
        self.run_on_commit = []

    def _forget_blocks(self) -> None:
        """The previous connection was closed, or taken away, in an atomic block."""
        self.in_atomic_block = False
        self.savepoint_ids = []
        self.atomic_blocks = []
        self.needs_rollback = False

    def get_connection_params(self) -> dict[str, Any]:
        """The stock backend's, which must not see our option: with psycopg2 it would refuse it.

        Asked for by the connection to no database, by which Django makes test databases.
        """
        settings = self.settings_dict
        if not settings["OPTIONS"].get("pool"):
            return super().get_connection_params()
        self.settings_dict = {**settings, "OPTIONS": {**settings["OPTIONS"], "pool": False}}
        try:
            return super().get_connection_params()
        finally:
            self.settings_dict = settings

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """For those who want one of their own: as in stock, lent until `pool.putconn()`."""
        pool = self.pool
        return super().get_new_connection(conn_params) if pool is None else pool.getconn()

    def inc_thread_sharing(self) -> None:
        """Allow other threads to use the connection, so that it outlives this one."""
        super().inc_thread_sharing()
        if self._lease is not None:
            self._lease.entry.bound = False

    def _commit(self) -> None:
        super()._commit()
        if self._lease is not None:
            self._lease.entry.session.settled_at = time.monotonic()
            self._release()  # what was begun by SQL may have ended

    def _rollback(self) -> None:
        lease = self._lease
        was_open = lease is not None and DRIVER.status(self.connection) in OPEN_TRANSACTION
        super()._rollback()
        if was_open and lease is not None:
            lease.entry.session.rolled_back()
            lease.entry.session.settled_at = time.monotonic()
            self._release()

    def init_connection_state(self) -> None:
        """Nothing but Django's check of the server's version: the session is as it should be."""
        if self._lease is None:
            super().init_connection_state()
        elif self.alias not in RAN_DB_VERSION_CHECK:
            BaseDatabaseWrapper.init_connection_state(self)

    def _announce(self, pool: DatabasePool) -> None:
        """Send connection_created; only for new server sessions, if the option says so."""
        lease = self._lease
        if lease is None:
            return
        if pool.options.connection_created == "session":
            self._greet_session(lease)
        elif self._releases_early:
            self._greet_loan(lease)
        else:
            self._take_back(lease)
            connection_created.send(sender=self.__class__, connection=self)

    def _set_autocommit(self, autocommit: bool) -> None:
        if self.connection.autocommit == autocommit:
            return
        super()._set_autocommit(autocommit)
        if self._lease is not None:
            session = self._lease.entry.session
            session.transaction_stack = None if autocommit else capture_block()
            session.transaction_at = None if autocommit else time.monotonic()

    def close(self) -> None:
        """Give the connection back; see Pool.checkin for how long that may block.

        Stock's, without asking twice whose thread this is: it is on the path of every request.
        """
        lease, lender = self._lease, self._lender
        if (
            lease is None
            or lender is None
            or self.connection is not lease.connection
            or self.in_atomic_block
            or self.closed_in_transaction
            or self._thread_ident != get_ident()
            or _get_running_loop() is not None
        ):
            super().close()  # which refuses other threads, and async code
            if self.connection is None:
                self._give_back()  # somebody has taken it away
            return
        self.run_on_commit = []
        self._lease = self._lender = self.connection = None
        # Old cursors may have that of an early release, and another thread is in a shared one.
        spare = lease.entry.bound and not self._releases_early
        lender.checkin(lease)
        if spare and lease.ended:  # not in a finalizer: there it will end a little later
            lease.forget()
            self._spare = lease

    def loses(self, lease: Lease) -> None:
        """The pool has taken back what this wrapper's thread had, which has ended."""
        if self._lease is lease:
            self._lease = self._lender = self.connection = None

    def _close(self) -> None:
        lease, connection = self._lease, self.connection
        if lease is None:
            super()._close()
            return
        self._give_back()
        self.connection = None
        if connection is not lease.connection:
            # Somebody has put a connection of their own in the place of ours.
            with self.wrap_database_errors:
                connection.close()

    def _give_back(self) -> None:
        lease, lender = self._lease, self._lender
        self._lease = self._lender = None
        if lease is not None and lender is not None:
            lender.checkin(lease)

    def close_if_health_check_failed(self) -> None:
        """Ask the server, if CONN_HEALTH_CHECKS say so and CONN_MAX_AGE kept the connection.

        Not stock's, which leaves all checks to the pool: that has not seen a kept connection since.
        """
        if self.connection is None:
            return
        BaseDatabaseWrapper.close_if_health_check_failed(self)

    def leave_what_is_the_parents(self) -> None:
        """In a child of fork(): forget the connection, which is the parent's, without a word."""
        if self._lease is None:
            return
        if self.in_atomic_block:
            self.closed_in_transaction = True
            self.needs_rollback = True
        self._lease = self._lender = self.connection = None

    def close_if_unusable_or_obsolete(self) -> None:
        """Give the connection back at the end of a request, if CONN_MAX_AGE does not keep it.

        Without the stock backend's round trip after an error: the pool looks at what it gets back.
        """
        if (
            self._lease is not None
            and self.connection is not None
            and self.close_at is not None
            and time.monotonic() >= self.close_at
        ):
            self.health_check_done = False
            self.close()
        else:
            super().close_if_unusable_or_obsolete()

    def ensure_timezone(self) -> bool:
        """Set the time zone on what is borrowed now; the next comes from another pool."""
        if self.connection is None:
            return False
        changed = bool(self._configure_timezone(self.connection))
        if changed and self._lease is not None and self._lender is not None:
            self._lender.evict(self._lease)  # it is not what its pool lends any more
        return changed
