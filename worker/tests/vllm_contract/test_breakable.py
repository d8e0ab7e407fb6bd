"""Breakable graphs: captured one by one, right, freed as a whole, nothing left of half of one."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

from vllm_facts import BREAKS_BY_NEED, WARMS_UP_SEPARATELY  # noqa: E402

if not WARMS_UP_SEPARATELY:
    pytest.skip("breakable graphs are left to vLLM here", allow_module_level=True)

import breakable_bed as bed  # noqa: E402
from breakable_bed import PARTS, entries, rows, start, ungraphed  # noqa: E402
from builders import Wrapper, step, wrong_dispatches  # noqa: E402
from cuda_stand_in import MIB, POOL  # noqa: E402
from lazygraph_vllm.rank import calls as rank  # noqa: E402
from lazygraph_vllm.vllm.allowed import BREAKABLE, TRIED  # noqa: E402
from lazygraph_vllm_testing.faults import _kill  # noqa: E402

MODES = ("PIECEWISE", "FULL_AND_PIECEWISE")
STEPS = [(1,), (1, 1), (3, 1), (1,) * 8, (5,), (12, 1, 1), (16,), (7, 7), (40,), (2, 2)]


@pytest.fixture(autouse=True)
def on(gpu: Any, pristine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.install(gpu, monkeypatch)


def runner_of(wrapper: Any) -> Any:
    return wrapper.worker.model_runner


def served(runner: Any) -> str:
    return str(runner.lazygraph.dispatch.last_served)


def wrong_steps(runner: Any) -> list[tuple[tuple[int, ...], str]]:
    """Steps whose numbers are others than without any graph, and what served them."""
    import torch

    wrong = []
    for lengths in STEPS:
        got, by = rows(runner, *lengths), served(runner)
        with ungraphed(runner):
            expected = rows(runner, *lengths)
        if not torch.equal(got, expected):
            wrong.append((lengths, by))
    return wrong


def missing(wrapper: Any) -> list[str]:
    held = runner_of(wrapper).lazygraph.state.captured
    return [g.id for g in wrapper.graphs if g.id not in held]


# ------------------------------------------------------------------ right numbers


@pytest.mark.parametrize("mode", MODES)
def test_every_step_is_as_without_graphs_whatever_is_captured(mode: str) -> None:
    wrapper = start(mode)
    runner = runner_of(wrapper)
    left = missing(wrapper)
    random.Random(mode).shuffle(left)
    graphed = set()
    for name in [None, *left]:
        assert name is None or "error" not in rank.capture(wrapper, name)
        assert wrong_steps(runner) == []
        for lengths in STEPS:
            rows(runner, *lengths)
            graphed.add(served(runner))
    kinds = {name.split(":")[0] for name in graphed if name}
    assert kinds == {g.kind for g in wrapper.graphs}, "graphs of each kind have served"
    assert "" in graphed, "and some step had none"


def test_a_recorded_attention_is_found_by_the_same_steps() -> None:
    """Positive control: what to 0.32 happens where the switch comes after vLLM's import."""
    wrapper = Wrapper(bed.make_runner(bed.make_config(), breaks=lambda attention: attention))
    rank.describe(wrapper)
    rank.prepare(wrapper, ["PIECEWISE:16", "FULL:8"], False, (), None)
    wrapper.compile_or_warm_up_model()
    rank.finish_start(wrapper)
    assert [lengths for lengths, _ in wrong_steps(runner_of(wrapper))] == [
        lengths for lengths in STEPS if max(lengths) > 1 and sum(lengths) <= 16
    ]


def test_a_step_calls_attention_and_replays_what_is_between(gpu: Any) -> None:
    runner = runner_of(start())
    runner.model.attended.clear()
    gpu.replayed.clear()
    rows(runner, 3, 1)
    assert served(runner) == "PIECEWISE:16"
    assert runner.model.attended == list(range(bed.LAYERS))
    assert len(gpu.replayed) == PARTS


def test_a_step_without_its_graph_is_vllms_own_and_captures_nothing(gpu: Any) -> None:
    runner = runner_of(start(first=[]))
    begun = gpu.count("begin")
    rows(runner, 3, 1)
    assert served(runner) == "" and runner.model.ran[-1] == 4
    assert gpu.count("begin") == begun and entries(runner) == {}


def test_nobody_captures_in_a_step_behind_our_back() -> None:
    from vllm.forward_context import BatchDescriptor, set_forward_context

    runner = runner_of(start(first=[]))
    mode = type(next(iter(runner.lazygraph.state.descs.values())).cg_mode)
    batch = BatchDescriptor(num_tokens=4)
    with (
        set_forward_context(
            {}, runner.vllm_config, 4, cudagraph_runtime_mode=mode.PIECEWISE, batch_descriptor=batch
        ),
        pytest.raises(RuntimeError, match="[Cc]apturing"),
    ):
        runner.cudagraph_manager.run_pw_graph(runner.model, {})


# ------------------------------------------------------------------ checked, and found out


@pytest.mark.parametrize("mode", MODES)
def test_each_first_replay_is_checked_against_an_ungraphed_run(mode: str) -> None:
    wrapper = start(mode, verify=True)
    for name in missing(wrapper):
        assert rank.capture(wrapper, name)["mismatch"] is None
    state = runner_of(wrapper).lazygraph.state
    assert state.verified == dict.fromkeys((g.id for g in wrapper.graphs), 0.0)


@pytest.mark.parametrize("name", ["PIECEWISE:8", "PIECEWISE:1", "FULL:4"])
def test_a_graph_with_one_dead_part_is_found(name: str) -> None:
    """Positive control, by the fault that a GPU's check injects."""
    wrapper = start(verify=True)
    capturer = runner_of(wrapper).lazygraph.capturer
    verify = capturer._verify

    def with_fault(graph: str) -> None:
        _kill(capturer._state, graph)
        verify(graph)

    capturer._verify = with_fault
    mismatch = rank.capture(wrapper, name)["mismatch"]
    assert mismatch is not None and not mismatch <= 0.02, "far off, or no number"
    capturer._verify = verify
    assert rank.capture(wrapper, "PIECEWISE:2")["mismatch"] is None


# ------------------------------------------------------------------ memory


def test_all_that_a_graph_took_is_counted() -> None:
    wrapper = start()
    assert rank.capture(wrapper, "PIECEWISE:4")["captured"].bytes == PARTS * MIB
    assert rank.capture(wrapper, "FULL:4")["captured"].bytes == MIB


def test_a_purged_graph_is_gone_with_all_its_parts_and_what_it_holds(gpu: Any) -> None:
    wrapper = start()
    runner = runner_of(wrapper)
    before = gpu.graphs_in(POOL)
    rank.capture(wrapper, "PIECEWISE:4")
    assert gpu.graphs_in(POOL) == before + PARTS, "positive control"
    recorded = weakref.ref(entries(runner)[4].capture)
    assert recorded() is not None
    rank.purge(wrapper, {"PIECEWISE:4": "a test"})
    gc.collect()
    assert recorded() is None and sorted(entries(runner)) == [16]
    assert gpu.graphs_in(POOL) == before
    assert wrong_steps(runner) == []


def test_what_was_dropped_is_captured_again_and_right(gpu: Any) -> None:
    wrapper = start()
    runner = runner_of(wrapper)
    for name in missing(wrapper):
        rank.capture(wrapper, name)
    rank.drop_all(wrapper)
    gc.collect()
    assert entries(runner) == {} and gpu.graphs_in(POOL) == 0
    assert wrong_steps(runner) == []
    for name in missing(wrapper):
        assert "error" not in rank.capture(wrapper, name)
        assert wrong_steps(runner) == []
    assert sorted(entries(runner)) == [1, 2, 4, 8, 16]


def test_a_tier_gives_its_memory_back_and_gets_a_new_pool(gpu: Any) -> None:
    small = ("PIECEWISE:2", "FULL:2", "PIECEWISE:1", "FULL:1")
    large = ("PIECEWISE:16", "PIECEWISE:8", "FULL:8")
    wrapper = start(first=["PIECEWISE:16", "FULL:8", "PIECEWISE:2"], tiers=(small, large))
    runner = runner_of(wrapper)
    begun = [event[2] for event in gpu.events if event[0] == "begin"]
    assert len(set(begun)) == 2 and POOL not in begun
    freed = rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))["freed"]
    assert freed == (PARTS + 1) * MIB
    assert sorted(entries(runner)) == [2] and wrong_steps(runner) == []
    assert "error" not in rank.capture(wrapper, "PIECEWISE:8")
    assert sorted(entries(runner)) == [2, 8]
    pools = {event[2] for event in gpu.events if event[0] == "begin"}
    assert len(pools) == 3, "the new one is another"
    assert wrong_steps(runner) == []


def test_wrappers_of_both_classes_are_captured_into_a_tier_and_forgotten() -> None:
    """A model of several modules tells their runs apart by a key of its own (from 0.33 on)."""
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper, _BreakableEntry
    from vllm.compilation.cuda_graph import CUDAGraphEntry, CUDAGraphWrapper
    from vllm.forward_context import BatchDescriptor

    wrapper = start()
    runner = runner_of(wrapper)
    state, config = runner.lazygraph.state, runner.vllm_config
    other = BreakableCUDAGraphWrapper(lambda: None, config)
    compiled = CUDAGraphWrapper(
        lambda: None, config, state.descs["PIECEWISE:4"].cg_mode, _options()
    )
    for tokens in (4, 8):
        batch = BatchDescriptor(num_tokens=tokens)
        for key in (batch, (batch, 1)):
            other.entries[key] = _BreakableEntry(batch)
        compiled.concrete_cudagraph_entries[batch] = CUDAGraphEntry(batch)
    with state.pools.use(0):
        assert other.graph_pool == compiled.graph_pool == state.manager.pool != POOL
    rank.capture(wrapper, "PIECEWISE:4")
    rank.purge(wrapper, {"PIECEWISE:4": "a test"})
    assert {getattr(key, "num_tokens", 8) for key in other.entries} == {8}
    assert len(other.entries) == 2 and len(compiled.concrete_cudagraph_entries) == 1


def _options() -> Any:
    from vllm.compilation.cuda_graph import CUDAGraphOptions

    return CUDAGraphOptions(debug_log_enable=False, gc_disable=True, weak_ref_output=False)


# ------------------------------------------------------------------ half a capture


def fail_in(where: str, runner: Any, gpu: Any) -> None:
    if where == "a layer":
        runner.model.fail_in_layer = 1
    elif where == "attention":
        runner.model.fail_in_attention = 1
    else:
        gpu.fail_at_begin = 0 if where == "the first part" else PARTS - 2
        gpu.fail_with = "CUDA error: failed"


WHERE = ["a layer", "attention", "the first part", "a later part"]


@pytest.mark.parametrize("where", WHERE)
def test_nothing_is_left_of_half_a_capture(gpu: Any, where: str) -> None:
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphCapture

    wrapper = start()
    runner = runner_of(wrapper)
    alive, before = gpu.graphs_in(POOL), rank.preflight(wrapper, "FULL:1", 1)["hash"]
    # Its kernels have run before: only the capture is to fail.
    runner.lazygraph.capturer._ran.add(("PIECEWISE", 4, 0))
    fail_in(where, runner, gpu)
    answer = rank.capture(wrapper, "PIECEWISE:4")
    assert "failed" in answer["error"] and answer["hash"] == before
    runner.model.fail_in_layer = runner.model.fail_in_attention = None
    assert BreakableCUDAGraphCapture.current() is None
    assert gpu.capturing is None
    gc.collect()
    assert sorted(entries(runner)) == [16] and gpu.graphs_in(POOL) == alive
    assert wrong_steps(runner) == []
    assert "error" not in rank.capture(wrapper, "PIECEWISE:8"), "others go on"
    assert "error" not in rank.capture(wrapper, "FULL:4")
    assert wrong_steps(runner) == []


def test_without_our_end_a_failed_begin_stops_every_other_capture(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: vLLM's own state of a recording outlives a failure of its beginning."""
    import contextlib

    from lazygraph_vllm.vllm import breakable

    wrapper = start()
    monkeypatch.setattr(breakable, "none_left_open", contextlib.nullcontext)
    fail_in("the first part", runner_of(wrapper), gpu)
    assert "failed" in rank.capture(wrapper, "PIECEWISE:4")["error"]
    assert "Nested" in rank.capture(wrapper, "PIECEWISE:8")["error"]


# ------------------------------------------------------------------ warm-up and caches


def test_each_runs_once_before_it_is_captured_and_a_full_one_for_both() -> None:
    wrapper = start()
    runner = runner_of(wrapper)
    for name, runs in (
        ("PIECEWISE:4", 2),  # a warm-up, and the capture
        ("FULL:4", 2),  # with attention besides
        ("FULL:2", 2),
        ("PIECEWISE:2", 1),
    ):
        runner.model.ran.clear()
        assert "error" not in rank.capture(wrapper, name)
        assert runner.model.ran == [int(name.split(":")[1])] * runs, name


def test_the_tops_need_no_run_but_the_common_one(gpu: Any) -> None:
    runner = runner_of(start())
    # The warm-ups of the largest of each kind, then both captures.
    assert sorted(runner.model.ran) == [8, 8, 16, 16]
    assert gpu.count("begin") == PARTS + 1


def test_between_steps_no_cache_is_emptied(gpu: Any) -> None:
    wrapper = start()
    gpu.events.clear()
    for name in missing(wrapper):
        rank.capture(wrapper, name)
    assert not {"flush", "host-flush", "start flush"} & set(gpu.names())


def test_where_memory_is_tight_each_capture_empties_it_first(gpu: Any) -> None:
    start(first=["PIECEWISE:16", "PIECEWISE:8"], guard_margin=0)
    names = [name for name in gpu.names() if name in ("flush", "begin")]
    firsts = [i for i, name in enumerate(names) if name == "begin" and names[i - 1] == "flush"]
    assert len(firsts) == 2 and names.count("begin") == 2 * PARTS


# ------------------------------------------------------------------ what is left to vLLM


def unsupported(runner: Any) -> str | None:
    reason: str | None = rank.describe(Wrapper(runner)).get("unsupported")
    return reason


def test_graphs_that_are_all_full_are_captured_as_ever() -> None:
    wrapper = start("FULL_DECODE_ONLY")
    assert not runner_of(wrapper).cudagraph_manager.use_breakable_cg
    assert wrong_dispatches(runner_of(wrapper), runner_of(wrapper).cudagraph_manager.dispatch) == []


def test_a_switch_that_came_after_vllms_import_is_refused(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unsupported(bed.make_runner(bed.make_config())) is None
    bed.install(gpu, monkeypatch, breaks=False)
    assert unsupported(bed.make_runner(bed.make_config())) == (
        "not supported: breakable CUDA graphs that were turned on after vLLM's import"
    )


def test_vllms_own_attention_breaks_where_the_switch_is_looked_at_late() -> None:
    """Nothing decorated by us: to 0.32 the switch is read on import, where it was off here."""
    assert bed.imported_with_breaks() is BREAKS_BY_NEED


def test_graphs_inside_of_a_model_are_left_to_vllm() -> None:
    class State:
        def capture_inner_cudagraphs(self, *_: Any) -> None: ...

    runner = bed.make_runner(bed.make_config())
    state, runner.model_state = runner.model_state, State()
    assert "models with CUDA graphs inside" in str(unsupported(runner))
    runner.model_state = state
    assert unsupported(runner) is None


def test_steps_are_counted_by_the_graph_that_served_them() -> None:
    wrapper = start()
    wrapper.execute_model(step(3, 1))
    wrapper.sample_tokens(None)
    steps, _ = rank.drain_steps(wrapper)
    assert [(s.tokens, s.requests, s.served) for s in steps] == [(4, 2, "PIECEWISE:16")]


# ------------------------------------------------------------------ an engine


@pytest.fixture
def breakable_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``serving`` starts has breakable graphs."""
    import builders

    monkeypatch.setattr(builders, "make_config", bed.make_config)
    monkeypatch.setattr(builders, "make_runner", bed.make_runner)


@pytest.mark.usefixtures("breakable_engine")
def test_an_idle_engine_fills_them_and_serves_from_them(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.protocol.messages import Capture, Inventory, Ready, Result

    monkeypatch.setenv("LAZYGRAPH_ALLOW_UNTESTED", "1")
    monkeypatch.setenv("LAZYGRAPH_VERIFY", "1")
    engine = serving()
    inventory = controller.wait_for(Inventory)
    controller.wait_for(Ready)
    held = engine.runner.lazygraph.state.captured
    assert set(held) == {"PIECEWISE:16", "FULL:8"}
    for number, graph in enumerate(g for g in inventory.graphs if g.id not in held):
        controller.send(Capture(command=number + 1, graph=graph.id, when_idle=False))
        result = controller.wait_for(Result, 10, lambda m, n=number: m.command == n + 1)
        assert result.outcome == "captured", result.reason
    assert engine.error is None and wrong_steps(engine.runner) == []


@pytest.mark.usefixtures("breakable_engine")
def test_where_no_gpu_has_shown_them_an_engine_runs_as_stock(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.protocol.messages import Inventory

    for version, tried in list(TRIED.items()):
        fewer = replace(tried, traits=tried.traits - {BREAKABLE}, alone=tried.alone - {BREAKABLE})
        monkeypatch.setitem(TRIED, version, fewer)
    engine = serving()
    inventory = controller.wait_for(Inventory)
    assert inventory.phase == "stock" and "breakable CUDA graphs" in inventory.unsupported
    assert sorted(entries(engine.runner)) == [1, 2, 4, 8, 16], "vLLM captured all of them itself"
