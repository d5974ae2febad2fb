"""The states of a pooled connection, and the moves between them that are allowed."""

from enum import Enum


class State(Enum):
    """Where one connection stands. Every one but CLOSED takes a slot of max_size."""

    OPENING = "opening"
    IDLE = "idle"
    LENT = "lent"
    CHECKING = "checking"  # out of the idle stack for a check in the background
    CLOSING = "closing"
    CLOSED = "closed"  # also: inherited over fork(), and so not ours to use

    # The table below as bits: an Enum's own hash costs more than the rest of a checkout's books.
    bit: int
    next_bits: int


MOVES: dict[State, frozenset[State]] = {
    State.OPENING: frozenset({State.IDLE, State.LENT, State.CLOSING, State.CLOSED}),
    State.IDLE: frozenset({State.LENT, State.CHECKING, State.CLOSING}),
    # LENT to LENT: handed from the one who gives it back to the first who waits.
    State.LENT: frozenset({State.IDLE, State.LENT, State.CLOSING}),
    State.CHECKING: frozenset({State.IDLE, State.LENT, State.CLOSING}),
    State.CLOSING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}

for _number, _state in enumerate(State):
    _state.bit = 1 << _number
for _state, _next in MOVES.items():
    _state.next_bits = sum(state.bit for state in _next)


class IllegalMove(AssertionError):
    """A defect of ours: a connection was moved where its state does not allow."""
