"""Speculative decoding: target and drafter captured together or not at all, and never apart."""

from __future__ import annotations

import random
from typing import Any

import pytest

import drafts_bed as bed
from lazygraph_vllm.rank import calls as rank
from vllm_facts import AT

pytestmark = [
    pytest.mark.usefixtures("pristine", "gpu"),
    pytest.mark.skipif(AT < (0, 31), reason="drafts run as stock before vLLM 0.31"),
]

SIZES = (1, 2, 4, 8, 12, 16, 24, 32)


@pytest.fixture(autouse=True)
def kernels(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.install_kernels(monkeypatch)


def pairs(wrapper: Any) -> Any:
    return wrapper.worker.model_runner.lazygraph.state.pairs


def captured(wrapper: Any) -> set[str]:
    return set(wrapper.worker.model_runner.lazygraph.state.captured)


def test_a_fill_captures_what_stock_does(gpu: Any) -> None:
    from vllm.compilation import monitor

    wrapper = bed.start_with_drafts(gpu, sizes=SIZES)
    runner = wrapper.worker.model_runner
    for graph in wrapper.graphs:
        assert "error" not in rank.capture(wrapper, graph.id)
    ours = runner.speculator
    monitor.set_cudagraph_capturing_enabled(True)  # as at a start
    stock = bed.make_draft_runner(bed.make_draft_config(3, sizes=SIZES), gpu)
    stock.capture_model()
    assert set(runner.cudagraph_manager.graphs) == set(stock.cudagraph_manager.graphs)
    for name in ("prefill_cudagraph_manager", "decode_cudagraph_manager"):
        theirs = set(getattr(stock.speculator, name).graphs)
        assert theirs and set(getattr(ours, name).graphs) == theirs
    mine, other = (
        [set(piece.concrete_cudagraph_entries) for piece in each.model.pieces]
        for each in (ours, stock.speculator)
    )
    assert mine == other and all(mine)


def steps_of(requests_max: int, tokens_max: int) -> list[tuple[list[int], bool]]:
    """Decode steps of every number of requests, and steps with prompts of several lengths."""
    decode = [([4] * n, True) for n in range(1, requests_max + 1)]
    prompts = [([n], False) for n in range(1, tokens_max + 3, 6)]
    mixed = [
        ([4] * few + [more], False)
        for few in (1, 2, 5)
        for more in (1, 4, 7, tokens_max)
        if few < requests_max
    ]
    return decode + prompts + mixed


MODES = ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY", "FULL", "PIECEWISE")


@pytest.mark.parametrize("mode", MODES)
def test_during_a_fill_no_step_has_another_shape_than_its_target_nor_other_drafts(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Of 1 to 64 requests; the drafts are those of an engine that has no graph at all."""
    bed.replays(monkeypatch)
    sizes = (1, 2, 4, 8, 16, 32, 48, 64, 100, 128, 160, 256)
    options: dict[str, Any] = {"mode": mode, "sizes": sizes, "requests": 64}
    eager = bed.start_with_drafts(gpu, first=[], **options).worker.model_runner
    steps = steps_of(64, 260)
    expected = [bed.draft_step(eager, *step) for step in steps]
    assert all(each.target.cg_mode.name == "NONE" for each in expected)
    wrapper = bed.start_with_drafts(gpu, **options)
    runner = wrapper.worker.model_runner
    left = [g.id for g in wrapper.graphs if g.id not in captured(wrapper)]
    random.Random(7).shuffle(left)
    kinds: set[tuple[str, ...]] = set()
    for turn in range(0, len(left) + 8, 8):
        for step, stock in zip(steps, expected, strict=True):
            served = bed.draft_step(runner, *step)
            assert bed.mismatch(served) is None, (step, served)
            assert served.drafts.tolist() == stock.drafts.tolist(), (step, served)
            kinds.add(served.modes())
        for name in left[turn : turn + 8]:
            assert "error" not in rank.capture(wrapper, name)
    assert captured(wrapper) == {g.id for g in wrapper.graphs}
    # The graphs did serve, and their drafter's with them.
    wanted = {"PIECEWISE": ("PIECEWISE",) * 2 + ("NONE",)}.get(mode, ("FULL",) * 3)
    assert wanted in kinds
    assert all(prefill == target for target, prefill, _ in kinds)


def test_a_drafter_that_dispatches_for_itself_fails_the_same_check(gpu: Any) -> None:
    """Positive control: stock's rule where only the drafter has a graph."""
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    stock = CudaGraphManager.dispatch
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["PIECEWISE:16"])
    runner = wrapper.worker.model_runner
    manager = runner.speculator.prefill_cudagraph_manager
    manager._graphs_captured = True
    manager.lazygraph_dispatch = lambda call: stock(
        manager, call.requests, call.tokens, call.uniform, call.loras
    )
    runner.lazygraph.dispatch._mixed = [()]  # the target: nothing
    assert bed.mismatch(bed.draft_step(runner, [13], is_decode=False)) == (
        "16 tokens with metadata of 13"
    )


def test_without_one_of_its_drafters_graphs_no_graph_of_the_target_serves(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:16:u4", "PIECEWISE:32"])
    runner = wrapper.worker.model_runner
    step = ([4] * 4, True)
    served = bed.draft_step(runner, *step)
    assert served.modes() == ("FULL",) * 3
    for name in ("prefill_cudagraph_manager", "decode_cudagraph_manager"):
        graphs = getattr(runner.speculator, name).graphs
        desc = served.prefill if name.startswith("prefill") else served.decode
        gone = graphs.pop(desc)
        runner.lazygraph.dispatch.rebuild()
        without = bed.draft_step(runner, *step)
        assert without.target.cg_mode.name == "PIECEWISE" and bed.mismatch(without) is None
        graphs[desc] = gone
        runner.lazygraph.dispatch.rebuild()
        assert bed.draft_step(runner, *step).target == served.target


def test_a_drafter_that_asks_for_another_shape_gets_no_graph_and_it_is_said_once(
    gpu: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted fault: vLLM pads the drafter's batch in another way than its target's."""
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:16:u4"])
    runner = wrapper.worker.model_runner
    served = bed.draft_step(runner, [4] * 3)
    assert served.prefill == served.target
    manager = runner.speculator.prefill_cudagraph_manager
    for _ in range(2):
        assert runner.cudagraph_manager.dispatch(3, 12, 4, 0) == served.target
        asked = manager.dispatch(3, 12, 4, 0)
        assert (asked.cg_mode.name, asked.num_tokens) == ("NONE", 12)
    said = [r.message for r in caplog.records if "its drafter is asked for" in r.message]
    assert said == [
        "lazygraph: the target ran FULL:16:u4 and its drafter is asked for 12 tokens of 3 "
        "requests: it drafts without graphs there"
    ]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_capture_that_fails_in_any_part_leaves_nothing_of_a_pair(gpu: Any, at: int) -> None:
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4"])
    runner = wrapper.worker.model_runner
    managers = pairs(wrapper).drafter.managers
    before = {role: set(manager.graphs) for role, manager in managers.items()}
    held = set(pairs(wrapper).captured)
    name = "FULL:16:u4"  # the target's, the drafter's of its batch, and one of its decodes
    assert len(pairs(wrapper).missing(name)) == 2
    gpu.fail_at_begin = at
    answer = rank.capture(wrapper, name)
    assert "out of memory" in answer["error"] and answer["short"]
    assert name not in captured(wrapper) and pairs(wrapper).captured == held
    for role, manager in managers.items():
        assert set(manager.graphs) == before[role]
        assert manager._capture_descs == pairs(wrapper).drafter.planned[role]
    assert bed.draft_step(runner, [4] * 3).target.num_tokens == 32
    # And again, now that there is memory.
    assert "error" not in rank.capture(wrapper, name)
    assert bed.draft_step(runner, [4] * 3).target.num_tokens == 16


def test_a_drafter_that_captures_less_than_asked_fails_the_pair(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: the target's graph is there, the drafter's isn't."""
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4"])
    runner = wrapper.worker.model_runner
    monkeypatch.setattr(runner.speculator, "capture", lambda: None, raising=False)
    answer = rank.capture(wrapper, "FULL:16:u4")
    assert answer["error"] == (
        "DraftsError: vLLM's drafter did not capture decode FULL:4, prefill FULL:16:u4"
    )
    assert not any(d.num_tokens == 16 for d in runner.cudagraph_manager.graphs)


def test_a_purge_keeps_what_another_graph_shares(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(
        gpu, sizes=(1, 2, 4, 8, 12, 16, 20, 32), first=["FULL:20:u4", "FULL:32:u4"]
    )
    runner = wrapper.worker.model_runner
    decodes = runner.speculator.decode_cudagraph_manager.graphs
    assert {d.num_tokens for d in decodes} == {8}  # of 5, and of 6 to 8 requests
    rank.purge(wrapper, {"FULL:32:u4": "a test"})
    assert {d.num_tokens for d in decodes} == {8}
    assert bed.draft_step(runner, [4] * 5).decode.num_tokens == 8
    rank.purge(wrapper, {"FULL:20:u4": "a test"})
    assert not decodes and not pairs(wrapper).captured
    assert not runner.speculator.prefill_cudagraph_manager.graphs


def test_a_purge_drops_the_drafters_pieces(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["PIECEWISE:16", "PIECEWISE:32"])
    pieces = wrapper.worker.model_runner.speculator.model.pieces
    assert [{k.num_tokens for k in p.concrete_cudagraph_entries} for p in pieces] == (
        [{16, 32}] * len(pieces)
    )
    rank.purge(wrapper, {"PIECEWISE:16": "a test"})
    assert all({k.num_tokens for k in p.concrete_cudagraph_entries} == {32} for p in pieces)


def test_dropping_everything_gives_both_back_and_captures_may_begin_anew(gpu: Any) -> None:
    tiers = (("FULL:16:u4", "PIECEWISE:16"), ("FULL:32:u4", "PIECEWISE:32"))
    wrapper = bed.start_with_drafts(
        gpu, sizes=SIZES, first=[g for tier in tiers for g in tier], tiers=tiers
    )
    runner = wrapper.worker.model_runner
    manager = runner.speculator.decode_cudagraph_manager
    for drop in (
        lambda: [rank.drop(wrapper, tier) for tier in tiers],
        lambda: rank.drop_all(wrapper),
    ):
        assert {d.num_tokens for d in manager.graphs} == {4, 8}
        drop()
        assert not captured(wrapper) and not pairs(wrapper).captured and not manager.graphs
        assert not runner.speculator.prefill_cudagraph_manager.graphs
        for tier in tiers:
            for name in tier:
                assert "error" not in rank.capture(wrapper, name)


def test_a_tiers_drafts_lie_in_its_pool_and_what_tiers_share_in_none(gpu: Any) -> None:
    tiers = (("FULL:20:u4",), ("FULL:32:u4",))
    wrapper = bed.start_with_drafts(
        gpu, sizes=(1, 2, 4, 8, 12, 16, 20, 32), first=["FULL:20:u4", "FULL:32:u4"], tiers=tiers
    )
    runner = wrapper.worker.model_runner
    spec, state = runner.speculator, runner.lazygraph.state
    pool_of = {d.num_tokens: g.pool for d, g in runner.cudagraph_manager.graphs.items()}
    drafts = {d.num_tokens: g.pool for d, g in spec.prefill_cudagraph_manager.graphs.items()}
    assert drafts == pool_of and len(set(pool_of.values())) == 2
    (shared,) = spec.decode_cudagraph_manager.graphs.values()
    assert shared.pool == state.pools.shared() and shared.pool not in pool_of.values()
    rank.drop(wrapper, ("FULL:32:u4",))
    assert bed.draft_step(runner, [4] * 5).decode.cg_mode.name == "FULL"


def test_a_pair_is_one_graph_with_the_bytes_and_the_time_of_all(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4"])
    begun = gpu.count("begin")
    answer = rank.capture(wrapper, "FULL:16:u4")
    parts = gpu.count("begin") - begun
    assert parts == 3  # target, its drafter's batch, one decode size
    assert answer["captured"].graph == "FULL:16:u4"
    assert answer["captured"].bytes == parts * gpu.bytes_per_capture
    alone = rank.capture(wrapper, "PIECEWISE:16")
    pieces = len(wrapper.worker.model_runner.model.pieces)
    assert alone["captured"].bytes == 2 * pieces * gpu.bytes_per_capture


def test_a_graph_says_how_many_layers_of_the_drafter_go_along(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES)
    layers = {g.id: g.draft_layers for g in wrapper.graphs}
    assert layers["PIECEWISE:16"] == 1
    # The drafter's batch once, and two more runs in the decode graph of 3 and 4 requests.
    assert layers["FULL:16:u4"] == 3
    # What larger graphs share with smaller ones counts once.
    decodes = pairs(wrapper).drafter.drafts("decode")
    assert sum(layers.values()) == len(wrapper.graphs) + 2 * len(decodes)


def test_one_draft_token_has_no_decode_graphs(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(gpu, tokens=1, sizes=SIZES)
    runner = wrapper.worker.model_runner
    assert pairs(wrapper).drafter.drafts("decode") == []
    served = bed.draft_step(runner, [2] * 3)
    assert served.target.cg_mode.name == "FULL" == served.prefill.cg_mode.name
    assert served.decode is None


def in_service(gpu: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """An engine whose requests have drafts and a KV cache, as between two steps."""
    import torch

    bed.replays(monkeypatch)
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4"], **options)
    spec = wrapper.worker.model_runner.speculator
    spec.draft_logits = torch.zeros(spec.max_num_reqs, 3, bed.VOCABULARY)
    bed.draft_step(wrapper.worker.model_runner, [4] * 8)
    spec.model.written.clear()
    return wrapper


def test_captures_between_steps_write_no_requests_drafts_and_no_slot(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = in_service(gpu, monkeypatch)
    spec = wrapper.worker.model_runner.speculator
    before = spec.draft_logits.clone()
    assert bool(before.any())
    ran = len(spec.model.batches)
    for graph in wrapper.graphs:
        assert "error" not in rank.capture(wrapper, graph.id)
    assert len(spec.model.batches) > ran  # runs without a graph, which could have written
    assert spec.model.written == set()
    assert spec.draft_logits.equal(before)


def test_captures_as_at_the_start_fail_the_same_check(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: vLLM's dummy rows are all those of request 0."""
    wrapper = in_service(gpu, monkeypatch)
    spec = wrapper.worker.model_runner.speculator
    before = spec.draft_logits.clone()
    monkeypatch.setattr(pairs(wrapper).drafter, "disown", lambda: None)
    assert "error" not in rank.capture(wrapper, "FULL:16:u4")
    assert {slot // bed.BLOCK for slot in spec.model.written} == {0}
    assert not spec.draft_logits[0].equal(before[0])
    assert spec.draft_logits[1:].equal(before[1:])


def test_a_drafter_warms_up_before_each_of_its_captures(gpu: Any) -> None:
    """Its kernels are compiled by the number of requests: none may be for the first time inside."""
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4"])
    model = wrapper.worker.model_runner.speculator.model
    at = len(model.batches)
    assert "error" not in rank.capture(wrapper, "FULL:16:u4")
    assert [tokens for tokens, _ in model.batches[at:]] == [16, 4, 4]  # its batch, two more runs


@pytest.mark.parametrize("mode", MODES)
def test_both_graphs_of_a_pair_are_verified(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    bed.replays(monkeypatch)
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, mode=mode, verify=True)
    state = wrapper.worker.model_runner.lazygraph.state
    names = [g.id for g in wrapper.graphs]
    for name in names:
        assert "mismatch" not in rank.capture(wrapper, name) or name not in state.mismatched
    assert state.verified == dict.fromkeys(names, 0.0) and not state.mismatched


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("fault", ["nothing", "other rows"])
def test_a_drafters_graph_that_is_wrong_is_found(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, role: str, fault: str
) -> None:
    """Planted faults: a replay that does nothing, and one that mixes up its rows."""
    bed.replays(monkeypatch)
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:16:u4"])
    spec = wrapper.worker.model_runner.speculator
    drafter = pairs(wrapper).drafter
    draft = next(d for d in pairs(wrapper).captured if d.role == role)
    assert drafter.difference(draft) == 0.0
    (graph,) = drafter.managers[role].graphs.values()
    right = graph.forward

    def mixed_up(mode: Any) -> None:
        right(mode)
        spec.hidden_states[:4] = spec.hidden_states[:4].flip(0)
        spec.draft_tokens[:4] = spec.draft_tokens[:4].roll(1, 0) + 1

    graph.forward = mixed_up if fault == "other rows" else lambda _: None
    difference = drafter.difference(draft)
    assert difference is not None and not difference <= 0.02
    graph.forward = right
    assert drafter.difference(draft) == 0.0


def test_a_pair_whose_drafter_is_wrong_is_reported_as_a_mismatch(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.replays(monkeypatch)
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4"], verify=True)
    drafter = pairs(wrapper).drafter
    monkeypatch.setattr(drafter, "difference", lambda draft: 0.5 if draft.role == "decode" else 0.0)
    assert rank.capture(wrapper, "FULL:16:u4")["mismatch"] == 0.5


def test_what_mtp_sets_around_its_captures_is_set_around_ours(gpu: Any) -> None:
    """Flags that are baked into a graph: the indexer's, on in the runs after the first."""
    wrapper = bed.start_with_drafts(
        gpu, sizes=SIZES, first=["FULL:32:u4"], kind="MTPSpeculator", method="mtp"
    )
    spec = wrapper.worker.model_runner.speculator
    flags: list[tuple[int, bool]] = []

    class Inner:
        skip = False

        def set_skip_topk(self, skip: bool) -> None:
            self.skip = skip

        def compact_topk_indices(self, _: Any) -> None: ...

    spec.model.model = inner = Inner()
    spec.share_mtp_topk_indices = True

    class Noting(type(spec.model)):  # type: ignore[misc]
        def __call__(self, **inputs: Any) -> Any:
            if gpu.capturing is not None:
                flags.append((len(inputs["input_ids"]), inner.skip))
            return super().__call__(**inputs)

    spec.model.__class__ = Noting
    assert "error" not in rank.capture(wrapper, "FULL:16:u4")
    assert flags == [(16, False), (4, True), (4, True)]
    assert inner.skip is False


def test_ngram_and_draft_models_have_only_the_targets_graphs(gpu: Any) -> None:
    import importlib

    package = "vllm.v1.worker.gpu.spec_decode"
    names = {(0, 31): [("draft_model", "PlainDraftModelSpeculator")]}.get(
        AT, [("ngram", "NgramGPUSpeculator"), ("standalone_ar", "StandaloneARSpeculator")]
    )
    for folder, kind in names:
        runner = bed.make_draft_runner(bed.make_draft_config(3, sizes=SIZES), gpu)
        cls = getattr(importlib.import_module(f"{package}.{folder}.speculator"), kind)
        runner.speculator = cls.__new__(cls)
        wrapper = bed.Wrapper(runner)
        facts = rank.describe(wrapper)
        assert {g.uniform for g in facts["graphs"] if g.kind == "FULL"} == {4}
        assert all(g.draft_layers == 0 for g in facts["graphs"])
        rank.prepare(wrapper, ["FULL:32:u4"], False)
        wrapper.compile_or_warm_up_model()
        rank.finish_start(wrapper)
        assert runner.cudagraph_manager.dispatch(8, 32, 4, 0).cg_mode.name == "FULL"
        assert runner.cudagraph_manager.dispatch(8, 32, None, 0).cg_mode.name == "NONE"
        assert "error" not in rank.capture(wrapper, "FULL:8:u4")
        assert runner.cudagraph_manager.dispatch(2, 8, 4, 0).num_tokens == 8


def test_what_is_not_known_of_drafts_runs_as_stock(gpu: Any) -> None:
    runner = bed.make_draft_runner(bed.make_draft_config(3, sizes=SIZES), gpu)
    wrapper, spec = bed.Wrapper(runner), runner.speculator
    assert "unsupported" not in rank.describe(wrapper)

    def reason() -> str:
        return str(rank.describe(wrapper).get("unsupported"))

    class Other(type(spec)):  # type: ignore[misc]
        pass

    runner.speculator = Other.__new__(Other)
    assert reason() == "not supported: speculative decoding by vLLM's Other"
    runner.speculator = spec
    runner.adaptive_verification = object()
    assert reason() == "not supported: adaptive verification"
    runner.adaptive_verification = None
    lists = spec.prefill_cudagraph_manager._capture_descs
    (full,) = (mode for mode in lists if mode.name == "FULL")
    kept = lists[full]
    lists[full] = kept[1:]
    assert reason() == "this vLLM plans other graphs for the drafter than for its target"
    lists[full] = kept
    del spec.last_token_indices
    assert reason() == "this vLLM's EagleSpeculator lacks last_token_indices"


def test_leaving_an_engine_to_vllm_leaves_the_drafter_too(gpu: Any) -> None:
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES)
    managers = pairs(wrapper).drafter.managers.values()
    assert all(hasattr(m, "lazygraph_capture") for m in managers)
    rank.step_aside(wrapper)
    for manager in managers:
        assert not hasattr(manager, "lazygraph_capture")
        assert not hasattr(manager, "lazygraph_dispatch")


def test_the_plan_is_known_before_there_is_a_manager(gpu: Any) -> None:
    from lazygraph_vllm.rank.sizing import _planned
    from lazygraph_vllm.vllm import preflight

    wrapper = bed.start_with_drafts(gpu, sizes=SIZES)
    runner = wrapper.worker.model_runner
    adapter = runner.lazygraph.state.adapter
    manager = runner.speculator.prefill_cudagraph_manager
    runner.speculator.prefill_cudagraph_manager = None
    early = {g.id: g for g in _planned(adapter, runner)}
    assert early == {g.id: g for g in wrapper.graphs}
    assert runner.speculator.prefill_cudagraph_manager is None
    runner.speculator.prefill_cudagraph_manager = manager
    counted = preflight.planned(runner.vllm_config)
    assert counted == {
        kind: sum(g.kind == kind for g in wrapper.graphs) for kind in ("FULL", "PIECEWISE")
    }


def test_where_memory_is_tight_a_pairs_own_need_is_looked_at(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.rank.guard import StartGuard

    asked: dict[str, int] = {}
    shortage = StartGuard.shortage

    def noting(self: Any, graph: Any, captured: Any) -> Any:
        asked[graph.id] = graph.draft_layers
        return shortage(self, graph, captured)

    monkeypatch.setattr(StartGuard, "shortage", noting)
    first = ["FULL:32:u4", "PIECEWISE:32"]
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=first, guard_margin=1 << 20)
    expected = {g.id: g.draft_layers for g in wrapper.graphs if g.id in first}
    assert asked == expected and all(expected.values())
    assert captured(wrapper) == set(first)


def test_layers_that_a_drafter_reads_are_verified_with_their_target(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.replays(monkeypatch)
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["PIECEWISE:32"], verify=True, aux=True)
    runner = wrapper.worker.model_runner
    state, manager = runner.lazygraph.state, runner.cudagraph_manager
    assert state.verified == {"PIECEWISE:32": 0.0}
    assert len(manager.aux_hidden_states) == 2
    assert rank.capture(wrapper, "FULL:16:u4")["mismatch"] is None
    # A planted fault: the second layer's is another one.
    capturer, desc = runner.lazygraph.capturer, state.descs["FULL:16:u4"]
    right = manager.graphs[desc].forward

    def wrong(mode: Any) -> None:
        right(mode)
        manager.aux_hidden_states[1][3] += 100

    manager.graphs[desc].forward = wrong
    capturer._verify("FULL:16:u4")
    assert state.mismatched["FULL:16:u4"] > 0.02


def test_without_room_for_the_largest_run_a_small_one_sizes_what_a_drafter_reads(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.rank.guard import StartGuard

    monkeypatch.setattr(StartGuard, "can_run", lambda *_: False)
    first = ["FULL:16:u4", "FULL:32:u4", "PIECEWISE:32"]
    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=first, guard_margin=1 << 20, aux=True)
    manager = wrapper.worker.model_runner.cudagraph_manager
    assert [len(each) for each in (manager.hidden_states, *manager.aux_hidden_states)] == [32] * 3
    assert captured(wrapper) == set(first)


@pytest.mark.parametrize(("is_decode", "uniform"), [(True, 4), (False, 0)])
def test_a_prompt_as_long_as_a_decode_step_is_counted_as_none(
    gpu: Any, is_decode: bool, uniform: int
) -> None:
    """Else its controller would wonder why a graph for decode steps did not serve it."""
    from builders import step
    from lazygraph_vllm.rank.steps import watch_steps

    wrapper = bed.start_with_drafts(gpu, sizes=SIZES, first=["FULL:32:u4", "PIECEWISE:32"])
    runner = wrapper.worker.model_runner

    def execute(_: Any, **__: Any) -> None:
        bed.draft_step(runner, [4], is_decode)

    runner.execute_model, runner.sample_tokens = execute, lambda *_: None
    watch_steps(runner, runner.lazygraph.dispatch)
    runner.execute_model(step(4))
    runner.sample_tokens(None)
    taken, _ = rank.drain_steps(wrapper)
    served = "FULL:32:u4" if is_decode else "PIECEWISE:32"
    assert [(s.tokens, s.requests, s.uniform, s.served) for s in taken] == [(4, 1, uniform, served)]
