"""What goes over the control socket, who is trusted with it, and what its setting may be."""

import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_psycopg_pooled.control import places
from django_psycopg_pooled.control.answers import Answers
from django_psycopg_pooled.control.asks import PoolAsks
from django_psycopg_pooled.control.protocol import (
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    Refused,
    Request,
    read_answer,
    write_answer,
    write_request,
)
from django_psycopg_pooled.control.setting import (
    LONGEST_NAME,
    LONGEST_PATH,
    directories,
    problems,
)
from django_psycopg_pooled.pool.pool import Pool
from django_psycopg_pooled.testing import ScriptedDriver
from tests.unit.scripted_pool import ScriptedPool


def asked(asks: dict[str, Any], line: bytes) -> Any:
    """What a process with these *asks* answers, read as a client does."""
    answer = Answers("shop", asks).answer(line)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    return read_answer(answer)


def line(ask: str = "status", project: str = "shop", **args: Any) -> bytes:
    return write_request(Request(ask, args, project))


def test_a_request_is_answered_with_what_its_ask_returns() -> None:
    assert asked({"status": lambda args: dict(args)}, line(pool="a\u2028b")) == {"pool": "a\u2028b"}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "request"),
        (b"GET / HTTP/1.1\r", "request"),
        (b"\xff\xfe", "request"),
        (b"[1]", "request"),
        (b"[" * 60_000, "request"),
        (b"9" * 60_000, "request"),
        (b'{"v": 1}', "request"),
        (b'{"v": 1, "ask": "status", "project": "shop", "args": []}', "request"),
        (b'{"v": 2, "ask": "status", "project": "shop", "args": {}}', "version"),
        (b" " * (LONGEST_REQUEST + 1), "request"),
        (line("statas"), "unknown"),
        (line(project="blog"), "project"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_no_request_of_this_project_is_refused_with_a_code(sent: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        asked({"status": lambda args: "done"}, sent)
    assert caught.value.code == code


def test_an_unknown_ask_is_told_what_there_is() -> None:
    with pytest.raises(Refused, match="there is no 'statas'; there is drain, status"):
        asked(dict.fromkeys(("status", "drain"), lambda args: None), line("statas"))


def test_an_ask_that_fails_is_an_answer_too_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(args: Any) -> None:
        raise ZeroDivisionError("no luck")

    answers = Answers("shop", {"status": fail})
    for _ in range(3):
        with pytest.raises(Refused, match="ZeroDivisionError: no luck") as caught:
            read_answer(answers.answer(line()))
        assert caught.value.code == "failed"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_answer_that_is_too_long_is_refused_in_a_short_one() -> None:
    with pytest.raises(Refused) as caught:
        asked({"status": lambda args: "x" * LONGEST_ANSWER}, line())
    assert caught.value.code == "too long"


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[]\n", b'{"v": 9, "ok": true}\n'])
def test_what_is_no_answer_is_told_so(answer: bytes) -> None:
    with pytest.raises(Refused):
        read_answer(answer)


def test_a_fact_that_json_does_not_know_is_sent_as_text() -> None:
    assert read_answer(write_answer({"a": Path("/x"), "b": (1, 2)})) == {"a": "/x", "b": [1, 2]}


# ---- pools


@pytest.fixture
def pool() -> Pool:
    return ScriptedPool(ScriptedDriver()).pool


def do(pool: Pool, ask: str, /, **args: Any) -> Any:
    return asked(PoolAsks(lambda: [pool], lambda: {"pid": 1}).table(), line(ask, **args))


def test_status_is_the_pools_snapshot_and_statistics(pool: Pool) -> None:
    with pool.connection():
        answer = do(pool, "status")
    [facts] = answer["pools"]
    assert answer["process"] == {"pid": 1}
    assert facts["name"] == pool.snapshot().name
    assert [c["state"] for c in facts["connections"]].count("lent") == 1
    assert facts["stats"].keys() == pool.get_stats().keys()


def test_only_the_pools_of_the_name_that_was_asked_for_are_touched(pool: Pool) -> None:
    name = pool.snapshot().name
    assert do(pool, "pause", pool="another")["pools"] == []
    assert not pool.snapshot().paused
    assert do(pool, "pause", pool=name)["pools"][0]["paused"]
    assert not do(pool, "resume", pool=None)["pools"][0]["paused"]


def test_sizes_can_be_changed_and_wrong_ones_are_refused_with_the_reason(pool: Pool) -> None:
    [facts] = do(pool, "configure", options={"max_size": 7, "min_size": 2})["pools"]
    assert (facts["min_size"], facts["max_size"]) == (2, 7)
    with pytest.raises(Refused, match="max_size"):
        do(pool, "configure", options={"max_size": 0})
    with pytest.raises(Refused, match=r"10000\. max_size is -2; .* to 10000\.$"):
        do(pool, "configure", options={"min_size": -1, "max_size": -2})
    assert pool.snapshot().max_size == 7


@pytest.mark.parametrize(
    "options", [None, {}, [], {"configure": "os.getcwd"}, {"max_size": True}, {"max_size": "7"}]
)
def test_nothing_but_numbers_can_be_changed_from_outside(pool: Pool, options: Any) -> None:
    """A dotted path would be code that somebody else chose."""
    with pytest.raises(Refused) as caught:
        do(pool, "configure", options=options)
    assert caught.value.code == "args"


# ---- places


def test_a_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    made = places.prepare((tmp_path / "a",))
    assert made.stat().st_mode & 0o777 == 0o700
    assert places.prepare((made,)) == made


def test_a_directory_that_others_can_write_is_passed_over_for_the_next(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert places.prepare((open_to_all, tmp_path / "own")) == tmp_path / "own"
    with pytest.raises(places.Unusable, match=r"can be written by others \(mode 777"):
        places.prepare((open_to_all,))


def test_a_link_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(places.Unusable, match=r"link is not a directory; .*file is not a"):
        places.prepare((tmp_path / "link", tmp_path / "file"))


def test_another_users_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(places.Unusable, match="belongs to user"):
        places.prepare((tmp_path,))


def test_all_reasons_are_told_when_no_directory_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(places.Unusable, match=r"file is not a directory; .*No such file"):
        places.prepare((tmp_path / "file", tmp_path / "a" / "b"))


def test_the_usual_places_are_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 7)
    name = "django-psycopg-pooled-7"
    assert places.usual_directories({}, "/var/tmp") == (Path("/var/tmp", name), Path("/tmp", name))
    assert places.usual_directories({"XDG_RUNTIME_DIR": "/run/7"}, "/tmp") == (
        Path("/run/7", name),
        Path("/tmp", name),
    )
    assert places.usual_directories({"XDG_RUNTIME_DIR": "relative"}, "/tmp") == (
        Path("/tmp", name),
    )


@pytest.fixture
def ended_pid() -> int:
    """A process id that nobody has."""
    return next(pid for pid in range(2**22, 2, -1) if not places.lives(pid))


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket in tmp_path on which somebody listens, under the name of a process that is gone."""
    with socket.socket(socket.AF_UNIX) as listener:
        yield listener


def left_behind(path: Path) -> Path:
    """A socket whose process is gone."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    return path


def test_sweeping_removes_what_killed_processes_left_and_nothing_else(
    tmp_path: Path, ended_pid: int, listening: socket.socket
) -> None:
    stale = left_behind(tmp_path / f"{ended_pid}-a.sock")
    unheard = left_behind(tmp_path / f"{ended_pid}-a.temp")
    former_self = left_behind(tmp_path / f"{os.getpid()}-b.sock")
    starting = left_behind(tmp_path / f"{os.getppid()}-c.temp")  # bound, about to listen
    container = tmp_path / f"{ended_pid}-d.sock"  # lives, though not in sight
    listening.bind(str(container))
    listening.listen()
    other = tmp_path / "notes.txt"
    other.touch()
    places.sweep(tmp_path)
    assert not stale.exists()
    assert not unheard.exists()
    assert not former_self.exists()
    assert set(tmp_path.iterdir()) == {starting, container, other}


# ---- the setting


@pytest.mark.parametrize("value", [{}, {"CONTROL_DIR": None}, {"CONTROL_DIR": "/run/shop"}])
def test_right_settings_have_no_problems(value: object) -> None:
    assert problems(value) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/run/shop", "it must be a dict"),
        ({"CONTROL_DIRECTORY": "/x"}, "did you mean 'CONTROL_DIR'"),
        ({"zzz": 1}, "there is 'CONTROL_DIR'"),
        ({"CONTROL_DIR": "run/shop"}, "absolute path"),
        ({"CONTROL_DIR": ""}, "absolute path"),
        ({"CONTROL_DIR": False}, "absolute path"),
    ],
    ids=str,
)
def test_wrong_settings_are_told(value: object, words: str) -> None:
    [problem] = problems(value)
    assert words in problem


ROOM = LONGEST_PATH - len("/" + LONGEST_NAME)  # for the path of a directory


@pytest.mark.parametrize(
    ("directory", "by"),
    [
        ("/" + "x" * ROOM, "1 byte"),
        ("/" + "x" * (ROOM + 29), "30 bytes"),
        (Path("/" + "é" * ROOM), f"{ROOM + 1} bytes"),
    ],
)
def test_a_directory_with_no_room_for_a_sockets_path_must_be_shorter(
    directory: object, by: str
) -> None:
    [problem] = problems({"CONTROL_DIR": directory})
    assert "too long for the path of a Unix socket" in problem
    assert problem.endswith(f"it must be shorter by {by}.")


def test_the_longest_path_that_has_no_problem_can_be_bound() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        directory = Path(short, "x" * (ROOM - len(f"{short}/")))
        directory.mkdir()
        assert problems({"CONTROL_DIR": directory}) == []
        path = str(directory / LONGEST_NAME)
        assert len(str(places.new_path(directory))) <= len(path)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
        with (
            socket.socket(socket.AF_UNIX) as listening,
            pytest.raises(OSError, match="AF_UNIX path too long"),
        ):
            listening.bind(path + "x")


def test_sockets_are_on_unless_they_are_turned_off_or_wrongly_set() -> None:
    assert directories({})
    assert directories({"CONTROL_DIR": "/run/shop"}) == (Path("/run/shop"),)
    for off in ({"CONTROL_DIR": None}, {"CONTROL_DIR": "x"}, "wrong"):
        assert directories(off) == ()


def test_requests_are_json_that_other_programs_can_write() -> None:
    assert json.loads(line()) == {"v": 1, "ask": "status", "project": "shop", "args": {}}
