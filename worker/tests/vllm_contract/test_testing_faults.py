"""The test plugin's faults that strike one rank in the middle of a capture, through vLLM's own."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from builders import start
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.rank.capture import Capturer
from lazygraph_vllm_testing.faults import inject

pytestmark = pytest.mark.usefixtures("pristine", "gpu")


@pytest.fixture(autouse=True)
def patched(pristine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Begun after `pristine`, so that it ends before: that one gives vLLM's modules back.
    # Set to what it is, so that what inject puts there is taken back.
    monkeypatch.setattr(Capturer, "run", Capturer.run)


def test_one_graph_of_one_rank_runs_out_of_memory() -> None:
    graph = "FULL:4"
    inject(f"no-memory:{graph}@0", rank=0)
    inject("no-memory:FULL:2@1", rank=0)
    wrapper, _ = start()
    answer = rank.capture(wrapper, graph)
    assert answer["short"] and "A test has said so" in answer["error"]
    assert graph not in wrapper.worker.model_runner.lazygraph.state.captured
    # Positive control: another graph, and a fault of another rank.
    assert "error" not in rank.capture(wrapper, "FULL:2")


def test_a_rank_is_killed_while_it_captures_and_no_sooner(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int, bool]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number, gpu.capturing is not None))

    monkeypatch.setattr(os, "kill", kill)
    inject("killed:FULL:4", rank=0)
    wrapper, _ = start()
    assert killed == []
    rank.capture(wrapper, "FULL:2")
    assert killed == []
    rank.capture(wrapper, "FULL:4")
    assert killed == [(os.getpid(), signal.SIGKILL, True)]


def test_an_unknown_fault_is_told() -> None:
    with pytest.raises(ValueError, match="no-memory or killed and a graph, got 'gone:FULL:4'"):
        inject("gone:FULL:4", rank=0)
