"""Looking after what is lent: loans that nobody can end, transactions in which nothing happens."""

import logging
from dataclasses import dataclass
from functools import partial

from django_psycopg_pooled.drivers.protocol import OPEN_TRANSACTION
from django_psycopg_pooled.pool.core import Core
from django_psycopg_pooled.pool.entry import Entry
from django_psycopg_pooled.pool.reclaimer import Reclaimer
from django_psycopg_pooled.pool.texts import idle_ended_report, idle_report
from django_psycopg_pooled.pool.views import connection_facts

logger = logging.getLogger(__name__)

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
SAY_AGAIN_S = 10.0  # for so long the same line of code is not logged again
PLACES = 1000  # that are remembered for that; beyond, they may be logged sooner


@dataclass(slots=True)
class Spell:
    """One time that a transaction is idle; lives until a look finds that it is over."""

    entry: Entry
    loan: int
    since: float  # when its last statement ended
    place: str = ""  # where the transaction was begun, as it was logged
    reported: bool = False
    logged: bool = False


class Lookout:
    """Looks through the loans of one pool now and then.

    Takes back what nobody can give back any more: the locks that an ended thread has left on the
    server would hold up others, who may never come to wait for the pool. And reports what is idle
    in a transaction for longer than the option says.

    Looks some times while the threshold passes, every second at least, as long as something is
    lent, also by a pool that is closed; then sleeps until the next checkout wakes it. With
    num_workers=0 nobody looks.

    Guards: the pool's lock guards `core.looking` and `core.unwatched`. All else is touched by run()
    only, which is not called again before it has ended.
    """

    def __init__(self, core: Core, reclaimer: Reclaimer) -> None:
        self._core = core
        self._reclaimer = reclaimer
        self._turn = 0  # the number of the next look; who makes `core.looking` true counts it up
        self._books = core.ledger
        self._spells: dict[int, Spell] = {}
        self._logged_at: dict[str, float] = {}

    def wake(self) -> None:
        """Something is lent: see that somebody looks. Does not block."""
        core = self._core
        unsaid = False
        try:
            with core.lock:
                core.unwatched = False
                if core.looking or not core.runtime.threaded:
                    return
                unsaid = core.looking = True
            self._come_again()
            unsaid = False
        finally:
            if unsaid:  # an exception from outside: else nobody would look any more
                with core.lock:
                    core.looking, core.unwatched = False, True

    def run(self, turn: int) -> None:
        """Look once, and say when to look again.

        Blocks for logging, the hooks, and the closes of what interrupted calls have left.
        """
        core = self._core
        if turn != self._turn:  # another has been called since, by one who did not know of this
            return
        try:
            self._reclaimer.run()
            self._look(self._loans(), core.options.idle_in_transaction_threshold)
            core.listener.looked()
        except Exception:
            # A hook's or a defect: watching must not end what it watches, nor itself.
            logger.exception("pool %r: looking after loans failed", core.name)
        with core.lock:
            ledger = core.ledger
            wanted = ledger.lent or self._spells
            # Critical section: whoever borrows after this finds that nobody looks. After the look,
            # so that the next one cannot begin beside it.
            core.looking = again = bool(wanted)
            core.unwatched = not again
        if again:
            self._come_again()
        elif ledger.closed:
            core.runtime.stop()

    def _come_again(self) -> None:
        core = self._core
        limit = core.options.idle_in_transaction_threshold
        pause = min(max(limit / 3, SHORTEST_PAUSE_S), LONGEST_PAUSE_S) if limit else LONGEST_PAUSE_S
        self._turn += 1
        core.runtime.call_at(core.clock.monotonic() + pause, partial(self.run, self._turn))

    def _loans(self) -> list[tuple[Entry, int]]:
        with self._core.lock:
            return [(entry, entry.loan) for entry in self._core.ledger.entries if entry.loan]

    def idle_since(self, entry: Entry) -> float | None:
        """Since when the transaction of this loan was idle when somebody last looked; else None."""
        spell = self._spells.get(entry.number)
        return spell.since if spell is not None and spell.loan == entry.loan else None

    def _look(self, loans: list[tuple[Entry, int]], limit: float) -> None:
        core = self._core
        if self._books is not core.ledger:  # this is a child of fork()
            self._books, self._spells = core.ledger, {}
        now = core.clock.monotonic()
        idle = {entry.number: spell for entry, loan in loans if (spell := self._idle(entry, loan))}
        for number, spell in list(self._spells.items()):
            present = idle.get(number)
            if present is None or (present.loan, present.since) != (spell.loan, spell.since):
                del self._spells[number]
                self._tell_end(spell, now)
        for number, spell in idle.items():
            known = self._spells.setdefault(number, spell)
            if limit and not known.reported and now - known.since >= limit:
                known.reported = True
                self._tell(known, now)

    def _idle(self, entry: Entry, loan: int) -> Spell | None:
        """What *entry* does not do at this moment; its borrower may be about to."""
        session = entry.session
        if self._core.driver.status(entry.connection) not in OPEN_TRANSACTION:
            return None
        if session.executes or (session.is_tests and not session.own_blocks()):
            return None
        return Spell(entry, loan, max(session.ended, entry.since) if session.last else entry.since)

    def _tell(self, spell: Spell, now: float) -> None:
        core = self._core
        facts = connection_facts(core, spell.entry)
        if spell.entry.loan != spell.loan or facts.thread_id is None:
            return  # it has ended just now
        with core.lock:
            core.counters.idle_in_transaction += 1
        spell.place = facts.transaction_at or facts.last_statement_at or facts.borrowed_at
        if now >= self._logged_at.get(spell.place, 0.0):
            if len(self._logged_at) >= PLACES:
                self._logged_at.clear()
            self._logged_at[spell.place] = now + SAY_AGAIN_S
            spell.logged = True
            logger.warning("%s", idle_report(core.name, facts, now - spell.since))
        core.listener.idle_in_transaction(facts)

    def _tell_end(self, spell: Spell, now: float) -> None:
        if not spell.logged:
            return
        entry = spell.entry
        session = entry.session
        # Whatever ended it came after it; a look that finds no trace of that knows only by now.
        traces = [session.began, session.settled_at]
        if entry.loan != spell.loan:
            traces.append(entry.since)
        lasted = min((t for t in traces if t > spell.since), default=now) - spell.since
        logger.warning("%s", idle_ended_report(self._core.name, spell.place, lasted))
