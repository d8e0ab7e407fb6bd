"""What a launcher tries in a child before it does it itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from lazygraph_vllm.launcher.trial import harmless

done: list[str] = []


def does(name: str) -> Callable[[], None]:
    return lambda: done.append(name)


def forkable() -> None:
    if "harm" in done:
        raise RuntimeError("no longer")


def fails() -> None:
    raise ImportError("not in this version")


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def starts_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def hangs() -> None:
    time.sleep(60)


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def test_everything_in_order_and_nothing_of_it_here() -> None:
    steps = {name: does(name) for name in ("b", "a", "c")}
    assert harmless(steps, forkable) == ["b", "a", "c"]
    assert done == []
    assert harmless({}, forkable) == []


@pytest.mark.parametrize("bad", [fails, does("harm"), dies, starts_a_thread])
def test_one_that_harms_costs_itself_alone(bad: Callable[[], None]) -> None:
    steps = {"a": does("a"), "b": does("b"), "bad": bad, "c": does("c")}
    assert harmless(steps, forkable) == ["a", "b", "c"]


def test_one_that_hangs_is_ended() -> None:
    steps = {"a": does("a"), "bad": hangs}
    before = _children()
    assert harmless(steps, forkable, seconds=8) == ["a"]
    assert _children() == before


def test_what_there_is_no_time_for_is_left_out() -> None:
    assert harmless({"a": does("a")}, forkable, seconds=0) == []


def test_a_later_one_is_tried_with_the_earlier_ones_done() -> None:
    def needs_a() -> None:
        if "a" not in done:
            raise LookupError("a first")

    assert harmless({"a": does("a"), "b": needs_a}, forkable) == ["a", "b"]
    assert harmless({"b": needs_a, "a": does("a")}, forkable) == ["a"]


def _children() -> str:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read()
