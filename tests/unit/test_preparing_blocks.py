"""`prepare()` around a block of code, in threads and in async code."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from django_psycopg_pooled.preparing import blocks
from django_psycopg_pooled.preparing.blocks import inside, prepare
from tests.unit.scripted_binding import Scene
from tests.unit.test_preparing_policy import SQL


@pytest.fixture(autouse=True)
def unused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has not entered a block yet."""
    monkeypatch.setattr(blocks._use, "seen", False)
    yield
    assert not inside()


@pytest.mark.parametrize("mode", ["auto", "registered"])
def test_what_runs_in_a_block_is_prepared_at_once(mode: str) -> None:
    scene = Scene(mode=mode, threshold=5)
    assert scene.execute(SQL, 1) == "plain"
    with prepare():
        assert scene.execute(SQL, 1) == "prepared"
    assert scene.execute(SQL, 1) == "prepared", "it was prepared and stays so"


def test_beside_a_block_registered_means_registered() -> None:
    scene = Scene(mode="registered")
    with prepare():
        scene.execute(SQL, 1)
    for _ in range(10):
        assert scene.execute(SQL + " AND a = 1", 1) == "plain"


def test_what_a_block_has_prepared_is_demoted_like_anything_else() -> None:
    scene = Scene(mode="registered")
    scene.binding.plain_s, scene.binding.prepared_s = 0.0001, 0.033
    with prepare():
        scene.execute(SQL, 1)
    for _ in range(50):
        scene.execute(SQL, 1)
    assert scene.preparer.report()[0].state == "demoted"


def test_a_block_does_nothing_when_preparing_is_off() -> None:
    scene = Scene(mode=False)
    with prepare():
        assert scene.execute(SQL, 1) == "plain"


def test_before_the_first_block_no_text_has_a_plan_for_it() -> None:
    scene = Scene(mode="registered")
    assert scene.record(SQL).plan is None
    with prepare():
        assert scene.record(SQL).plan is not None


def test_blocks_nest_and_end_with_an_error() -> None:
    with prepare():
        with pytest.raises(KeyError), prepare():
            raise KeyError
        assert inside()
    assert not inside()


def test_a_decorated_function_is_a_block() -> None:
    @prepare
    def bare() -> bool:
        """Its words."""
        return inside()

    @prepare()
    def called() -> bool:
        return inside()

    assert [bare(), called(), inside()] == [True, True, False]
    assert bare.__doc__ == "Its words."


def test_a_decorated_coroutine_is_a_block_while_it_runs_and_its_neighbours_are_not() -> None:
    seen: list[tuple[str, bool]] = []

    @prepare
    async def prepared() -> None:
        for _ in range(3):
            seen.append(("prepared", inside()))
            await asyncio.sleep(0)

    async def other() -> None:
        for _ in range(3):
            seen.append(("other", inside()))
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(prepared(), other())

    asyncio.run(both())
    assert sorted(set(seen)) == [("other", False), ("prepared", True)]
    assert len(seen) == 6


def test_another_thread_is_not_in_the_block() -> None:
    seen: list[bool] = []
    with prepare():
        thread = threading.Thread(target=lambda: seen.append(inside()))
        thread.start()
        thread.join()
        assert inside()
    assert seen == [False]
