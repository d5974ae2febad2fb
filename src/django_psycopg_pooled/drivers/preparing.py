"""What preparing asks of a driver: to bind, prepare, run and close statements. No policy in it."""

import re
from collections.abc import Callable
from typing import Any, Protocol

# Names of our prepared statements begin so; whoever cleans a session leaves them alone.
NAME_PREFIX = "_dpp_"

# The type that each parameter would have as a literal in the text, as the driver names types;
# None for NULL, which fits any of them.
Types = tuple[Any, ...]

Plain = Callable[..., Any]  # the cursor's execute(query, params) below the watching

# Classes of SQLSTATEs by which a failed PREPARE says that the text is not for preparing. After all
# others (no connection, cancelled, a lock not had in time) plain execution would fail as well.
_ABOUT_THE_TEXT = ("0A", "22", "42", "54")


class Binding(Protocol):
    """A driver's way to run prepared statements. Stateless; the thread that has the cursor.

    A *statement* is what statement() made: opaque to the policy, and the same for all connections.
    """

    @property
    def unavailable(self) -> str:
        """Why this version of the driver cannot do it; empty if it can."""

    @property
    def by_default(self) -> bool:
        """Whether statements are prepared if the user says nothing of it."""

    @property
    def unknown(self) -> Any:
        """The type of a string among Types; a NULL of which no more is known is declared so too."""

    def statement(self, name: str, sql: str, types: Types, plan_cache_mode: str) -> Any:
        """*sql* with the driver's %s, to be prepared under *name*. No None among its *types*.

        *plan_cache_mode*, if any, holds for its executions, and for nothing else.
        """

    def bind(self, cursor: Any, query: Any, params: Any) -> tuple[Types, Any] | None:
        """The types of *params* and their values for run(). No round trip; never raises.

        None if this execution must go the ordinary way: *params* is no list or tuple, or empty, or
        cannot be adapted; the cursor is named, closed, binary or of a class with an execute() that
        run() would pass by; the connection is neither idle nor in a sound transaction, or in
        pipeline mode. The ordinary way then raises what there is to raise.
        """

    def prepare(self, cursor: Any, statement: Any, *, guarded: bool) -> None:
        """Prepare it on the cursor's connection: one round trip, two more if *guarded*.

        Begins a transaction where plain execution would. Raises the driver's exception. *guarded*:
        under a savepoint of its own, so that after an exception that is_refusal(), or says that
        is_outdated_plan(), the transaction is as it was; after any other exception it is as plain
        execution would have left it.
        """

    def run(self, cursor: Any, plain: Plain, query: Any, statement: Any, values: Any) -> None:
        """Execute it; the cursor is then as plain execution would have left it. One round trip.

        `query` as Django's last_executed_query reads it (psycopg's cursor._query, psycopg2's
        cursor.query) shows *query* with its literals, made only when somebody asks. Raises the
        driver's exception, untouched.
        """

    def close(self, cursor: Any, statement: Any) -> None:
        """Have the connection forget it; also in a transaction, and if it is not there.

        Raises the driver's exception if the connection is lost.
        """

    def in_transaction(self, connection: Any) -> bool:
        """Whether a failing statement would cost the user a transaction. No round trip.

        True as well outside autocommit, where the next statement begins one.
        """

    def is_idle(self, connection: Any) -> bool:
        """Whether it is open and outside any transaction: after an error, that nothing is lost."""

    def sqlstate(self, error: BaseException) -> str:
        """The server's code for an error; empty if it has none."""

    def is_outdated_plan(self, error: BaseException) -> bool:
        """Whether it says that a statement does not fit the schema any more: see is_outdated()."""

    def is_elsewhere(self, cursor: Any) -> bool:
        """Whether the server's process is not whom we connected to: a pooler stands between.

        One round trip. Changes nothing, in a transaction or outside.
        """

    def keeps_apart(self, cursor: Any) -> bool:
        """Whether that pooler has no client's statements answer another's. A few round trips.

        Raises the driver's exception where a pooler does not bear the question; in a transaction
        that is lost then. May leave a statement behind, of a name that nobody else has.
        """


def is_refusal(sqlstate: str) -> bool:
    """Whether a PREPARE that fails with it says that the text is not for preparing."""
    return sqlstate.startswith(_ABOUT_THE_TEXT)


def is_outdated(sqlstate: str, function: str | None, message: str | None) -> bool:
    """Whether an error says that what was prepared does not fit the schema any more.

    Either code says other things too. 0A000 is told by the *function* of the server that reports
    it. XX000 by its *message*, since many functions meet a type that is gone: as with an enum that
    was replaced, or an extension that was dropped and created again. No language translates either.
    """
    if sqlstate == "0A000":
        return function == "RevalidateCachedQuery"
    return sqlstate == "XX000" and (message or "").startswith("cache lookup failed for type ")


def numbered(sql: str) -> str:
    """*sql* with $1, $2 ... for its %s, and a single % for each two."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == "%%":
            return "%"
        count += 1
        return f"${count}"

    return _PLACEHOLDER.sub(replace, sql)


_PLACEHOLDER = re.compile("%[%s]")
