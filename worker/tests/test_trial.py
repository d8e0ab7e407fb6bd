"""What a launcher tries in a child before it does it itself."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from lazygraph_vllm.launcher.preload import preload
from lazygraph_vllm.launcher.trial import Step, harmful

done: list[str] = []


def harmless(
    steps: dict[str, Step], forkable: Callable[[], None], seconds: float = 120
) -> list[str]:
    """The others, in order."""
    found = harmful(steps, forkable, seconds)
    assert all(name in steps and why for name, why in found.items())
    return [name for name in steps if name not in found]


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


def starts_a_thread_with_a_name() -> None:
    def named() -> None:
        ctypes.CDLL(None).prctl(15, b"pt_autograd_0")  # PR_SET_NAME
        ready.set()
        time.sleep(60)

    ready = threading.Event()
    threading.Thread(target=named, daemon=True).start()
    ready.wait()


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


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (fails, "ImportError: not in this version"),
        (does("harm"), "RuntimeError: no longer"),
        (starts_a_thread, "it leaves 1 thread, "),
        (starts_a_thread_with_a_name, "it leaves 1 thread, pt_autograd_0"),
        (dies, "a child that did it ended, or gave no answer for"),
    ],
)
def test_what_is_left_out_says_why(bad: Callable[[], None], why: str) -> None:
    found = harmful({"a": does("a"), "bad": bad, "c": does("c")}, forkable)
    assert list(found) == ["bad"] and found["bad"].startswith(why)


def test_reasons_are_one_short_line_each_however_many() -> None:
    def wordy() -> None:
        raise ValueError("x\n" * 10_000)

    found = harmful({f"step {number}": wordy for number in range(1100)}, forkable)
    assert len(found) == 1100 and max(map(len, found.values())) <= 200
    assert not any("\n" in why for why in found.values())
    assert found["step 1099"] == "more than 1024 steps"


def test_one_that_hangs_is_ended() -> None:
    steps = {"a": does("a"), "bad": hangs}
    before = _children()
    assert harmless(steps, forkable, seconds=8) == ["a"]
    assert _children() == before


def test_children_of_one_that_hangs_end_with_it() -> None:
    alive, held = os.pipe()

    def leaves_a_child() -> None:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(60)

    try:
        assert harmless({"bad": leaves_a_child}, forkable, seconds=2) == []
    finally:
        os.close(held)
    assert _ended(alive)


def test_a_child_does_not_outlive_its_time_where_its_launcher_is_gone() -> None:
    alive, held = os.pipe()
    script = f"""
import os, time
from lazygraph_vllm.launcher.preload import preload
from lazygraph_vllm.launcher.trial import harmful
harmful({{"bad": lambda: (os.write({held}, b"b"), time.sleep(60))}}, print, seconds=4)"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = subprocess.Popen([sys.executable, "-c", script], env=env, pass_fds=[held])
    os.close(held)
    assert os.read(alive, 1) == b"b", "it is in the child"
    launcher.kill()
    launcher.wait()
    assert _ended(alive)


def test_what_there_is_no_time_for_is_left_out() -> None:
    assert harmless({"a": does("a")}, forkable, seconds=0) == []


def test_a_later_one_is_tried_with_the_earlier_ones_done() -> None:
    def needs_a() -> None:
        if "a" not in done:
            raise LookupError("a first")

    assert harmless({"a": does("a"), "b": needs_a}, forkable) == ["a", "b"]
    assert harmless({"b": needs_a, "a": does("a")}, forkable) == ["a"]


def test_what_harms_only_together_costs_the_later_one() -> None:
    def harms_after_a() -> None:
        if "a" in done:
            done.append("harm")

    steps = {"a": does("a"), "b": does("b"), "bad": harms_after_a, "c": does("c")}
    assert harmless(steps, forkable) == ["a", "b", "c"]
    steps = {"a": does("a"), "fatal": dies, "bad": harms_after_a, "c": does("c")}
    assert harmless(steps, forkable) == ["a", "c"]


def test_one_that_needs_another_is_tried_with_it_beside_one_that_harms() -> None:
    def needs_a() -> None:
        if "a" not in done:
            raise LookupError("a first")

    steps = {"a": does("a"), "b": does("b"), "bad": dies, "c": needs_a}
    assert harmless(steps, forkable) == ["a", "b", "c"]


def test_what_fails_here_after_all_is_named_as_left_out() -> None:
    here = os.getpid()

    def fails_here() -> None:
        if os.getpid() == here:
            fails()

    steps = {"a": does("a"), "bad": fails_here, "harm": dies}
    left_out = preload((), steps=steps).left_out
    assert list(left_out) == ["harm", "bad"]
    assert left_out["bad"] == "ImportError: not in this version"
    assert done == ["a"]


def _ended(alive: int) -> bool:
    """Whether all who held the other end of this pipe end, long before they would by themselves."""
    try:
        return bool(select.select([alive], [], [], 30)[0]) and os.read(alive, 1) == b""
    finally:
        os.close(alive)


def _children() -> str:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read()
