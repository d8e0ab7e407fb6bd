"""What bench/gpu/rank_checks.py notes of steps, on vLLM's own classes."""

from __future__ import annotations

from typing import Any

import pytest
import rank_checks

from builders import start, step
from lazygraph_vllm.rank import calls as rank

pytestmark = pytest.mark.usefixtures("pristine", "gpu")


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
