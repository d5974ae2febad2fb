"""Has statements prepared on connections, closes them, and finds out when they are stale."""

from typing import Any

from django_psycopg_pooled.clock import Clock
from django_psycopg_pooled.drivers.preparing import Binding, is_refusal
from django_psycopg_pooled.preparing.holdings import Held, Holdings
from django_psycopg_pooled.preparing.plan import Doubt, Plan, Variant

NOT_THERE, THERE_ALREADY = "26000", "42P05"
NO_RIGHT = "42501"
OPERATOR = "57"  # has cancelled, or stops the server


class Keeper:
    """Lives as long as its preparer. Called by who has the connection; blocks for round trips."""

    def __init__(self, binding: Binding, most: int, clock: Clock) -> None:
        self._binding = binding
        self._max = most
        self._now = clock.monotonic
        # Whether a pooler was seen to change the session under us: nothing is prepared any more.
        self.is_away = False
        # Nobody has asked yet who answers, or something has befallen a statement that we did not
        # cause.
        self._wonders = True

    def ready(self, cursor: Any, plan: Plan, variant: Variant, holdings: Holdings) -> Held | None:
        """Have *variant* prepared on this connection; None if it is to run as it is this time."""
        binding = self._binding
        statement = variant.statement
        held = holdings.get(variant)
        if held is not None and held.rests and held.statement is statement:
            held.rests, held.runs = False, statement
            holdings.move_to_end(variant)
            return None
        if held is not None:  # outdated or doubtful
            self._close(cursor, holdings, variant)
        while len(holdings) >= self._max:
            self._close(cursor, holdings, next(iter(holdings)))
        if self._wonders and self._is_elsewhere(cursor):
            return None
        inside = binding.in_transaction(cursor.connection)
        guarded = inside and not variant.proven
        plan.doubt = None
        holdings[variant] = held = Held(plan, statement)
        try:
            binding.prepare(cursor, statement, guarded=guarded)
        except Exception as error:
            code = binding.sqlstate(error)
            # Outdated already: the driver names a type that is gone.
            if not is_refusal(code) and not binding.is_outdated_plan(error):
                raise
            lost = inside and not guarded  # the transaction
            if code == THERE_ALREADY:
                # Its name says that it is the same; but we have not prepared it.
                self._wonders = True
                if lost:
                    raise
                if self._is_elsewhere(cursor):
                    return None
            else:
                del holdings[variant]
                if lost:
                    plan.outdated(variant, statement, self._now())
                    raise
                plan.doubt = Doubt(f"it cannot be prepared: {type(error).__name__}", code)
                return None
        variant.proven = variant.worked = True
        held.runs = statement
        return held

    def is_healed(
        self, cursor: Any, plan: Plan, variant: Variant, holdings: Holdings, error: Exception
    ) -> bool:
        """Whether *error* says that the statement is stale, and it can be run as it is instead."""
        binding = self._binding
        code = binding.sqlstate(error)
        idle = bool(binding.is_idle(cursor.connection))
        if code == NOT_THERE:
            # Somebody has taken them away, and hardly this one alone.
            holdings.doubt_all()
            self._wonders = True
            if idle:
                self._is_elsewhere(cursor)
            return idle
        outdated = binding.is_outdated_plan(error)
        if not outdated and (not code.startswith("42") or code == NO_RIGHT):
            return False
        if outdated or not idle:
            plan.outdated(variant, holdings[variant].statement, self._now())
        return idle

    def _close(self, cursor: Any, holdings: Holdings, variant: Variant) -> None:
        held = holdings[variant]
        held.doubtful()  # if this is interrupted, it is closed once more; that does no harm
        held.hand_in(self._now())
        self._binding.close(cursor, held.statement)
        del holdings[variant]

    def _is_elsewhere(self, cursor: Any) -> bool:
        binding = self._binding
        if not self.is_away and binding.is_elsewhere(cursor):
            try:
                if not binding.keeps_apart(cursor):
                    self.is_away = True
            except Exception as error:
                if binding.sqlstate(error).startswith(OPERATOR):
                    raise
                # A pooler that does not bear the question is not asked again: it may have ended
                # the connection for it.
                self.is_away = True
                if not binding.is_idle(cursor.connection):
                    raise
        self._wonders = False  # not sooner: others must not prepare meanwhile
        return self.is_away
