"""What a borrower has done to the server session behind a connection."""

import weakref
from collections.abc import Callable
from contextlib import suppress
from enum import IntFlag
from typing import Any


class Effect(IntFlag):
    """Traces that a statement may leave in the session, for the next borrower to find.

    PostgreSQL takes back those in UNDONE_BY_ROLLBACK with the transaction that left them; the
    others stay.
    """

    SETTINGS = 1  # SET, RESET, set_config(..., false)
    ROLE = 2  # SET ROLE, SET SESSION AUTHORIZATION
    CHANNELS = 4  # LISTEN
    TEMPORARY = 8  # temporary tables, views, sequences, functions in pg_temp
    CURSORS = 16  # DECLARE ... WITH HOLD
    LOCKS = 32  # session-level advisory locks
    PREPARED = 64  # PREPARE in SQL; not what a driver prepares by the protocol
    LASTING = 128  # what no reset undoes: LOAD, DISCARD ALL, DEALLOCATE ALL; the connection must go
    ENDS_TRANSACTION = 256  # COMMIT and the like: leaves nothing itself
    # No statement's: the server answered that it can serve no connection of this pool any more.
    OUSTED = 512
    SEED = 1024  # setseed(): whoever knows it knows what random() says next


UNDONE_BY_ROLLBACK = (
    Effect.SETTINGS | Effect.ROLE | Effect.CHANNELS | Effect.TEMPORARY | Effect.CURSORS
)
# What a statement may do that we cannot look into: DO, CALL, words that we do not know.
ANYTHING = (
    UNDONE_BY_ROLLBACK | Effect.LOCKS | Effect.PREPARED | Effect.SEED | Effect.ENDS_TRANSACTION
)

# As plain numbers: the arithmetic of an IntFlag costs more than all else that is done with them.
_ENDS = int(Effect.ENDS_TRANSACTION)
_TEMPORARY = int(Effect.TEMPORARY)
_UNDONE = int(UNDONE_BY_ROLLBACK)
_OPEN = 16  # effects of the transaction that is open are kept this many bits further left
_SETTLED = (1 << _OPEN) - 1


class Held(weakref.ref[Any]):
    """A named cursor that may be open on the server; weak, for it may have all its rows."""

    __slots__ = ("number", "withhold")

    # Not as their cursors are, of which somebody's own class decides.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, cursor: Any) -> None:
        super().__init__(cursor)  # type: ignore[call-arg]
        # The collector clears references before it ends what refers to the cursor, and closes it.
        self.number = id(cursor)
        self.withhold: bool = cursor.withhold and not cursor.closed

    def left_open(self) -> bool:
        """Whether it outlives its transaction, and nobody has closed it, or can do so any more."""
        cursor = self()
        return self.withhold and (cursor is None or not cursor.closed)


class Session:
    """The traces in one server session; lives as long as its connection.

    Touched only by whoever has the connection.
    """

    __slots__ = (
        "began",
        "blocks",
        "dirt",
        "ended",
        "evict_on",
        "held",
        "last",
        "own",
        "quiet_s",
        "settled_at",
        "shape",
        "transaction_at",
        "transaction_stack",
        "unread",
        "waited",
        "wanted",
        "watched",
        "watching",
    )

    def __init__(self) -> None:
        # Effects, of the open transaction too, that the next borrower must not find; 0 if clean.
        self.dirt = 0
        # Effects of what has set it up: `configure`, a receiver of connection_created.
        self.own = 0
        # Which effects matter to the pool; the others are not noted.
        self.watched = 0
        # Makes of a driver's cursor class one whose statements are noted here.
        self.watching: Callable[[Any], Any] = _as_it_is
        # Starts of SQLSTATEs after which the connection must go.
        self.evict_on: tuple[str, ...] = ()
        # What target_session_attrs asks for, if it is to be asked for again: see Driver.check().
        self.wanted = ""
        # Named cursors that may be open still. Not empty while one is that outlives transactions.
        self.held: list[Held] = []
        # Where the last statement was executed, raw (see Observer); None if there was none in this
        # loan. When it began, and when it ended if it has; seconds on the clock.
        self.last: Any = None
        self.began = self.ended = 0.0
        # For how long nothing had been executed when a statement found the connection broken.
        self.quiet_s = 0.0
        # Where and when Django's transaction was begun; None if there is none. When the last one
        # was committed or rolled back.
        self.transaction_stack: Any = None
        self.transaction_at: float | None = None
        self.settled_at = 0.0
        # Django's atomic blocks that are open, as its wrapper keeps them.
        self.blocks: list[Any] = []
        # Seconds that the borrower waited for it, until its first statement has been written down.
        self.waited = 0.0
        # What the driver's connection looked like before anybody had it; see Driver.shape().
        self.shape: Any = None
        # A reset was sent, and its answer has not been read.
        self.unread = False

    def note(self, effects: int, *, in_transaction: bool) -> None:
        """A statement with these *effects* is about to run."""
        if effects & _ENDS or not in_transaction:
            self.settle()
            self.dirt |= effects & self.watched & ~_ENDS
        else:
            effects &= self.watched
            self.dirt |= (effects & ~_UNDONE) | (effects & _UNDONE) << _OPEN

    def set_up(self, dirt: int = 0) -> None:
        """What was noted since there was this *dirt* has set the session up, and is to stay."""
        self.settle()
        self.own |= self.dirt & ~dirt
        self.dirt = dirt

    def settle(self) -> None:
        """The open transaction has ended, and not surely by a rollback: its effects stay."""
        self.dirt = (self.dirt | self.dirt >> _OPEN) & _SETTLED

    def rolled_back(self) -> None:
        """The open transaction was rolled back, and with it most of its effects."""
        if self.dirt & _TEMPORARY << _OPEN:
            self.temporary_goes()
        self.dirt &= _SETTLED

    def temporary_goes(self) -> None:
        """A temporary table is about to go, or was just taken back."""

    @property
    def executes(self) -> bool:
        """Whether a statement of this loan is being executed."""
        return self.last is not None and self.ended < self.began

    def own_blocks(self) -> list[Any]:
        """The atomic blocks that are open, without those that Django's TestCase opens."""
        return [b for b in list(self.blocks) if not getattr(b, "_from_testcase", False)]

    @property
    def is_tests(self) -> bool:
        """Whether the transaction is Django's TestCase's: then it is idle whenever a test is."""
        return len(self.own_blocks()) < len(self.blocks)

    def said(self) -> str:
        """The text of the last statement, without literals; empty if it is not kept."""
        return ""

    def hold(self, cursor: Any) -> None:
        """A named cursor was opened: WITH HOLD it outlives its transaction until it is closed."""
        kept: list[Held] = []
        lost: Held | None = None
        for held in self.held:
            known = held()
            if known is None:
                if held.withhold:
                    lost = held  # one stands for all of them
            elif known is not cursor and not known.closed:
                kept.append(held)
        if lost is not None:
            lost.number = 0
            kept.append(lost)
        kept.append(Held(cursor))
        self.held = kept

    def holds(self, cursor: Any) -> bool:
        """Whether *cursor*, which hold() was told of, was opened in this loan and not closed."""
        number = id(cursor)
        return any(held.number == number for held in self.held)

    def let_go(self, cursor: Any) -> None:
        """*cursor*, which hold() was told of, was closed; maybe by a finalizer in any thread."""
        number = id(cursor)
        for held in tuple(self.held):
            if held.number == number:
                with suppress(ValueError):
                    # Not a new list: the borrower may open another one just now.
                    self.held.remove(held)

    def leftovers(self) -> int:
        """What must be reset before the next borrower: effects, as bits."""
        self.settle()
        if any(held.left_open() for held in self.held):
            self.dirt |= Effect.CURSORS
        for held in self.held:
            cursor = held()
            if cursor is not None:
                cursor.abandon()
        self.held = []
        if self.dirt & _TEMPORARY:
            self.temporary_goes()
        return self.dirt


def _as_it_is(cursor_class: Any) -> Any:
    return cursor_class
