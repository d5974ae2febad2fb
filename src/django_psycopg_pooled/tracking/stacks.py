"""Which line of the user's code is it? Stacks as raw pairs, which become text when somebody looks.

Code is told by its file: a library's lies in the standard library, in a site-packages or
dist-packages folder, or is ours; all other code is the user's, also what has no file.
"""

import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from functools import lru_cache
from sys import _getframe
from types import CodeType, FrameType
from typing import Any, TypeAlias

# Innermost first, never empty: the code, and where in it (frame.f_lasti). Never a frame, whose
# locals would then live as long as the stack.
RawStack: TypeAlias = Sequence[tuple[CodeType, int]]

_DEPTH = range(60)  # frames to look at; a range that is made once costs nothing to go through
_RECORDED = 9  # the user's own line, and eight that led there
_FALLBACK = 4  # frames that are kept if none of them is the user's
_LIVE_DEPTH = range(1000)
_LIVE_RECORDED = 10
_FILES_KNOWN = 4096  # generated code may have a new file name each time


def capture(skip: int = 0) -> RawStack:
    """The user's innermost line in this thread, and the user's lines that led there.

    skip   frames to leave out, the caller of capture() being the first

    Ends at the second library frame in a row beyond the user's line: one is a decorator, such as
    atomic's, two are the framework. Does not block. Worst case: 60 frames to the user's line and 18
    beyond, 0.1 us each, and twice that between queries.
    Source: psycopg's pool spike; pairs of (code, f_lasti) cost 4.1 us for 20 frames of any kind,
    against 55 us for traceback.extract_stack().
    """
    frame = _users_frame(_getframe(skip + 1))
    if frame is None:
        return _innermost(_getframe(skip + 1))
    raw = [(frame.f_code, frame.f_lasti)]
    users = _users_files
    stranger = False
    while (frame := frame.f_back) is not None:
        code = frame.f_code
        if code.co_filename in users or _is_users(code.co_filename):
            raw.append((code, frame.f_lasti))
            if len(raw) == _RECORDED:
                break
            stranger = False
        elif stranger:
            break
        else:
            stranger = True
    return raw


def capture_by_module(skip: int = 0) -> RawStack:
    """capture(), from Python 3.12 on: less dear, as library frames stay unmade.

    To look at a frame is to make an object of it, which its function has to dispose of when it
    returns; the name of its module can be had without. Whose module that is, is known after the
    first time. A function of the user's that takes a library's name by functools.wraps() is passed
    over.
    """
    library = _library_modules
    raw: list[tuple[CodeType, int]] = []
    stranger = False
    for depth in range(skip + 1, skip + 1 + _DEPTH.stop):
        name = _module_at(depth)
        if name in library:
            frame = None
        else:
            try:
                frame = _getframe(depth)
            except ValueError:  # there are no more
                break
            filename = frame.f_code.co_filename
            if not _is_users(filename):
                # Else it is generated code, or a function with another's name by functools.wraps().
                if getattr(sys.modules.get(name), "__file__", None) == filename:
                    library.add(name)
                frame = None
        if frame is not None:
            raw.append((frame.f_code, frame.f_lasti))
            if len(raw) == _RECORDED:
                break
            stranger = False
        elif stranger and raw:
            break
        else:
            stranger = True
    return raw or _innermost(_getframe(skip + 1))


_module_at: Any = getattr(sys, "_getframemodulename", None)
_library_modules: set[str | None] = set()
if _module_at is not None:
    capture = capture_by_module


def capture_block(skip: int = 0) -> RawStack:
    """capture(), where a with block begins; around a decorated function, that function's line.

    For blocks such as atomic(), whose own frames lie between. Worst case: capture()'s and 8 frames.
    """
    stack = capture(skip + 1)
    frame: FrameType | None = _getframe(skip + 1)
    for _ in range(8):
        if frame is None:
            break
        if frame.f_code is _DECORATION:
            code = _decorated(frame.f_locals)
            return [(code, -1), *stack] if code is not None else stack
        frame = frame.f_back
    return stack


def _decorated(names: Mapping[str, Any]) -> CodeType | None:
    """The user's function that a context manager decorates, below other decorators.

    names   the locals of _DECORATION. For ATOMIC_REQUESTS the function is the one that as_view()
            made, Django's or the REST framework's: then it is the view's method for this request.
    """
    function = names.get("func")
    for _ in range(20):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType) and _is_users(code.co_filename):
            return code
        view = getattr(function, "view_class", None) or getattr(function, "cls", None)
        if isinstance(view, type):
            return _method(view, getattr(function, "actions", None), names.get("args", ()))
        # functools.wraps() leaves the first, functools.partial() the second.
        function = getattr(function, "__wrapped__", None) or getattr(function, "func", None)
        if function is None:
            break
    return None


def _method(view: type, actions: Any, args: Sequence[Any]) -> CodeType | None:
    """Of the class's own methods the one that answers this request; else its first.

    actions   the REST framework's for a ViewSet: the names of methods by those of HTTP's
    """
    method = str(getattr(args[0], "method", "")).lower() if args else ""
    if isinstance(actions, Mapping):
        method = actions.get(method, method)
    own = [vars(c) for c in view.__mro__]
    for name in (method, "dispatch"):
        code = getattr(next((c[name] for c in own if name in c), None), "__code__", None)
        if isinstance(code, CodeType) and _is_users(code.co_filename):
            return code
    codes = (getattr(value, "__code__", None) for c in own for value in c.values())
    return next((c for c in codes if isinstance(c, CodeType) and _is_users(c.co_filename)), None)


def _decoration() -> CodeType | None:
    """The code that runs in the place of a function that a context manager decorates."""
    return getattr(ContextDecorator()(_decoration), "__code__", None)


_DECORATION = _decoration()


def live(thread_id: int, suspended: FrameType | None = None) -> RawStack | None:
    """Where that thread is just now: its innermost frames, the user's among them if there is one.

    suspended   where a greenlet is that does not run at this moment, and so is in no thread

    None if the thread is gone. Does not block; stops no thread, so what it returns may be a moment
    old. Worst case: 1000 frames, 0.1 us each.
    """
    raw: list[tuple[CodeType, int]] = []
    found = False
    frame = suspended or sys._current_frames().get(thread_id)
    for _ in _LIVE_DEPTH:
        # Not a frame, once seen on Python 3.11: the thread ran on while its frames were looked at.
        if not isinstance(frame, FrameType) or (found and len(raw) == _LIVE_RECORDED):
            break
        here, users = (frame.f_code, frame.f_lasti), _is_users(frame.f_code.co_filename)
        if len(raw) < _LIVE_RECORDED:
            raw.append(here)
        elif users:
            raw[-1] = here
        found = found or users
        frame = frame.f_back
    return raw or None


def place(raw: RawStack) -> str:
    """The user's innermost line: "shop/views.py:88 in checkout"; the innermost, if none is."""
    return _text(*_own(raw))


def lines(raw: RawStack) -> list[str]:
    """All lines of *raw*, innermost first, each as place() words it."""
    return [_text(code, lasti) for code, lasti in raw]


def key(raw: RawStack) -> tuple[str, str, int]:
    """Equal for equal places, as long as the process lives: to report once for each."""
    code, lasti = _own(raw)
    # Not the code's id: another code may have it when this one is gone.
    return code.co_filename, code.co_qualname, _line(code, lasti)


def _users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's, *frame* or one of those that led there."""
    library = _library_files
    for _ in _DEPTH:
        if frame is None:
            return None
        # By the name of its file: a string keeps its hash, a code object has none to keep.
        filename = frame.f_code.co_filename
        if filename not in library and _is_users(filename):
            return frame
        frame = frame.f_back
    return None


def _innermost(frame: FrameType | None) -> RawStack:
    raw: list[tuple[CodeType, int]] = []
    while frame is not None and len(raw) < _FALLBACK:
        raw.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return raw


def _own(raw: RawStack) -> tuple[CodeType, int]:
    return next((pair for pair in raw if _is_users(pair[0].co_filename)), raw[0])


def _text(code: CodeType, lasti: int) -> str:
    return f"{_short(code.co_filename)}:{_line(code, lasti)} in {code.co_qualname}"


def _line(code: CodeType, lasti: int) -> int:
    """As frame.f_lineno is, while there is a frame."""
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno  # a generator that has not begun


def _short(filename: str) -> str:
    """The user's files as seen from the working directory; others from where they are imported."""
    folders = tuple(f for f in sys.path if isinstance(f, str) and f)
    return _shortened(filename, _working_directory(), folders)


@lru_cache(1000)
def _shortened(filename: str, here: str, folders: tuple[str, ...]) -> str:
    if here and filename.startswith(here) and _is_users(filename):
        return filename.removeprefix(here)
    starts = [folder.rstrip(os.sep) + os.sep for folder in folders]
    return min((filename.removeprefix(start) for start in starts), key=len, default=filename)


def _working_directory() -> str:
    try:
        return os.getcwd().rstrip(os.sep) + os.sep
    except FileNotFoundError:  # it was removed under us
        return ""


# ---- whose code is it?

# Every request asks, so the answers are kept. Sets are changed by operations that one bytecode
# does, and an answer that is lost is found again.
_library_files: set[str] = set()
_users_files: set[str] = set()


def _is_users(filename: str) -> bool:
    """Whether code of that file is the user's."""
    if filename in _users_files:
        return True
    if filename in _library_files:
        return False
    users = not _is_library(filename)
    files = _users_files if users else _library_files
    if len(files) >= _FILES_KNOWN:
        files.clear()
    files.add(filename)
    return users


def _is_library(filename: str) -> bool:
    return filename.startswith(_LIBRARY_STARTS) or any(part in filename for part in _LIBRARY_PARTS)


def _library_starts() -> tuple[str, ...]:
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    folders += [os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__))]
    folders += [os.path.realpath(folder) for folder in folders]
    return ("<frozen ", *(folder + os.sep for folder in folders))


_LIBRARY_STARTS = _library_starts()
_LIBRARY_PARTS = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
