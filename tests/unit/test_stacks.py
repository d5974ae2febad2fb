"""Which line of the user's code is it, and what is its thread working on?"""

import contextlib
import functools
import gc
import importlib.util
import os
import subprocess
import sys
import sysconfig
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import django_psycopg_pooled
from django_psycopg_pooled.tracking import labels, stacks
from django_psycopg_pooled.tracking.labels import label_of, set_label
from django_psycopg_pooled.tracking.stacks import RawStack, capture, key, lines, live, place
from tests.server.support import eventually, require

LIBRARY = "/opt/env/lib/python3/site-packages/orm/query.py"
USERS = "/srv/shop/views.py"
HERE = "tests/unit/test_stacks.py"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own path is HERE, not what pytest makes of it."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not p.startswith(str(root / "tests"))])


def _code(filename: str, inner: Callable[[], Any], *, name: str = "call", line: int = 1) -> Any:
    """A function that calls *inner*, as if written in that line of that file."""
    names: dict[str, Any] = {"inner": inner}
    source = "\n" * (line - 1) + f"def {name}(): return inner()"
    exec(compile(source, filename, "exec"), names)
    return names[name]


def _library(inner: Callable[[], Any], frames: int = 1) -> Any:
    """*inner*, called through so many frames of a library."""
    for number in range(frames):
        inner = _code(LIBRARY, inner, name=f"library{number}")
    return inner


def _place_of(filename: str) -> str:
    """What place() says of code in that file, which is called by the user's."""
    return place(_code(USERS, _code(filename, capture), name="view", line=88)())


# ---- whose code is it?


def test_the_place_is_the_users_innermost_line_not_the_librarys() -> None:
    view = _code(USERS, _library(capture, 12), name="checkout", line=88)
    assert place(view()) == "/srv/shop/views.py:88 in checkout"


@pytest.mark.parametrize(
    "filename",
    [
        LIBRARY,
        "/usr/lib/python3/dist-packages/django/db/models/query.py",
        os.path.join(sysconfig.get_path("stdlib"), "contextlib.py"),
        os.path.realpath(os.__file__),
        str(Path(django_psycopg_pooled.__file__).with_name("pool") / "pool.py"),
        "<frozen importlib._bootstrap>",
    ],
)
def test_code_of_a_library_is_not_the_users(filename: str) -> None:
    assert _place_of(filename) == "/srv/shop/views.py:88 in view"


@pytest.mark.parametrize(
    "filename",
    [
        "manage.py",
        "/srv/shop/models.py",
        "/srv/site-packages.d/models.py",
        "<stdin>",
        "<string>",
        "<ipython-input-3-5ca9>",
        "<attrs generated init shop.Order>",
        "",
        "no such file: ünï\tcode",
    ],
)
def test_all_other_code_is_the_users_with_or_without_a_file(filename: str) -> None:
    assert _place_of(filename) == f"{filename}:1 in call"


def test_code_of_many_files_is_told_apart_without_keeping_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stacks, "_FILES_KNOWN", 10)
    for number in range(100):
        library = _code(f"/env/site-packages/{number}.py", capture)
        assert place(_code(f"<cell {number}>", library)()) == f"<cell {number}>:1 in call"
        assert len(stacks._users_files) <= 10
        assert len(stacks._library_files) <= 10


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", "{code}"], "<string>:1 in <module>"),
        (["manage.py"], "manage.py:1 in <module>"),
        (["-m", "manage"], "manage.py:1 in <module>"),
        (["-"], "<stdin>:1 in <module>"),
    ],
)
def test_a_script_is_the_users_however_it_is_started(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    code = "from django_psycopg_pooled.tracking.stacks import *; print(place(capture()))"
    (tmp_path / "manage.py").write_text(code)
    said = subprocess.run(
        [sys.executable, *(argument.format(code=code) for argument in arguments)],
        cwd=tmp_path, input=code, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.strip() == expected


# ---- what is recorded


def test_the_users_lines_that_led_there_are_recorded_innermost_first() -> None:
    helper = _code("/srv/shop/helpers.py", _library(capture, 3), name="fetch", line=7)
    view = _code(USERS, helper, name="checkout", line=88)
    assert lines(view())[:2] == [
        "/srv/shop/helpers.py:7 in fetch",
        "/srv/shop/views.py:88 in checkout",
    ]


def test_decorators_of_libraries_do_not_hide_who_called() -> None:
    atomic = _code(LIBRARY, _code(USERS, capture, name="pay"), name="atomic")
    view = _code(LIBRARY, _code(USERS, atomic, name="checkout", line=9), name="login_required")
    assert lines(_code(USERS, view, name="traced", line=20)())[:3] == [
        "/srv/shop/views.py:1 in pay",
        "/srv/shop/views.py:9 in checkout",
        "/srv/shop/views.py:20 in traced",
    ]


def test_what_is_beyond_the_framework_is_left_out() -> None:
    view = _code(USERS, capture, name="view")
    middleware = _code("/srv/shop/middleware.py", _library(view, 2))
    assert lines(middleware()) == ["/srv/shop/views.py:1 in view"]


def test_a_deep_recursion_costs_no_more_than_its_innermost_lines() -> None:
    def down(left: int) -> RawStack:
        return down(left - 1) if left else capture()

    recorded = lines(down(700))
    assert len(recorded) == 9
    assert set(recorded[1:]) == {recorded[1]}


def test_the_users_line_is_not_looked_for_without_end() -> None:
    assert place(_code(USERS, _library(capture, 59))()) == "/srv/shop/views.py:1 in call"
    deep = _code(USERS, _library(capture, 60))()
    assert lines(deep) == [f"{LIBRARY}:1 in library{n}" for n in range(4)]
    assert place(deep) == f"{LIBRARY}:1 in library0"


def test_a_thread_without_a_line_of_the_users_says_where_it_is_anyway() -> None:
    seen: list[RawStack] = []
    library = _library(lambda: seen.append(capture(1)))
    thread = threading.Thread(target=library)
    thread.start()
    thread.join(5)
    assert place(seen[0]) == f"{LIBRARY}:1 in library0"
    assert " in Thread.run" in lines(seen[0])[1]


def test_frames_that_are_skipped_are_not_recorded() -> None:
    def helper() -> RawStack:
        return capture(1)

    view = _code(USERS, helper, name="view")
    assert place(view()) == "/srv/shop/views.py:1 in view"


def test_a_generator_has_a_line_of_its_own() -> None:
    def rows() -> Iterator[RawStack]:
        yield capture()

    first = rows.__code__.co_firstlineno
    raw = next(rows())
    assert place(raw) == f"{HERE}:{first + 1} in {rows.__qualname__}"
    assert lines(raw)[1].endswith("in test_a_generator_has_a_line_of_its_own")


def test_lines_are_those_of_a_traceback() -> None:
    frames: list[RawStack] = []
    expected: list[int | None] = []

    def note() -> bool:
        frame = sys._getframe(1)
        expected.append(traceback.extract_stack(frame)[-1].lineno)
        frames.append(capture(1))
        return True

    def work() -> None:
        note()
        [
            note()
            for _ in range(2)
            if note()
        ]  # fmt: skip
        (lambda: note(
        ))()  # fmt: skip
        with contextlib.suppress(ValueError):
            raise ValueError(
                note(),
                note())  # fmt: skip
        try:
            assert not note()
        except AssertionError:
            note()
        finally:
            note()

    work()
    assert len(frames) == 11
    assert [key(raw)[2] for raw in frames] == expected


def test_a_generator_that_has_not_begun_is_at_its_first_line() -> None:
    def rows() -> Iterator[int]:
        yield 1

    frame: FrameType = rows().gi_frame  # type: ignore[attr-defined]
    assert key([(frame.f_code, -1)])[2] == rows.__code__.co_firstlineno


# ---- what is kept


class _Local:
    """Something that a function has in hand."""


def test_no_frame_is_kept_alive() -> None:
    seen: list[weakref.ref[_Local]] = []

    def view() -> RawStack:
        mine = _Local()
        seen.append(weakref.ref(mine))
        captured, looked = capture(), live(threading.get_ident())
        assert place(captured) == place(looked or [])
        return [*captured, *(looked or [])]

    gc.disable()
    try:
        raw = view()
        assert seen[0]() is None
    finally:
        gc.enable()
    assert " in test_no_frame_is_kept_alive" in lines(raw)[1]


def test_the_code_may_be_gone_when_its_line_is_asked_for() -> None:
    view = _code("<cell 1>", capture, name="view", line=5)
    raw = view()
    del view
    gc.collect()
    assert place(raw) == "<cell 1>:5 in view"


# ---- text


def test_paths_are_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "src" / "shop" / "views.py"
    raw = _code(str(file), capture)()
    assert place(raw) == f"{file}:1 in call"
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert place(raw) == "shop/views.py:1 in call"
    monkeypatch.chdir(tmp_path)
    assert place(raw) == "src/shop/views.py:1 in call"


def test_a_folder_whose_name_only_begins_alike_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert place(_code(f"{tmp_path}2/views.py", capture)()) == f"{tmp_path}2/views.py:1 in call"


def test_a_removed_working_directory_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert place(_code(USERS, capture)()) == "/srv/shop/views.py:1 in call"


# ---- equal places


def test_a_place_equals_itself_when_its_code_was_made_anew() -> None:
    keys = {key(_code(USERS, _library(capture, n), line=5)()) for n in range(3)}
    assert keys == {(USERS, "call", 5)}


def test_places_that_differ_in_file_function_or_line_are_not_equal() -> None:
    variants = [
        _code(USERS, capture),
        _code(USERS, capture, line=2),
        _code(USERS, capture, name="other"),
        _code("/srv/shop/other.py", capture),
    ]
    assert len({key(variant()) for variant in variants}) == 4


# ---- live


@contextlib.contextmanager
def _blocked(
    through: Callable[[Callable[[], Any], int], Any] | None = None, frames: int = 0
) -> Iterator[int]:
    """A thread that waits in a line of the user's; or in a library's that was called by it."""
    signal = threading.Event()

    def pay() -> None:
        signal.wait(30)

    inner = through(signal.wait, frames) if through else pay
    target = _code(USERS, inner, name="checkout", line=88)
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        assert thread.ident is not None
        yield thread.ident
    finally:
        signal.set()
        thread.join(5)


def _waits_in(thread_id: int) -> list[str]:
    """Its lines, once it has come to rest."""
    eventually(lambda: "Condition.wait" in lines(live(thread_id) or [])[0], 5)
    return lines(live(thread_id) or [])


def test_a_blocked_thread_says_where_it_is_and_which_line_of_the_users_brought_it_there() -> None:
    with _blocked() as thread_id:
        found = _waits_in(thread_id)
        raw = live(thread_id)
        assert raw is not None
        assert place(raw).startswith(f"{HERE}:")
        assert place(raw).endswith("in _blocked.<locals>.pay")
    assert found[0].startswith("threading.py:")
    assert found[1].endswith("in Event.wait")
    assert found[2] == place(raw)
    assert found[3] == "/srv/shop/views.py:88 in checkout"


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 20, 90])
def test_the_users_line_is_among_ten_however_deep_the_library(frames: int) -> None:
    with _blocked(_library, frames) as thread_id:
        found = _waits_in(thread_id)
        raw = live(thread_id)
        assert raw is not None
        assert place(raw) == "/srv/shop/views.py:88 in checkout"
    assert found.index(place(raw)) == min(frames + 2, 9)
    assert len(found) <= 10


def test_a_thread_that_has_ended_is_nowhere() -> None:
    with _blocked() as thread_id:
        assert live(thread_id) is not None
    assert live(thread_id) is None
    assert live(-1) is None


# ---- labels


def _from_a_thread(function: Callable[[], Any]) -> int:
    """Call it in a thread; that thread's number, when it has ended."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(5)
    assert thread.ident is not None
    return thread.ident


@pytest.fixture
def _unlabelled() -> Iterator[None]:
    set_label(None)
    yield
    set_label(None)


@pytest.mark.usefixtures("_unlabelled")
def test_a_thread_says_what_it_is_working_on_until_it_does_not() -> None:
    me = threading.get_ident()
    assert label_of(me) is None
    set_label("GET /checkout")
    assert label_of(me) == "GET /checkout"
    set_label("task shop.tasks.bill")
    assert label_of(me) == "task shop.tasks.bill"
    set_label(None)
    assert label_of(me) is None


@pytest.mark.usefixtures("_unlabelled")
def test_each_thread_has_a_label_of_its_own() -> None:
    set_label("GET /")
    seen: list[str | None] = []

    def other() -> None:
        set_label("POST /pay")
        seen.append(label_of(threading.get_ident()))

    _from_a_thread(other)
    assert seen == ["POST /pay"]
    assert label_of(threading.get_ident()) == "GET /"


@pytest.mark.usefixtures("_unlabelled")
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET /a\r\nERROR forged line", "GET /aERROR forged line"),
        ("GET /\x1b[2J\x1b]0;owned\x07", "GET /[2J]0;owned"),
        ("GET /\x00\x7f\x85\x9b\u2028\u202e\ud800", "GET /"),
        ("GET /" + "a" * 200, "GET /" + "a" * 115),
        ("\n" * 10**6, ""),
        ("GET /büro/日本", "GET /büro/日本"),
    ],
)
def test_a_strangers_url_cannot_forge_lines_or_speak_to_the_terminal(text: str, kept: str) -> None:
    set_label(text)
    assert label_of(threading.get_ident()) == kept


def test_labels_go_with_their_threads() -> None:
    gc.disable()  # without its help
    try:
        dead = [_from_a_thread(lambda: set_label("GET /")) for _ in range(300)]
        assert not set(dead) & set(labels._by_thread)
        assert len(labels._by_thread) <= threading.active_count()
    finally:
        gc.enable()


def test_a_thread_does_not_inherit_the_label_of_a_dead_one_with_its_number() -> None:
    seen: list[str | None] = []
    numbers = [_from_a_thread(lambda: set_label("GET /"))]
    for _ in range(50):  # numbers are used again at once, mostly
        numbers.append(_from_a_thread(lambda: seen.append(label_of(threading.get_ident()))))
    assert len(set(numbers)) < len(numbers), "no number was used again"
    assert set(seen) == {None}


def test_greenlets_have_labels_of_their_own_which_go_with_them() -> None:
    require(importlib.util.find_spec("gevent"), "needs gevent: make .venv/.ready-bench")
    code = """
from gevent import monkey; monkey.patch_all()
import gevent, threading
from django_psycopg_pooled.tracking import labels
seen = []
def request(number):
    labels.set_label(f"GET /{number}")
    gevent.sleep(0.01)
    seen.append(labels.label_of(threading.get_ident()) == f"GET /{number}")
gevent.joinall([gevent.spawn(request, n) for n in range(500)])
assert seen == [True] * 500, seen
gevent.sleep(0)
import gc; gc.collect()
assert len(labels._by_thread) <= 1, len(labels._by_thread)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# ---- blocks: with statements and decorated functions


def _block_class() -> Any:
    """A context manager of a library, as transaction.atomic is; keeps where it was entered."""
    names: dict[str, Any] = {"capture_block": stacks.capture_block, "seen": []}
    source = (
        "from contextlib import ContextDecorator\n"
        "class Block(ContextDecorator):\n"
        "    def __enter__(self): seen.append(capture_block())\n"
        "    def __exit__(self, *error): pass\n"
    )
    exec(compile(source, LIBRARY, "exec"), names)
    names["Block"].seen = names["seen"]
    return names["Block"]


def _line_of(function: Any) -> str:
    return f"{HERE}:{function.__code__.co_firstlineno} in {function.__qualname__}"


def test_a_with_block_is_where_it_begins() -> None:
    block = _block_class()
    with block():
        line = sys._getframe().f_lineno - 1
    assert place(block.seen[0]) == f"{HERE}:{line} in test_a_with_block_is_where_it_begins"


def test_a_decorated_function_is_where_it_is_defined_and_its_caller_comes_next() -> None:
    block = _block_class()

    def pay() -> None:
        pass

    block()(pay)()  # as @block() above it
    assert lines(block.seen[0])[0] == _line_of(pay)
    assert lines(block.seen[0])[1].endswith("its_caller_comes_next")


def test_a_function_below_other_decorators_is_found() -> None:
    block = _block_class()

    def pay(self: Any, amount: int) -> int:
        return amount

    login_required = _code(LIBRARY, lambda: None, name="wrapper")
    functools.update_wrapper(login_required, pay)
    block()(login_required)()
    block()(functools.partial(functools.partial(pay, None), 5))()
    assert [lines(stack)[0] for stack in block.seen] == [_line_of(pay)] * 2


def test_a_librarys_function_that_leads_nowhere_is_told_by_its_caller() -> None:
    block = _block_class()
    block()(_code(LIBRARY, lambda: None))()
    block()(functools.partial(print, end=""))()
    endless: Any = _code(LIBRARY, lambda: None)
    endless.__wrapped__ = endless
    block()(endless)()
    for stack in block.seen:
        assert lines(stack)[0].endswith("told_by_its_caller")


class _Request:
    method = "POST"


def _call_as_view(block: Any, view: type) -> None:
    """What Django's as_view() makes, decorated as by ATOMIC_REQUESTS, answers a request."""
    names: dict[str, Any] = {}
    exec(compile("def view(request): pass", LIBRARY, "exec"), names)
    names["view"].view_class = view
    block()(names["view"])(_Request())


def test_a_class_based_view_is_told_by_the_method_that_answers() -> None:
    block = _block_class()

    class Base:
        def post(self) -> None: ...

    class Checkout(Base):
        def get(self) -> None: ...

    _call_as_view(block, Checkout)
    assert lines(block.seen[0])[0] == _line_of(Base.post)


def test_a_view_set_is_told_by_the_method_of_its_action() -> None:
    """As Django's REST framework marks what its as_view() makes."""
    block = _block_class()

    class Orders:
        def list(self) -> None: ...
        def create(self) -> None: ...

    names: dict[str, Any] = {}
    exec(compile("def view(request): pass", LIBRARY, "exec"), names)
    names["view"].cls, names["view"].actions = Orders, {"get": "list", "post": "create"}
    block()(names["view"])(_Request())
    assert lines(block.seen[0])[0] == _line_of(Orders.create)


def test_a_class_based_view_without_that_method_is_told_by_its_first_own_one() -> None:
    block = _block_class()
    library: dict[str, Any] = {}
    exec(compile("class Generic:\n    def post(self): pass", LIBRARY, "exec"), library)

    generic: Any = library["Generic"]

    class Checkout(generic):  # type: ignore[misc]
        name = "checkout"

        def get_queryset(self) -> None: ...

    _call_as_view(block, Checkout)
    _call_as_view(block, generic)
    assert lines(block.seen[0])[0] == _line_of(Checkout.get_queryset)
    assert lines(block.seen[1])[0].endswith("in _call_as_view")
