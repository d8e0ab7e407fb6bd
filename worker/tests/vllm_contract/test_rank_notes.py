"""What bench/gpu/rank_checks.py notes of steps, on vLLM's own classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM isn't installed here: its own classes are the test bed")
pytestmark = [pytest.mark.vllm_contract, pytest.mark.usefixtures("pristine", "gpu")]
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench" / "gpu"))

import rank_checks  # noqa: E402

from builders import start, step  # noqa: E402
from lazygraph_vllm.rank import calls as rank  # noqa: E402


def test_each_step_is_noted_with_its_graph_and_what_the_rank_held(gpu: Any) -> None:
    wrapper, _ = start()
    worker = wrapper.worker
    worker.rank = 1
    rank_checks.watch_steps(worker)
    wrapper.execute_model(step(*[1] * 4))
    rank.capture(wrapper, "FULL:4")
    wrapper.execute_model(step(*[1] * 4))
    rank_checks.forget_on(worker, 0, "FULL:4")
    wrapper.execute_model(step(*[1] * 4))
    rank_checks.forget_on(worker, 1, "FULL:4")
    wrapper.execute_model(step(*[1] * 4))
    noted = rank_checks.noted_steps(worker)
    assert [tokens for tokens, *_ in noted] == [4] * 4
    assert [graph for _, graph, _ in noted] == ["FULL:8", "FULL:4", "FULL:4", "FULL:8"]
    before, after, other_rank, forgotten = [held for *_, held in noted]
    assert before != after == other_rank != forgotten
    assert rank_checks.compare([noted, noted])["held"] == 3
