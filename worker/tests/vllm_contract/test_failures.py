"""A capture that fails leaves nothing behind, and nothing serves from it."""

from __future__ import annotations

from typing import Any

import pytest

from builders import start, step, wrong_dispatches
from lazygraph_vllm.rank import calls as rank

pytestmark = pytest.mark.usefixtures("pristine", "gpu")


def left_behind(runner: Any, graph: str) -> list[Any]:
    kind, tokens = graph.split(":")
    if kind == "FULL":
        return [d for d in runner.cudagraph_manager.graphs if d.num_tokens == int(tokens)]
    return [
        key
        for piece in runner.model.pieces
        for key in piece.concrete_cudagraph_entries
        if key.num_tokens == int(tokens)
    ]


@pytest.mark.parametrize("graph", ["PIECEWISE:8", "FULL:4"])
@pytest.mark.parametrize("where", ["in the model", "in CUDA"])
def test_nothing_is_left_and_the_rest_serves(gpu: Any, graph: str, where: str) -> None:
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    if where == "in the model":
        runner.model.fail_in_piece = len(runner.model.pieces) - 1
    else:
        gpu.fail_at_begin = len(runner.model.pieces) - 1 if graph.startswith("PIECE") else 0
        gpu.fail_with = "CUDA error: invalid argument failed"
    before = rank.preflight(wrapper, "FULL:1", 1)["hash"]
    answer = rank.capture(wrapper, graph)
    assert "failed" in answer["error"] and not answer["short"]
    assert (answer["hash"], answer["epoch"]) == (before, 2), "as if it had not been tried"
    assert left_behind(runner, graph) == []
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []
    gpu.capturing = None  # CUDA gives up a capture that failed
    runner.model.fail_in_piece = None
    wrapper.execute_model(step(*[1] * 4))
    assert runner.lazygraph.dispatch.last_served == "FULL:8"
    assert "failed before" in rank.preflight(wrapper, graph, 1)["reason"]
    assert "error" not in rank.capture(wrapper, "FULL:2")


def test_the_reason_arrives_though_cuda_answers_nothing_any_more(
    gpu: Any, monkeypatch: Any
) -> None:
    import torch

    wrapper, _ = start()

    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    capture_one = wrapper.worker.model_runner.lazygraph.capture_one

    def fail(graph: str) -> Any:
        try:
            return capture_one(graph)
        finally:
            monkeypatch.setattr(torch.cuda, "mem_get_info", broken)

    monkeypatch.setattr(wrapper.worker.model_runner.lazygraph, "capture_one", fail)
    gpu.fail_at_begin, gpu.fail_with = 0, "CUDA error: illegal instruction"
    assert "illegal instruction" in rank.capture(wrapper, "FULL:4")["error"]


@pytest.mark.parametrize("graph", ["PIECEWISE:8", "FULL:4"])
def test_a_captured_graph_is_forgotten_by_purge(gpu: Any, graph: str) -> None:
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    rank.capture(wrapper, graph)
    assert left_behind(runner, graph), "positive control: there is something to forget"
    assert rank.purge(wrapper, {graph: "a test"}) == 4
    assert left_behind(runner, graph) == []
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []
    assert rank.preflight(wrapper, graph, 1)["reason"] == "failed before: a test"


def test_a_purge_of_a_graph_in_the_controllers_table_falls_back_to_our_rule(gpu: Any) -> None:
    from lazygraph_vllm.protocol.messages import Dispatch, DispatchRow

    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    rank.capture(wrapper, "FULL:4")
    rows = (DispatchRow(up_to=4, graphs=("FULL:4",)),)
    assert rank.set_table(wrapper, Dispatch(uniform=rows, mixed=())) is None
    rank.purge(wrapper, {"FULL:4": "a test"})
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []
    assert runner.cudagraph_manager.dispatch(4, 4, 1, 0).num_tokens == 8


def test_preflight_refuses_what_does_not_fit_and_what_it_does_not_know(gpu: Any) -> None:
    wrapper, _ = start()
    gpu.free_bytes = 10 << 20
    reason = rank.preflight(wrapper, "FULL:4", 64 << 20)["reason"]
    assert reason == "headroom: 10 MiB free, 64 MiB needed"
    assert rank.preflight(wrapper, "FULL:3", 1)["reason"] == "unknown graph 'FULL:3'"
    assert rank.preflight(wrapper, "FULL:4", 1)["reason"] is None


def test_verification_tells_a_live_replay_from_a_dead_one(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our stand-in's replay does nothing: stale rows, or the NaN they were given before."""
    import torch

    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    runner.lazygraph.capturer.verify = True
    assert rank.capture(wrapper, "FULL:4")["mismatch"] != pytest.approx(0), "NaN"
    assert rank.capture(wrapper, "PIECEWISE:8")["mismatch"] > 0.1

    def replay(_: Any) -> None:
        buffers, hidden = runner.input_buffers, runner.cudagraph_manager.hidden_states
        hidden[:2] = runner.model(buffers.input_ids[:2], buffers.positions[:2])

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replay)
    assert rank.capture(wrapper, "FULL:2")["mismatch"] is None
    assert runner.lazygraph.state.verified["FULL:2"] == 0


def test_a_graph_that_fails_its_check_at_start_is_purged_on_all_ranks(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.protocol.messages import Ready

    monkeypatch.setenv("LAZYGRAPH_VERIFY", "1")
    engine = serving()
    ready = controller.wait_for(Ready)
    assert ready.captured == () and ready.epoch == engine.runner.lazygraph.state.epoch == 4
    assert engine.runner.lazygraph.state.captured == {}
    assert "its replay differs" in engine.agent.state.gone["FULL:8"]
    assert wrong_dispatches(engine.runner, engine.runner.cudagraph_manager.dispatch) == []
