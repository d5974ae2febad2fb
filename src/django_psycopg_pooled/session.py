"""What a borrower has done to the server session behind a connection."""

from enum import IntFlag


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


UNDONE_BY_ROLLBACK = (
    Effect.SETTINGS | Effect.ROLE | Effect.CHANNELS | Effect.TEMPORARY | Effect.CURSORS
)
# What a statement may do that we cannot look into: DO, CALL, words that we do not know.
ANYTHING = UNDONE_BY_ROLLBACK | Effect.LOCKS | Effect.PREPARED | Effect.ENDS_TRANSACTION
