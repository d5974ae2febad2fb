"""An exception from outside wherever one can come in a loan, in turn: no slot is lost."""

import dis
import functools
import gc
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import django_psycopg_pooled
from django_psycopg_pooled.drivers.protocol import TransactionStatus, Watch
from django_psycopg_pooled.errors import PoolTimeout
from django_psycopg_pooled.pool.entry import Lease
from django_psycopg_pooled.testing import ManualClock, ScriptedConnection, ScriptedDriver
from tests.unit.scripted_pool import ScriptedPool, audit

TRACED = str(Path(django_psycopg_pooled.__file__).parent)
SLOTS = 2
NOWHERE = -1


class Interrupter:
    """Raises KeyboardInterrupt in the package's code where the interpreter may, at the n-th place.

    It may at the start of a function, when it jumps back, and after a call of what is not a Python
    function; nowhere else: not between the end of a `with` block and the call that releases its
    lock, for example.
    Source: CHECK_EVAL_BREAKER in CPython's ceval.c and bytecodes.c.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = "not interrupted"
        self._offsets: dict[FrameType | None, int] = {}  # of each frame's last instruction

    def __enter__(self) -> "Interrupter":
        _watch(self)
        return self

    def __exit__(self, *_: object) -> None:
        _watch(None)
        self._offsets.clear()

    def begins(self, frame: FrameType) -> None:
        self._count(frame)

    def steps(self, frame: FrameType) -> None:
        last = self._offsets.get(frame, NOWHERE)
        self._offsets[frame] = frame.f_lasti
        if (last, frame.f_lasti) in _breaks(frame.f_code):
            self._count(frame)

    def returns(self, frame: FrameType) -> None:
        self._offsets.pop(frame, None)
        if frame.f_code.co_name != "__init__":  # which a class calls, not our code
            self._offsets[frame.f_back] = NOWHERE

    def _count(self, frame: FrameType) -> None:
        self.left -= 1
        if self.left < 0:
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno} at {frame.f_lasti}"
            _watch(None)
            raise KeyboardInterrupt


def _is_watched(frame: FrameType) -> bool:
    code = frame.f_code
    # What is raised in a __del__ is printed and forgotten, and would prove nothing.
    if not code.co_filename.startswith(TRACED) or code.co_name == "__del__":
        return False
    # Background work, which a manual clock does in the thread that waits.
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not ManualClock._run_due.__code__:
        caller = caller.f_back
    return caller is None


if sys.version_info >= (3, 12):  # where a tracer misses the first instructions of a function
    _TOOL = 3
    _watching: Interrupter | None = None

    def _watch(interrupter: Interrupter | None) -> None:
        global _watching
        _watching = interrupter

    def _call(method: Callable[[Interrupter, FrameType], None]) -> Callable[..., Any]:
        def callback(code: CodeType, *_: object) -> Any:
            if not code.co_filename.startswith(TRACED):
                return sys.monitoring.DISABLE
            if _watching is not None and _is_watched(sys._getframe(1)):
                method(_watching, sys._getframe(1))
            return None

        return callback

    @pytest.fixture(scope="module", autouse=True)
    def _monitored() -> Iterator[None]:
        """Once for all: to begin and to end costs 10 ms."""
        monitoring, events = sys.monitoring, sys.monitoring.events
        monitoring.use_tool_id(_TOOL, "interrupter")
        monitoring.register_callback(_TOOL, events.PY_START, _call(Interrupter.begins))
        monitoring.register_callback(_TOOL, events.INSTRUCTION, _call(Interrupter.steps))
        monitoring.register_callback(_TOOL, events.PY_RETURN, _call(Interrupter.returns))
        monitoring.set_events(_TOOL, events.PY_START | events.INSTRUCTION | events.PY_RETURN)
        yield
        monitoring.set_events(_TOOL, 0)
        monitoring.free_tool_id(_TOOL)
else:

    def _watch(interrupter: Interrupter | None) -> None:
        if interrupter is None:
            sys.settrace(None)
            return
        methods = {
            "call": interrupter.begins,
            "opcode": interrupter.steps,
            "return": interrupter.returns,
        }

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if event == "call":
                if not _is_watched(frame):
                    return None
                frame.f_trace_opcodes = True
                frame.f_trace_lines = False
            if (method := methods.get(event)) is not None:
                method(frame)
            return trace

        sys.settrace(trace)


@functools.cache
def _breaks(code: CodeType) -> frozenset[tuple[int, int]]:
    """Pairs of instructions in *code* between which an exception may come.

    Not where the first has another handler than the second: it comes with the first's.
    """
    found = list(dis.get_instructions(code))
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    edges = {edge for entry in table for edge in (entry.start, entry.end)}
    pairs: set[tuple[int, int]] = set()
    for here, following in itertools.pairwise(found):
        if here.opname.startswith("CALL") and following.offset not in edges:
            pairs.add((here.offset, following.offset))
        elif "JUMP_BACKWARD" in here.opname and "NO_INT" not in here.opname:
            pairs.add((here.offset, here.argval))
    return frozenset(pairs)


class ForgetfulDriver(ScriptedDriver):
    """Keeps no connection alive, as no driver does."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: weakref.WeakSet[ScriptedConnection] = weakref.WeakSet()
        self._numbers = itertools.count(1)

    def connect(self) -> ScriptedConnection:
        connection = ScriptedConnection(next(self._numbers))
        self.connections.add(connection)
        return connection

    def watch(self, connection: Any) -> Watch:
        reference = weakref.ref(connection)
        return lambda _ms: bool((connection := reference()) and connection.dead)


class Scene(ScriptedPool):
    """A pool of two slots."""

    def __init__(self, **options: Any) -> None:
        driver = ForgetfulDriver()
        self.connections = driver.connections
        super().__init__(driver, max_size=SLOTS, **options)
        self.held: list[Lease] = []
        self.forgotten: list[Lease] = []
        self.spares: list[Lease] = []

    def give_back(self, count: int = SLOTS) -> None:
        """So many of what is held, or as many as there are."""
        for lease in self.held[:count]:
            self.pool.checkin(lease)
        del self.held[:count]

    def cycle(self) -> None:
        lease = self.pool.checkout(timeout=1)
        self.pool.checkin(lease)

    def cycle_again(self) -> None:
        """With the Lease of an earlier loan, as a wrapper does it: not in its hands meanwhile."""
        lease = self.pool.checkout(timeout=1, lease=self.spares.pop())
        self.pool.checkin(lease)
        self.spares.append(lease)


# Each makes a scene, and what is to be interrupted in it.
Story = Callable[[], tuple[Scene, Callable[[], None]]]


def idle(**options: Any) -> tuple[Scene, Callable[[], None]]:
    scene = Scene(**options)
    scene.warm(1)
    return scene, scene.cycle


def _spare(scene: Scene) -> None:
    """A Lease whose loan has ended."""
    lease = scene.pool.checkout()
    scene.pool.checkin(lease)
    scene.spares = [lease]


def idle_and_calm() -> tuple[Scene, Callable[[], None]]:
    """Where a return is usual: the one before has seen that there is nothing to see to."""
    scene, _ = idle()
    _spare(scene)
    assert scene.pool._core.ledger.calm
    return scene, scene.cycle_again


def handed_over_to_an_old_lease() -> tuple[Scene, Callable[[], None]]:
    scene = Scene()
    _spare(scene)
    scene.held = [scene.pool.checkout() for _ in range(SLOTS)]
    scene.at(0.1, lambda: scene.give_back(1))
    return scene, scene.cycle_again


def no_connection_yet() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0)
    return scene, scene.cycle


def no_connection_yet_and_workers() -> tuple[Scene, Callable[[], None]]:
    scene = Scene()
    return scene, scene.cycle


def idle_for_long() -> tuple[Scene, Callable[[], None]]:
    scene, cycle = idle(num_workers=0)
    scene.clock.advance(60)
    return scene, cycle


def idle_and_dead() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0)
    scene.warm(2)
    for connection in scene.connections:
        connection.dead = True
    return scene, scene.cycle


def past_its_lifetime() -> tuple[Scene, Callable[[], None]]:
    scene, _ = idle(num_workers=0, max_lifetime=100)
    scene.held.append(scene.pool.checkout())
    scene.clock.advance(200)
    return scene, lambda: scene.pool.checkin(scene.held.pop())


def left_in_a_transaction() -> tuple[Scene, Callable[[], None]]:
    scene, _ = idle(num_workers=0)

    def use() -> None:
        lease = scene.pool.checkout()
        lease.connection.status = TransactionStatus.INTRANS
        scene.pool.checkin(lease)

    return scene, use


def broken_in_use() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0)
    scene.warm(2)

    def use() -> None:
        lease = scene.pool.checkout()
        lease.connection.dead = True
        scene.pool.checkin(lease)

    return scene, use


def handed_over() -> tuple[Scene, Callable[[], None]]:
    scene = Scene()
    scene.held = [scene.pool.checkout() for _ in range(SLOTS)]
    scene.at(0.1, lambda: scene.give_back(1))
    return scene, scene.cycle


def all_lent() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0)
    scene.held = [scene.pool.checkout() for _ in range(SLOTS)]

    def wait() -> None:
        with pytest.raises(PoolTimeout):
            scene.pool.checkout(timeout=0.3)

    return scene, wait


def dropped() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0)
    scene.held = [scene.pool.checkout() for _ in range(SLOTS)]
    scene.held.clear()
    return scene, scene.cycle


def left_by_a_thread_that_has_ended() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0)

    def end() -> None:
        scene.forgotten = [scene.pool.checkout(bound=True) for _ in range(SLOTS)]

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(5)
    return scene, scene.cycle


def housekeeping_is_due() -> tuple[Scene, Callable[[], None]]:
    scene = Scene(num_workers=0, keepalive=10)
    scene.warm(2)
    scene.clock.advance(3600)
    return scene, scene.cycle


STORIES: list[Story] = [
    idle,
    idle_and_calm,
    handed_over_to_an_old_lease,
    no_connection_yet,
    no_connection_yet_and_workers,
    idle_for_long,
    idle_and_dead,
    past_its_lifetime,
    left_in_a_transaction,
    broken_in_use,
    handed_over,
    all_lent,
    dropped,
    left_by_a_thread_that_has_ended,
    housekeeping_is_due,
]


def _interruptions(story: Story) -> Iterator[tuple[str, Scene]]:
    """The scene after each interruption, and where that was; ends when the story is over."""
    for number in itertools.count():
        scene, action = story()
        with Interrupter(number) as interrupter:
            try:
                action()
            except KeyboardInterrupt:
                pass
            else:
                assert number > 10, "the story is too short to say anything"
                return
        yield interrupter.where, scene


def _assert_whole(scene: Scene) -> None:
    """Every slot can be had, and then all is as in a new pool."""
    pool = scene.pool
    assert not pool._core.lock.locked(), "the lock is held for ever"
    scene.clock.advance(1)  # what was to happen during the story does not happen later
    scene.give_back()
    scene.forgotten.clear()  # who refers to a connection may be using it
    for _ in range(2):
        scene.held = [pool.checkout(timeout=5) for _ in range(SLOTS)]
        assert len({id(lease.connection) for lease in scene.held}) == SLOTS
        with pytest.raises(PoolTimeout):  # and no more than that; whoever waits mends first
            pool.checkout(timeout=0.1)
        scene.give_back()
    audit(pool)
    facts = pool.snapshot()
    assert facts.requests_waiting == 0
    assert facts.count("idle") == facts.size == SLOTS
    left_open = [connection for connection in scene.connections if not connection.closed]
    assert len(left_open) == SLOTS


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_no_slot_is_lost_wherever_a_loan_is_interrupted(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a Lease that was not made to the end, say: Python prints it, pytest would keep it for long.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    gc.collect()
    gc.disable()  # what is lost must be found without its help
    failures: list[str] = []
    try:
        for where, scene in _interruptions(story):
            try:
                _assert_whole(scene)
            except BaseException as error:
                failures.append(f"{where}: {type(error).__name__} {str(error)[:200]}")
    finally:
        gc.enable()
    assert not failures, "\n".join(failures)
