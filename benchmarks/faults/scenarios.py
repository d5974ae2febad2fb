"""What happens when ...: a function a fault, which brings it about and tells the outcome.

Each has a process of its own, which is killed when it has not answered within the limit.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.faults.contenders import Trial
from benchmarks.faults.firewall import Firewall
from benchmarks.faults.outcomes import Outcome, of_request, seconds
from benchmarks.field import WARM_UP
from benchmarks.peers import PoolSize
from benchmarks.process import Stalled

SLACK_S = 5.0
CHILDREN, QUERIES, CHILD_LIMIT_S = 3, 50, 5
ENDED = 10
READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"
BACK = "ALTER DATABASE {} RESET default_transaction_read_only"
BLACKHOLED, BLACKHOLE_LIMIT_S, IDLE_S = 3, 35.0, 0.3


def leftovers_in_session(trial: Trial) -> Outcome:
    """Nine kinds of state left by SQL."""
    return _leftovers(trial, "faults.leftovers.in_session")


def leftovers_on_connection(trial: Trial) -> Outcome:
    """Attributes of the driver's connection."""
    return _leftovers(trial, "faults.leftovers.on_connection")


def _leftovers(trial: Trial, task: str) -> Outcome:
    with trial.process(PoolSize(1, 1), timeout=timeout(trial.quick)) as process:
        kinds: dict[str, bool] = process.ask(task, 30.0)
    left = [kind for kind, leaked in kinds.items() if leaked]
    text = f"{len(left)} of {len(kinds)} leak" if left else f"none of {len(kinds)} leaks"
    some = left if len(left) < len(kinds) else []
    return Outcome(text, leaks=len(left), note=f"left: {', '.join(some)}" if some else "")


def fork(trial: Trial) -> Outcome:
    """Children that use the idle connections they were born with; then their parent."""
    with trial.process(PoolSize(2, 4), timeout=timeout(trial.quick)) as process:
        process.ask("spike.warm", connections=2)
        ask = {"children": CHILDREN, "queries": QUERIES, "limit_s": CHILD_LIMIT_S}
        children = process.ask("faults.forks.fork_and_ask", CHILD_LIMIT_S + SLACK_S, **ask)
        try:
            parent = process.ask("faults.forks.ask", SLACK_S, name="parent", queries=10)
        except Stalled:
            parent = None
    return of_family(children, parent)


def of_family(children: Sequence[dict[str, Any]], parent: list[list[str]] | None) -> Outcome:
    """From what the children got and, if it did not hang, what their parent got after them."""
    answers = [answer for child in children for answer in child["answers"]]
    foreign = _count(answers, "foreign")
    failed = _count(answers, "error")
    late = sum(child["late"] for child in children)
    crashed = sum(bool(child["signal"]) and not child["late"] for child in children)
    parts = [_some(foreign, "foreign row"), _some(failed, "error"), _some(late, "hanging child")]
    parts += [_some(crashed, "crashed child"), _of_parent(parent)]
    after = parent or []
    errors = [text for what, text in [*answers, *after] if what == "error"]
    return Outcome(
        ", ".join(filter(None, parts)) or "none notices",
        foreign_rows=foreign + _count(after, "foreign"),
        failed=failed + _count(after, "error"),
        hangs=late + (parent is None),
        note=errors[0] if errors else "",
    )


def _of_parent(answers: list[list[str]] | None) -> str:
    if answers is None:
        return "the parent hangs"
    wrong = len(answers) - _count(answers, "ok")
    return f"the parent too: {wrong} of {len(answers)}" if wrong else ""


def threads_that_end(trial: Trial) -> Outcome:
    """Two threads that end without close(), in a pool of two; then a third request."""
    with trial.process(PoolSize(1, 2), timeout=timeout(trial.quick)) as process:
        process.ask("faults.threads.abandon", SLACK_S, threads=2)
        outcome = of_request(process.ask("faults.requests.request", _patience(trial)))
    return outcome


def interrupts(trial: Trial) -> Outcome:
    """Exceptions thrown into threads that borrow and give back."""
    times = 100 if trial.quick else 500
    with trial.process(PoolSize(1, 4), timeout=timeout(trial.quick)) as process:
        ask = {"threads": 6, "times": times, "limit_s": 15.0}
        thrown = process.ask("faults.interrupts.interrupt", 40.0, **ask)
        patience_s = timeout(trial.quick) + 1.0
        ask = {"threads": 4, "patience_s": patience_s}
        lost = 4 - process.ask("faults.threads.served_at_once", patience_s + SLACK_S, **ask)
    few = "" if thrown >= times else f" by {thrown} interrupts"
    return Outcome(f"{lost} of 4 slots lost{few}" if lost else f"none lost{few}", lost_slots=lost)


def ended_by_the_server(trial: Trial) -> Outcome:
    """Ten idle connections that the server ends; then ten requests."""
    with trial.process(PoolSize(ENDED, ENDED)) as process:
        process.ask("restart.warm", connections=ENDED)
        trial.server.terminate_backends(trial.database)
        answer = process.ask("restart.requests", 90.0, count=ENDED, limit_s=50.0)
    failed, asked, first = len(answer["errors"]), len(answer["times_ms"]), answer["times_ms"][0]
    note = answer["errors"][0] if failed else ""
    text = f"{failed or 'none'} of {asked} fails, the first takes {seconds(first / 1e3)}"
    return Outcome(text if failed < 2 else text.replace("fails", "fail"), failed=failed, note=note)


def exhausted(trial: Trial) -> Outcome:
    """A request for the only connection, which another thread keeps."""
    with trial.process(PoolSize(1, 1), timeout=timeout(trial.quick)) as process:
        answer = process.ask("faults.threads.exhaust", _patience(trial))
    error = answer["error"]
    if error is None:
        return Outcome("served")
    said = error.partition(": ")[2]
    return Outcome("yes" if answer["names_line"] else "no", note=f'"{" ".join(said.split())[:60]}"')


def pauses(trial: Trial) -> Outcome:
    """Twenty threads on one connection, each pausing between two queries."""
    with trial.process(PoolSize(1, 1)) as process:
        process.ask(WARM_UP)  # what is imported once does not count
        answer = process.ask("faults.threads.pause_between", 40.0, threads=20, pause_s=0.2)
    errors = answer["errors"]
    text = f"{seconds(answer['seconds'])}{f', {len(errors)} fail' if errors else ''}"
    return Outcome(text, failed=len(errors), note=errors[0] if errors else "")


def read_only(trial: Trial) -> Outcome:
    """A server that was read-only when the connections were opened, and is not any more.

    So it is after a failover: the sessions are of the node that writes nothing, a new one would be
    of the node that does. Two writes fail before that, as they must.
    """
    server, name = trial.server, f'"{trial.database}"'
    server.psql("CREATE TABLE IF NOT EXISTS written (n int)", trial.database)
    server.psql(READ_ONLY.format(name))
    try:
        with trial.process(PoolSize(5, 5), timeout=timeout(trial.quick)) as process:
            process.ask("spike.warm", 30.0, connections=5)
            early = process.ask("faults.requests.writes", 15.0, count=2)
            server.psql(BACK.format(name))
            errors = process.ask("faults.requests.writes", 60.0, count=10)
    finally:
        server.psql(BACK.format(name))
    if len(early) < 2:
        return Outcome("not read-only", note="writes succeeded on a read-only server")
    return Outcome(f"{len(errors) or 'none'} of 10", failed=len(errors),
                   note=errors[0] if errors else "")  # fmt: skip


def blackholed(trial: Trial) -> Outcome:
    """Idle connections that a firewall has forgotten; then a request, which may open a new one."""
    with Firewall(trial.server.host, trial.server.port) as firewall:
        # Idle for longer than this, ours is checked; else all would have to be idle for 30 s.
        options = {"check_idle": IDLE_S / 2, **({"check_timeout": 1.0} if trial.quick else {})}
        size = PoolSize(BLACKHOLED, BLACKHOLED)
        with trial.process(size, port=firewall.port, ours=options) as process:
            process.ask("spike.warm", connections=BLACKHOLED)
            firewall.forget()
            try:
                return of_request(
                    process.ask("faults.requests.request_after", BLACKHOLE_LIMIT_S, idle_s=IDLE_S)
                )
            except Stalled:
                return Outcome(f"hangs, given up after {BLACKHOLE_LIMIT_S:.0f} s", hangs=1)


def timeout(quick: bool) -> float:
    """Seconds that a request may wait for a connection, where the contender lets that be set."""
    return 1.0 if quick else 3.0


def _patience(trial: Trial) -> float:
    return timeout(trial.quick) + SLACK_S


def _count(answers: Sequence[Sequence[str]], what: str) -> int:
    return sum(answer[0] == what for answer in answers)


def _some(count: int, what: str) -> str:
    """'' for none, '1 error', '2 errors', '2 hanging children'."""
    many = f"{what}ren" if what.endswith("child") else f"{what}s"
    return f"{count} {what if count == 1 else many}" if count else ""
