"""Only captured graphs ever serve, and only steps they can serve: over every step shape."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest

from builders import (
    Wrapper,
    bring_up_rank,
    make_config,
    make_runner,
    shapes,
    start,
    step,
    wrong_dispatches,
)
from fake_controller import next_size_table
from lazygraph_vllm.protocol.messages import TOKENS_MAX, Dispatch, DispatchRow, Inventory
from lazygraph_vllm.rank import calls as rank

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

MODES = ("FULL", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")


def check(wrapper: Any) -> None:
    runner = wrapper.worker.model_runner
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []


def table_for(wrapper: Any, captured: set[str]) -> Dispatch:
    inventory = Inventory(
        phase="serving", graphs=tuple(wrapper.graphs), captured=(), ranks=(), cudagraph_mode="",
        layers=1, max_requests=8, max_batched_tokens=64, kv_cache_tokens=0, epoch=0,
    )  # fmt: skip
    return next_size_table(inventory, captured)


@pytest.mark.parametrize("mode", MODES)
def test_after_start_captures_purges_and_tables(mode: str) -> None:
    wrapper, _ = start(mode)
    state = wrapper.worker.model_runner.lazygraph.state
    check(wrapper)
    draw = random.Random(mode)
    left = [g.id for g in wrapper.graphs if g.id not in state.captured]
    draw.shuffle(left)
    for turn, name in enumerate(left):
        assert "error" not in rank.capture(wrapper, name)
        check(wrapper)
        if turn % 2:
            assert rank.set_table(wrapper, table_for(wrapper, set(state.captured))) is None
            check(wrapper)
        if turn % 3 == 2:
            rank.purge(wrapper, {draw.choice(sorted(state.captured)): "a test"})
            check(wrapper)
    for name in sorted(state.captured):
        rank.purge(wrapper, {name: "a test"})
        check(wrapper)
    assert not state.captured


@pytest.mark.parametrize("mode", MODES)
def test_stock_dispatch_with_missing_graphs_fails_the_same_check(mode: str) -> None:
    """Positive control: vLLM's own dispatch would replay graphs that are not there."""
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    stock = CudaGraphManager.dispatch
    wrapper, _ = start(mode)
    manager = wrapper.worker.model_runner.cudagraph_manager
    manager._candidates = make_runner(make_config(mode)).cudagraph_manager._candidates
    wrong = wrong_dispatches(wrapper.worker.model_runner, functools.partial(stock, manager))
    assert wrong and all(text.startswith("not captured") for text in wrong)


def test_a_dispatch_that_looks_at_tokens_only_fails_the_same_check() -> None:
    """Positive control: a mixed step in a uniform FULL graph is what the check is there for."""
    wrapper, _ = start("FULL_AND_PIECEWISE")
    runner = wrapper.worker.model_runner
    full = next(d for d in runner.cudagraph_manager.graphs)

    def by_tokens(requests: int, tokens: int, uniform: int | None, loras: int) -> Any:
        if tokens <= full.num_tokens:
            return full
        return runner.cudagraph_manager.dispatch(requests, tokens, uniform, loras)

    wrong = wrong_dispatches(runner, by_tokens)
    assert any(text.startswith("uniform graph for a mixed step") for text in wrong)
    assert any(text.startswith("not compatible") for text in wrong)


@pytest.mark.parametrize("mode", MODES)
def test_vllms_own_candidates_hold_captured_graphs_only(mode: str) -> None:
    """Whoever asks the table behind our back must not find a missing graph either."""
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    stock = CudaGraphManager.dispatch
    wrapper, _ = start(mode)
    runner = wrapper.worker.model_runner
    own = functools.partial(stock, runner.cudagraph_manager)
    assert wrong_dispatches(runner, own) == []
    for graph in wrapper.graphs:
        rank.capture(wrapper, graph.id)
        assert wrong_dispatches(runner, own) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", [(1, 2, 4, 8, 16), (1, 8, 96)], ids=["dense", "sparse"])
def test_with_all_graphs_every_step_takes_the_graph_of_stock(
    mode: str, sizes: tuple[int, ...]
) -> None:
    stock = make_runner(make_config(mode, sizes))
    stock.capture_model()
    wrapper, _ = start(mode, sizes=sizes)
    for graph in wrapper.graphs:
        if graph.id not in wrapper.worker.model_runner.lazygraph.state.captured:
            rank.capture(wrapper, graph.id)
    for tokens, requests, uniform in shapes(wrapper.worker.model_runner.vllm_config):
        theirs = stock.cudagraph_manager.dispatch(requests, tokens, uniform, 0)
        ours = wrapper.worker.model_runner.cudagraph_manager.dispatch(requests, tokens, uniform, 0)
        if theirs.cg_mode.name != "NONE":
            assert ours == theirs, (tokens, requests, uniform)


@pytest.mark.parametrize("mode", MODES)
def test_a_table_that_names_the_wrong_graphs_makes_no_step_wrong(mode: str) -> None:
    """Rows of a mistaken controller: every graph for every step, uniform ones for mixed steps."""
    wrapper, _ = start(mode, [g.id for g in wrapper_graphs(mode)])
    for order in (1, -1):
        names = tuple(g.id for g in wrapper.graphs)[::order]
        rows = (DispatchRow(up_to=64, graphs=names),)
        assert rank.set_table(wrapper, Dispatch(uniform=rows, mixed=rows)) is None
        check(wrapper)


def wrapper_graphs(mode: str) -> Any:
    return rank.describe(Wrapper(make_runner(make_config(mode))))["graphs"]


def test_uniform_and_mixed_steps_have_a_table_each() -> None:
    wrapper, _ = start()
    dispatch = wrapper.worker.model_runner.cudagraph_manager.dispatch
    rows = (DispatchRow(up_to=16, graphs=("PIECEWISE:16",)),)
    assert rank.set_table(wrapper, Dispatch(uniform=(), mixed=rows)) is None
    assert dispatch(2, 4, None, 0).num_tokens == 16
    assert dispatch(1, 4, 4, 0).num_tokens == 16, "one prompt of four tokens is no decode"
    assert dispatch(4, 4, 1, 0).cg_mode.name == "NONE"
    assert rank.set_table(wrapper, Dispatch(uniform=rows, mixed=())) is None
    assert dispatch(2, 4, None, 0).cg_mode.name == "NONE"
    assert dispatch(4, 4, 1, 0).num_tokens == 16


def test_a_row_far_beyond_the_largest_graph_makes_no_longer_look_up() -> None:
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    largest = max(g.tokens for g in rank.describe(wrapper)["graphs"])
    rows = (DispatchRow(up_to=TOKENS_MAX, graphs=("PIECEWISE:16",)),)
    assert rank.set_table(wrapper, Dispatch(uniform=rows, mixed=rows)) is None
    look_up = runner.lazygraph.dispatch._mixed
    assert len(look_up) == largest + 1
    assert look_up[1] is look_up[largest]
    assert runner.cudagraph_manager.dispatch(2, 4, None, 0).num_tokens == 16
    assert runner.cudagraph_manager.dispatch(2, TOKENS_MAX, None, 0).cg_mode.name == "NONE"


def test_a_table_with_a_missing_graph_is_refused_and_the_old_one_stays() -> None:
    wrapper, _ = start()
    manager = wrapper.worker.model_runner.cudagraph_manager
    none = Dispatch(uniform=(), mixed=())
    assert rank.set_table(wrapper, none) is None
    assert manager.dispatch(1, 1, 1, 0).cg_mode.name == "NONE"
    missing = Dispatch(uniform=(DispatchRow(up_to=4, graphs=("FULL:4",)),), mixed=())
    assert "FULL:4" in rank.set_table(wrapper, missing)
    assert manager.dispatch(1, 1, 1, 0).cg_mode.name == "NONE"
    rank.capture(wrapper, "FULL:4")
    assert rank.set_table(wrapper, missing) is None
    assert manager.dispatch(1, 1, 1, 0).num_tokens == 4


def test_without_its_controller_the_rule_of_the_engine_serves_again() -> None:
    wrapper, _ = start()
    manager = wrapper.worker.model_runner.cudagraph_manager
    rank.set_table(wrapper, Dispatch(uniform=(), mixed=()))
    rank.capture(wrapper, "FULL:4")
    assert manager.dispatch(4, 4, 1, 0).cg_mode.name == "NONE", "the table decides"
    assert rank.set_table(wrapper, None) is None
    assert manager.dispatch(4, 4, 1, 0).num_tokens == 4


def test_steps_replay_what_was_captured_and_are_counted(gpu: Any) -> None:
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    pieces = len(runner.model.pieces)
    served = []
    for lengths in ([1], [1] * 8, [3, 1], [1] * 4 + [12], [40]):
        before = len(gpu.replayed)
        wrapper.execute_model(step(*lengths))
        wrapper.sample_tokens(None)
        served.append((runner.lazygraph.dispatch.last_served, len(gpu.replayed) - before))
    assert served == [
        ("FULL:8", 1),
        ("FULL:8", 1),
        ("PIECEWISE:16", pieces),
        ("PIECEWISE:16", pieces),
        ("", 0),
    ]
    steps, dropped = rank.drain_steps(wrapper)
    assert dropped == 0
    assert [(s.tokens, s.requests, s.uniform, s.served, s.count, s.timed) for s in steps] == [
        (1, 1, 1, "FULL:8", 1, 1),
        (8, 8, 1, "FULL:8", 1, 1),
        (4, 2, 0, "PIECEWISE:16", 1, 1),
        (16, 5, 0, "PIECEWISE:16", 1, 1),
        (40, 1, 40, "", 1, 1),
    ]
    assert steps[0].seconds == pytest.approx(0.002)


def test_steps_of_other_ranks_are_not_watched() -> None:
    wrapper = Wrapper(make_runner(make_config()), rank=1)
    bring_up_rank(wrapper)
    wrapper.execute_model(step(1))
    wrapper.sample_tokens(None)
    assert rank.drain_steps(wrapper) is None
    assert not hasattr(wrapper.worker.model_runner, "lazygraph_steps")


def test_what_a_step_got_is_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from lazygraph_vllm.rank import dispatch

    monkeypatch.setattr(dispatch, "KEPT_MAX", 4)
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    check(wrapper)
    assert 0 < len(runner.lazygraph.dispatch._kept) <= 4


def test_warm_up_steps_of_vllm_are_no_demand() -> None:
    wrapper, _ = start(first=[])
    graphs = wrapper.worker.model_runner
    graphs.execute_model(step(1, 1))
    graphs.sample_tokens(None)
    rank.finish_start(wrapper)
    wrapper.execute_model(step(1))
    wrapper.sample_tokens(None)
    steps, _ = rank.drain_steps(wrapper)
    assert [(s.tokens, s.count, s.timed) for s in steps] == [(1, 1, 1)]
