"""Pipeline parallelism: each stage captures its own layers, all of them the same graphs."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

from vllm_facts import WARMS_UP_SEPARATELY  # noqa: E402

if not WARMS_UP_SEPARATELY:
    pytest.skip("pipeline parallelism is left to vLLM here", allow_module_level=True)

import replaying  # noqa: E402
from builders import wrong_dispatches  # noqa: E402
from lazygraph_vllm.rank import calls as rank  # noqa: E402
from lazygraph_vllm.vllm import stages  # noqa: E402
from lazygraph_vllm_testing.faults import _corrupt, _kill  # noqa: E402
from stages_bed import HIDDEN, STAGES, Pipeline  # noqa: E402

MODES = ("PIECEWISE", "FULL_AND_PIECEWISE", "FULL_DECODE_ONLY")
STEPS = [(1,), (1, 1), (3, 1), (1,) * 8, (5,), (12, 1, 1), (16,), (7, 7), (40,), (1, 1, 1)]


@pytest.fixture
def make(gpu: Any, pristine: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    replaying.install(monkeypatch)
    return lambda mode="FULL_AND_PIECEWISE": Pipeline(gpu, monkeypatch, mode)


def missing(pipeline: Pipeline) -> list[str]:
    held = pipeline.runners[0].lazygraph.state.captured
    return [g.id for g in pipeline.wrappers[0].graphs if g.id not in held]


def wrong_steps(pipeline: Pipeline) -> list[tuple[tuple[int, ...], list[str]]]:
    """Steps whose numbers are others than without any graph, and what served them."""
    import torch

    wrong = []
    for lengths in STEPS:
        got, by = pipeline.rows(*lengths), pipeline.served()
        if not torch.equal(got, pipeline.ungraphed(*lengths)):
            wrong.append((lengths, by))
    return wrong


def hashes(pipeline: Pipeline) -> set[str]:
    return {runner.lazygraph.state.hash() for runner in pipeline.runners}


# ------------------------------------------------------------------ right numbers


@pytest.mark.parametrize("mode", MODES)
def test_every_step_is_as_without_graphs_whatever_is_captured(make: Any, mode: str) -> None:
    pipeline = make(mode)
    pipeline.start()
    left = missing(pipeline)
    random.Random(mode).shuffle(left)
    graphed = set()
    for name in [None, *left]:
        if name is not None:
            assert not any("error" in answer for answer in pipeline.call(rank.capture, name))
        assert wrong_steps(pipeline) == [] and len(hashes(pipeline)) == 1
        for lengths in STEPS:
            pipeline.rows(*lengths)
            assert len(set(pipeline.served())) == 1, "padded alike on every stage"
            graphed.add(pipeline.served()[0])
    kinds = {name.split(":")[0] for name in graphed if name}
    assert kinds == {g.kind for g in pipeline.wrappers[0].graphs}, "graphs of each kind have served"
    assert "" in graphed, "and some step had none"


def test_stages_that_hold_different_graphs_are_found_by_hash_and_steps(make: Any) -> None:
    """Positive control: the next stage pads to another size than it is handed."""
    pipeline = make()
    pipeline.start()
    pipeline.call(rank.capture, "FULL:4")
    assert len(hashes(pipeline)) == 1
    with pipeline.on(1):
        rank.purge(pipeline.wrappers[1], {"FULL:4": "a test"})
    assert len(hashes(pipeline)) == 2
    with pytest.raises(RuntimeError, match="size"):
        pipeline.rows(1, 1, 1)
    assert pipeline.served() == ["FULL:4", "FULL:8"]


def test_all_stages_plan_the_same_and_tell_their_own_layers(make: Any) -> None:
    pipeline = make()
    first, last = pipeline.call(rank.describe)
    assert "unsupported" not in first
    assert first["graphs"] == last["graphs"]
    assert (first["layers"], last["layers"]) == (2, 3)
    assert (first["memory"].rank, last["memory"].rank) == (0, 1)


def test_a_table_holds_on_every_stage_from_the_same_step_on(make: Any) -> None:
    from lazygraph_vllm.protocol.messages import Dispatch, DispatchRow

    pipeline = make()
    pipeline.start()
    pipeline.call(rank.capture, "FULL:4")
    pipeline.rows(1, 1)
    assert pipeline.served() == ["FULL:4"] * STAGES
    rows = (DispatchRow(up_to=8, graphs=("FULL:8",)),)
    assert pipeline.call(rank.set_table, Dispatch(uniform=rows, mixed=())) == [None] * STAGES
    pipeline.rows(1, 1)
    assert pipeline.served() == ["FULL:8"] * STAGES and wrong_steps(pipeline) == []


@pytest.mark.parametrize("mode", MODES)
def test_only_captured_graphs_serve_on_every_stage(make: Any, mode: str) -> None:
    pipeline = make(mode)
    pipeline.start()
    for name in missing(pipeline)[::2]:
        pipeline.call(rank.capture, name)
    for runner in pipeline.runners:
        runner.model.pieces = [p for p in runner.model.pieces if hasattr(p, "graph_pool")]
        assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []


def test_a_dropped_tier_comes_back_right_on_all_stages(make: Any) -> None:
    tier = ("FULL:4", "PIECEWISE:4")
    pipeline = make()
    pipeline.start(tiers=(tier,))
    for name in missing(pipeline):
        pipeline.call(rank.capture, name)
    answers = pipeline.call(rank.drop, tier)
    assert len({a["hash"] for a in answers}) == 1 and len(hashes(pipeline)) == 1
    assert wrong_steps(pipeline) == [] and missing(pipeline) == ["PIECEWISE:4", "FULL:4"]
    for name in tier:
        pipeline.call(rank.capture, name)
    assert wrong_steps(pipeline) == [] and missing(pipeline) == []


# ------------------------------------------------------------------ checked, and found out


@pytest.mark.parametrize("mode", MODES)
def test_each_first_replay_is_checked_on_every_stage(make: Any, mode: str) -> None:
    pipeline = make(mode)
    pipeline.start(verify=True)
    for name in missing(pipeline):
        assert [a["mismatch"] for a in pipeline.call(rank.capture, name)] == [None] * STAGES
    every = dict.fromkeys((g.id for g in pipeline.wrappers[0].graphs), 0.0)
    assert [runner.lazygraph.state.verified for runner in pipeline.runners] == [every] * STAGES


def test_a_check_that_draws_once_takes_a_stages_own_writing_for_a_fault(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why it draws before each of its runs."""
    drawn: list[Any] = []
    draw = stages.draw_handed

    def once(runner: Any, tokens: int, generator: Any) -> None:
        if runner not in drawn:
            draw(runner, tokens, generator)
        drawn.append(runner)

    pipeline = make()
    pipeline.start(verify=True)
    monkeypatch.setattr(stages, "draw_handed", once)
    first, last = (answer["mismatch"] for answer in pipeline.call(rank.capture, "FULL:4"))
    assert first is None and last > 0.02


class Rolled:
    """Replays the graph and moves every row to the next place: rows that are alike hide it."""

    def __init__(self, graph: Any, buffers: Any, tokens: int) -> None:
        self._graph, self._buffers, self._tokens = graph, buffers, tokens

    def replay(self) -> None:
        self._graph.replay()
        for each in self._buffers:
            each[: self._tokens] = each[: self._tokens].roll(1, dims=0)


def roll(state: Any, name: str) -> None:
    desc = state.descs[name]
    buffers = state.adapter.output_buffers(state.manager)
    state.manager.graphs[desc] = Rolled(state.manager.graphs[desc], buffers, desc.num_tokens)


@pytest.mark.parametrize("at", range(STAGES))
@pytest.mark.parametrize(
    ("fault", "name"),
    [(_kill, "FULL:4"), (_kill, "PIECEWISE:8"), (_corrupt, "FULL:4"), (roll, "FULL:4")],
    ids=["dead", "dead piece", "a wrong row", "rows moved"],
)
def test_a_fault_of_one_stage_is_found_there_and_on_no_other(
    make: Any, fault: Any, name: str, at: int
) -> None:
    """Positive control, by the faults that a GPU's check injects."""
    pipeline = make()
    pipeline.start(verify=True)
    capturer = pipeline.runners[at].lazygraph.capturer
    verify = capturer._verify

    def with_fault(graph: str) -> None:
        fault(capturer._state, graph)
        verify(graph)

    capturer._verify = with_fault
    mismatches = [answer["mismatch"] for answer in pipeline.call(rank.capture, name)]
    assert [number for number, worst in enumerate(mismatches) if worst is not None] == [at]
    assert not mismatches[at] <= 0.02, "far off, or no number"


def test_a_check_leaves_no_input_behind_that_would_hide_a_dead_graph(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two graphs of as many tokens are checked on the same input, and captured on none of it."""

    def mismatches() -> list[float | None]:
        pipeline = make()
        pipeline.runners[1].model.in_place = False
        pipeline.start(verify=True)
        capturer = pipeline.runners[1].lazygraph.capturer
        verify = capturer._verify
        capturer._verify = lambda graph: (_kill(capturer._state, graph), verify(graph))
        return [answer["mismatch"] for answer in pipeline.call(rank.capture, "PIECEWISE:8")]

    first, last = mismatches()
    assert first is None and last is not None and not last <= 0.02
    monkeypatch.setattr(stages, "clear_handed", lambda *_: None)
    assert mismatches() == [None] * STAGES, "positive control: FULL:8 was checked on the same"


def test_without_drawn_input_moved_rows_go_unseen(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why a stage's input is drawn: what lies in its buffers otherwise is the same in each row."""
    monkeypatch.setattr(stages, "draw_handed", lambda *_: None)
    pipeline = make()
    pipeline.start(verify=True)
    for each in stages.answer(pipeline.runners[1].intermediate_tensors):
        each.zero_()
    state = pipeline.runners[1].lazygraph.state
    capturer = pipeline.runners[1].lazygraph.capturer
    verify = capturer._verify
    capturer._verify = lambda graph: (roll(state, graph), verify(graph))
    assert [a["mismatch"] for a in pipeline.call(rank.capture, "FULL:4")] == [None] * STAGES


# ------------------------------------------------------------------ what a capture touches


def test_a_capture_waits_for_what_is_being_sent(make: Any, gpu: Any) -> None:
    """A stage's FULL graphs answer into buffers that vLLM still sends from: a capture's runs write
    into the same ones, and so come after all work of the device.
    """
    pipeline = make()
    pipeline.start()
    pipeline.rows(1, 1)
    for name in ("FULL:4", "PIECEWISE:4"):
        at = len(gpu.events)
        pipeline.call(rank.capture, name)
        seen = [event for event in gpu.events[at:] if event[0] in ("sync", "run")]
        for number in range(STAGES):
            first = next(i for i, e in enumerate(seen) if e[:2] == ("run", number))
            assert seen[first - 1] == ("sync", False) or first == 0, "the device was waited for"
            assert first > 0


def test_every_stage_has_buffers_for_the_largest_where_it_had_no_room_to_run(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.rank import guard

    monkeypatch.setattr(guard.StartGuard, "can_run", lambda *_: False)
    pipeline = make()
    pipeline.start(first=["PIECEWISE:2", "FULL:2"], guard_margin=0)
    for runner in pipeline.runners:
        sizes = [each.shape for each in stages.buffers(runner.cudagraph_manager)]
        assert sizes == [(16, HIDDEN)] * (2 if stages.hands_on(runner.cudagraph_manager) else 1)
        assert max(runner.model.ran) == 2, "nothing ran at 16 tokens"
    for name in missing(pipeline):
        assert not any("error" in answer for answer in pipeline.call(rank.capture, name))
    assert wrong_steps(pipeline) == []


# ------------------------------------------------------------------ agreement


def test_what_one_stage_has_no_room_for_is_left_out_on_all(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are asked over the group of all stages, and the smaller answer counts."""
    import torch

    asked: list[tuple[int, Any]] = []
    pipeline = make()

    def all_reduce(flag: Any, _: Any, group: Any) -> None:
        asked.append((pipeline.at, group))
        count = sum(at == pipeline.at for at, _ in asked)
        if count == 4:  # warm-up, no workspace and PIECEWISE:16 are fine, PIECEWISE:8 isn't
            flag.zero_()

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    first = ["PIECEWISE:16", "PIECEWISE:8", "FULL:8"]
    answers = pipeline.start(first=first, guard_margin=0)
    assert asked == [(at, "all stages") for at in range(STAGES) for _ in range(6)]
    assert [list(a["refused"]) for a in answers] == [["PIECEWISE:8"]] * STAGES
    assert len({a["hash"] for a in answers}) == 1 and wrong_steps(pipeline) == []


def test_out_of_memory_on_one_of_several_stages_ends_the_start(make: Any, gpu: Any) -> None:
    pipeline = make()
    gpu.fail_at_begin = 1
    with pytest.raises(RuntimeError, match="out of memory"):
        pipeline.start()


@pytest.mark.parametrize(
    ("owner", "name"),
    [("manager", "is_last_pp_rank"), ("manager", "intermediate_tensors"), ("runner", "is_first")],
)
def test_a_vllm_that_names_them_otherwise_is_left_alone(make: Any, owner: str, name: str) -> None:
    pipeline = make()
    runner = pipeline.runners[1]
    if owner == "manager":
        delattr(runner.cudagraph_manager, name)
    else:
        runner.is_first_pp_rank = True
    with pipeline.on(1):
        reason = rank.describe(pipeline.wrappers[1])["unsupported"]
    assert name in reason or reason.endswith("in another way")
    with pipeline.on(0):
        assert "unsupported" not in rank.describe(pipeline.wrappers[0])
