"""At start: which graphs are captured, in which order, and when the hand-shake happens."""

from __future__ import annotations

from typing import Any

import pytest

from builders import Wrapper, make_config, make_runner, start
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.rank.descriptors import graph_id
from vllm_facts import PROFILES_BY_CAPTURING

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

MODES = ("FULL", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")
TOPS = {
    "FULL": ["FULL:16:mixed"],
    "PIECEWISE": ["PIECEWISE:16"],
    "FULL_DECODE_ONLY": ["FULL:8"],
    "FULL_AND_PIECEWISE": ["PIECEWISE:16", "FULL:8"],
}


def captured_in_order(answer: dict[str, Any]) -> list[str]:
    return [c.graph for c in answer["captured"]]


@pytest.mark.parametrize("mode", MODES)
def test_only_the_first_set_is_captured(mode: str) -> None:
    wrapper, answer = start(mode)
    assert captured_in_order(answer) == TOPS[mode]
    manager = wrapper.worker.model_runner.cudagraph_manager
    assert [graph_id(d) for d in manager.graphs] == [t for t in TOPS[mode] if t.startswith("FULL")]
    assert manager.needs_capture(), "vLLM's own list must stay whole for later captures"


@pytest.mark.parametrize("mode", MODES)
def test_capturing_all_keeps_vllms_order(mode: str, gpu: Any) -> None:
    """PIECEWISE before FULL, each largest first, as vLLM does without us."""
    order: list[tuple[str, int]] = []
    _record_captures(make_runner(make_config(mode)), order).capture_model()

    wrapper = Wrapper(make_runner(make_config(mode)))
    graphs = rank.describe(wrapper)["graphs"]
    rank.prepare(wrapper, [g.id for g in reversed(graphs)], False)
    wrapper.compile_or_warm_up_model()
    ours = [
        (c.graph.split(":")[0], int(c.graph.split(":")[1]))
        for c in rank.finish_start(wrapper)["captured"]
    ]
    assert ours == order
    assert len(order) == len(graphs)


def _record_captures(runner: Any, order: list[tuple[str, int]]) -> Any:
    from vllm.v1.worker.gpu import cudagraph_utils

    base = cudagraph_utils.CudaGraphManager
    original = base.capture

    def recording(self: Any, factory: Any, progress_bar_desc: str = "") -> None:
        def noting(desc: Any, warmup: bool) -> Any:
            if warmup:
                order.append((desc.cg_mode.name, desc.num_tokens))
            return factory(desc, warmup)

        original(self, noting, progress_bar_desc)

    base.capture = recording
    capture_model = runner.capture_model

    def once() -> int:
        try:
            return capture_model()
        finally:
            base.capture = original

    runner.capture_model = once
    return runner


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "first",
    [
        [],
        ["PIECEWISE:2"],
        ["FULL:2", "FULL:2:mixed"],
        ["PIECEWISE:2", "FULL:8", "FULL:16:mixed"],
        ["PIECEWISE:2", "FULL:2"],
        ["PIECEWISE:16", "FULL:1"],
    ],
    ids=lambda names: "+".join(names) or "nothing",
)
def test_outputs_are_sized_by_the_largest_graph(mode: str, first: list[str]) -> None:
    """After a smaller first set a larger graph is no shape error."""
    wrapper, answer = start(mode, first)
    runner = wrapper.worker.model_runner
    largest = max(g.tokens for g in wrapper.graphs)
    assert runner.cudagraph_manager.hidden_states.shape[0] == largest
    assert set(captured_in_order(answer)) == set(first) & {g.id for g in wrapper.graphs}
    for graph in wrapper.graphs:
        if graph.id not in captured_in_order(answer):
            assert "error" not in rank.capture(wrapper, graph.id)
    assert set(runner.lazygraph.state.captured) == {g.id for g in wrapper.graphs}


@pytest.mark.parametrize(
    ("mode", "max_num_seqs", "warmed"),
    [
        ("FULL_AND_PIECEWISE", 16, [16]),
        ("FULL_AND_PIECEWISE", 8, [16, 8]),
        ("PIECEWISE", 8, [16]),
        ("FULL_DECODE_ONLY", 8, [8]),
        ("FULL", 8, [16]),
    ],
)
def test_one_run_warms_up_for_all_captures(mode: str, max_num_seqs: int, warmed: list[int]) -> None:
    """The largest graph's inputs, and the largest FULL one's."""
    wrapper, answer = start(mode, max_num_seqs=max_num_seqs)
    ran = wrapper.worker.model_runner.model.ran
    first = [int(name.split(":")[1]) for name in captured_in_order(answer)]
    assert ran == warmed + first
    name = wrapper.graphs[-1].id
    rank.capture(wrapper, name)
    assert ran[len(warmed + first) :] == [wrapper.graphs[-1].tokens]


def test_capture_model_reports_what_is_still_to_come() -> None:
    """vLLM saves this number for later starts: it must not look as if graphs were nearly free."""
    everything = make_runner(make_config()).capture_model()
    wrapper, _ = start()
    projected = wrapper.worker.model_runner.lazygraph.state.projected_bytes()
    assert projected > 0
    tops = 4 << 20  # three pieces of PIECEWISE 16 and FULL 8, one MiB each here
    assert everything > tops
    wrapper = Wrapper(make_runner(make_config()))
    rank.prepare(wrapper, ["PIECEWISE:16", "FULL:8"], False)
    assert wrapper.worker.model_runner.capture_model() == tops + projected


def test_times_and_bytes_belong_to_their_graph() -> None:
    wrapper, answer = start(first=["PIECEWISE:16", "PIECEWISE:8", "FULL:8", "FULL:4"])
    assert captured_in_order(answer) == ["PIECEWISE:16", "PIECEWISE:8", "FULL:8", "FULL:4"]
    assert all(c.ms > 0 for c in answer["captured"])
    assert sum(c.bytes for c in answer["captured"]) == (3 + 3 + 1 + 1) << 20
    later = rank.capture(wrapper, "FULL:2")["captured"]
    assert (later.graph, later.bytes) == ("FULL:2", 1 << 20)


def test_what_travels_between_processes_survives_pickling() -> None:
    """The multiprocess executor pickles arguments and answers."""
    import pickle

    import cloudpickle

    from lazygraph_vllm.protocol.messages import Dispatch, DispatchRow

    wrapper, answer = start()
    for value in (
        rank.describe(wrapper),
        answer,
        rank.capture(wrapper, "FULL:2"),
        rank.drain_steps(wrapper),
        Dispatch(uniform=(DispatchRow(up_to=2, graphs=("FULL:2",)),), mixed=()),
    ):
        assert pickle.loads(pickle.dumps(value)) == value
    for function in (rank.describe, rank.capture, rank.set_table, rank.drain_steps):
        assert pickle.loads(cloudpickle.dumps(function)) is function


def first_set_of(more: tuple[str, ...], budget_seconds: float | None) -> dict[str, Any]:
    wrapper = Wrapper(make_runner(make_config()))
    rank.prepare(wrapper, ["PIECEWISE:16", "FULL:8"], False, (), None, more, budget_seconds)
    wrapper.compile_or_warm_up_model()
    return rank.finish_start(wrapper)


MORE = ("FULL:4", "FULL:1", "PIECEWISE:2")


def test_more_comes_before_ready_while_the_controllers_budget_lasts() -> None:
    plenty = first_set_of((*MORE, MORE[0]), 3600)  # named twice
    assert captured_in_order(plenty) == ["PIECEWISE:16", "FULL:8", *MORE]
    assert plenty["skipped"] == ()
    assert 0 < plenty["warm_up_seconds"] < plenty["seconds"]


# By itself: a second engine would have the pool of the first until garbage is collected.
def test_without_a_budget_left_nothing_more_comes_before_ready() -> None:
    none = first_set_of(MORE, 0)
    assert captured_in_order(none) == ["PIECEWISE:16", "FULL:8"]
    assert none["skipped"] == MORE


def test_without_one_the_budget_is_a_share_of_what_stock_would_spend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lazygraph_vllm.rules import local_fill

    asked: list[tuple[str, list[str], bool]] = []

    def fits(kind: str, planned: Any, captured: Any, *, twice: bool, **_: Any) -> bool:
        asked.append((kind, [c.kind for c in captured], twice))
        return len(captured) < 3

    monkeypatch.setattr(local_fill, "fits_budget", fits)
    answer = first_set_of(("FULL:4", "FULL:2", "FULL:1"), None)
    assert captured_in_order(answer) == ["PIECEWISE:16", "FULL:8", "FULL:4"]
    assert answer["skipped"] == ("FULL:2", "FULL:1")
    assert [kinds for _, kinds, _ in asked] == [
        ["PIECEWISE", "FULL"],
        ["PIECEWISE", "FULL", "FULL"],
    ]
    assert {twice for _, _, twice in asked} == {PROFILES_BY_CAPTURING}
