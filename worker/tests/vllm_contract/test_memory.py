"""Pools, tiers, reservations and running out of memory, with vLLM's own managers and wrappers."""

from __future__ import annotations

import contextlib
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from builders import Wrapper, make_config, make_runner, start, step, wrong_dispatches
from cuda_stand_in import MIB, POOL, Group
from lazygraph_vllm.protocol.messages import Dispatch, DispatchRow
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.rank import memory, sizing
from lazygraph_vllm.vllm.choose import current
from lazygraph_vllm.vllm.v26 import V26
from lazygraph_vllm.vllm.v31 import V31
from vllm_facts import (
    COUNTS_ALL_MEMORY,
    FULL_ON_CONTEXT_STREAM,
    PROFILES_BY_CAPTURING,
)

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

SMALL = ("PIECEWISE:2", "FULL:2", "PIECEWISE:1", "FULL:1")
LARGE = ("PIECEWISE:16", "PIECEWISE:8", "FULL:8")
TIERS = (SMALL, LARGE)
FIRST = ["PIECEWISE:16", "FULL:8", "PIECEWISE:2", "FULL:2"]


def begun(gpu: Any) -> list[Any]:
    """The pools of all captures so far, without repetition."""
    return list(dict.fromkeys(event[2] for event in gpu.events if event[0] == "begin"))


def held(wrapper: Any) -> list[str]:
    return sorted(wrapper.worker.model_runner.lazygraph.state.captured)


def torch_graph() -> Any:
    import torch

    return torch.cuda.CUDAGraph


# ------------------------------------------------------------------ pools


def test_by_default_every_capture_goes_into_vllms_pool(gpu: Any) -> None:
    wrapper, _ = start()
    rank.capture(wrapper, "FULL:2")
    rank.capture(wrapper, "PIECEWISE:2")
    assert begun(gpu) == [POOL] and gpu.pools_made == 0


def test_each_tier_has_a_pool_of_its_own_and_others_the_default(gpu: Any) -> None:
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    wrapper, answer = start(first=FIRST, tiers=TIERS)
    runner = wrapper.worker.model_runner
    assert {c.graph for c in answer["captured"]} == set(FIRST)
    large, small = begun(gpu)
    assert POOL not in (large, small)
    # PIECEWISE:16 has three pieces, FULL:8 one: the same pool for both kinds.
    assert (gpu.pools[large], gpu.pools[small]) == (4 * MIB, 4 * MIB)
    rank.capture(wrapper, "FULL:1")
    rank.capture(wrapper, "PIECEWISE:4")
    assert gpu.pools[small] == 5 * MIB and gpu.pools[POOL] == 3 * MIB
    assert runner.cudagraph_manager.pool == POOL, "outside captures nothing is changed"
    assert {w.graph_pool for w in CUDAGraphWrapper._all_instances} == {POOL}
    assert rank.rank_memory(wrapper).pool_bytes == 12 * MIB
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []


def test_a_tiers_workspace_is_made_outside_its_pool(gpu: Any, monkeypatch: Any) -> None:
    import torch

    linear = torch.nn.functional.linear
    ran: list[Any] = []
    record = lambda *a: ran.append((gpu.current.name, gpu.capturing)) or linear(*a)  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "linear", record)
    start(first=FIRST, tiers=TIERS)
    streams = {event[1].name for event in gpu.events if event[0] == "begin"}
    assert len(streams) == (1 if FULL_ON_CONTEXT_STREAM else 2)
    assert {name for name, _ in ran} == streams and len(ran) == len(streams)
    assert all(capturing is None for _, capturing in ran)
    ran.clear()
    start()
    assert ran == [], "without tiers nothing is done"


def test_custom_all_reduce_shares_nothing_of_a_tier(gpu: Any, monkeypatch: Any) -> None:
    calls: list[bool] = []

    class Custom:
        def all_reduce(self, inp: Any, *, out: Any = None, registered: bool = False) -> Any:
            calls.append(registered)
            return inp

    custom = Custom()
    group = Group(gpu, "tp")
    group.device_communicator = SimpleNamespace(ca_comm=custom)
    monkeypatch.setattr("vllm.distributed.parallel_state.get_tp_group", lambda: group)
    wrapper, _ = start(tiers=TIERS)
    model = wrapper.worker.model_runner.model
    piece = model.pieces[0].runnable
    model.pieces[0].runnable = lambda x: custom.all_reduce(piece(x), registered=True)
    rank.capture(wrapper, "PIECEWISE:2")
    assert calls == [False], "in a tier: by copy"
    rank.capture(wrapper, "PIECEWISE:4")
    assert calls == [False, True], "in the default pool: as vLLM does"


@pytest.mark.parametrize("sign", [1, -1], ids=["takes", "gives back"])
@pytest.mark.parametrize("graph", ["FULL:2", "PIECEWISE:2"])
def test_what_a_stranger_takes_during_a_capture_is_no_graphs(
    graph: str, sign: int, gpu: Any, monkeypatch: Any, caplog: Any
) -> None:
    wrapper, _ = start()
    model = wrapper.worker.model_runner.model
    forward = type(model).__call__

    def meanwhile(self: Any, *args: Any, **kwargs: Any) -> Any:
        if gpu.capturing is not None or graph.startswith("PIECEWISE"):
            monkeypatch.setattr(type(model), "__call__", forward)
            gpu.free_bytes -= sign * 1000 * MIB
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "__call__", meanwhile)
    free = gpu.free_bytes
    captured = rank.capture(wrapper, graph)["captured"]
    assert abs(free - gpu.free_bytes) > 900 * MIB, "the stranger was there"
    assert MIB <= captured.bytes < 10 * MIB, "its pool's growth and a typical graph"
    assert f"while {graph} was captured" in caplog.text and "somebody else's" in caplog.text
    caplog.clear()
    later = rank.capture(wrapper, graph.replace("2", "1"))["captured"]
    assert later.bytes < 10 * MIB and "somebody" not in caplog.text


def test_driver_memory_within_reason_is_the_graphs_own(gpu: Any, monkeypatch: Any) -> None:
    wrapper, _ = start()
    begin = torch_graph().capture_begin

    def dear(self: Any, *args: Any, **kwargs: Any) -> None:
        gpu.free_bytes -= 100 * MIB
        begin(self, *args, **kwargs)

    monkeypatch.setattr(torch_graph(), "capture_begin", dear)
    assert rank.capture(wrapper, "FULL:2")["captured"].bytes == 101 * MIB


# ------------------------------------------------------------------ drop


def test_a_dropped_tier_gives_its_memory_back_and_no_other(gpu: Any) -> None:
    wrapper, _ = start(first=FIRST, tiers=TIERS)
    runner = wrapper.worker.model_runner
    free, epoch = gpu.free_bytes, runner.lazygraph.state.epoch
    flushes = gpu.count("flush")
    answer = rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))
    assert answer["freed"] == 4 * MIB and gpu.free_bytes == free + 4 * MIB
    assert answer["memory"].pool_bytes == 4 * MIB
    assert gpu.count("flush") == flushes, "serving's cached blocks stay where they are"
    assert answer["epoch"] > epoch and answer["hash"] == runner.lazygraph.state.hash()
    assert held(wrapper) == ["FULL:2", "PIECEWISE:2"]
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []
    assert runner.cudagraph_manager.dispatch(8, 8, 1, 0).cg_mode.name == "NONE"
    assert runner.cudagraph_manager.dispatch(2, 2, 1, 0).num_tokens == 2


def test_the_device_is_waited_for_before_a_graph_goes(gpu: Any) -> None:
    wrapper, _ = start(first=FIRST, tiers=TIERS)
    gpu.events.clear()
    rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))
    names = gpu.names()
    assert names.index("sync") < names.index("pool gone")
    assert all(graphs == 0 for name, _, graphs in gpu.events[1:-1] if name == "pool gone")


def test_dropped_graphs_are_captured_again_into_a_new_pool(gpu: Any) -> None:
    wrapper, _ = start(first=FIRST, tiers=TIERS)
    runner = wrapper.worker.model_runner
    before = begun(gpu)
    rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))
    for graph in ("FULL:8", "PIECEWISE:8"):
        assert "error" not in rank.capture(wrapper, graph)
    assert len(begun(gpu)) == 3 and begun(gpu)[2] not in before
    assert runner.cudagraph_manager.dispatch(8, 8, 1, 0).num_tokens == 8
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []


def test_without_a_new_pool_the_allocators_assertion_fails(gpu: Any) -> None:
    """Positive control: what the new pool is for."""
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    for graph in held(wrapper):
        runner.lazygraph.state.purge(graph)
    assert "INTERNAL ASSERT" in rank.capture(wrapper, "FULL:2")["error"]


def test_a_purge_that_empties_vllms_pool_leaves_a_new_one_for_the_next_capture(gpu: Any) -> None:
    wrapper, _ = start()
    rank.purge(wrapper, dict.fromkeys(held(wrapper), "a test"))
    assert "error" not in rank.capture(wrapper, "FULL:2")
    assert begun(gpu)[0] == POOL and begun(gpu)[-1] != POOL


def test_the_controllers_table_holds_without_what_was_dropped(gpu: Any) -> None:
    wrapper, _ = start(first=FIRST, tiers=TIERS)
    runner = wrapper.worker.model_runner
    rows = (
        DispatchRow(up_to=1, graphs=("FULL:8", "FULL:2")),
        DispatchRow(up_to=8, graphs=("FULL:8",)),
    )
    assert rank.set_table(wrapper, Dispatch(uniform=rows, mixed=())) is None
    assert runner.cudagraph_manager.dispatch(1, 1, 1, 0).num_tokens == 8
    rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))
    assert runner.cudagraph_manager.dispatch(1, 1, 1, 0).num_tokens == 2
    # Our own rule would take PIECEWISE:2 here: the table is still the controller's.
    assert runner.cudagraph_manager.dispatch(2, 2, 1, 0).cg_mode.name == "NONE"


def test_a_graph_still_held_somewhere_keeps_its_memory_and_is_told(gpu: Any, caplog: Any) -> None:
    wrapper, _ = start(first=FIRST, tiers=TIERS)
    manager = wrapper.worker.model_runner.cudagraph_manager
    kept = [g for d, g in manager.graphs.items() if d.num_tokens == 8]
    answer = rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))
    assert kept and answer["freed"] == 0
    assert "still in use" in caplog.text


def test_a_reference_cycle_doesnt_keep_a_dropped_tier(gpu: Any) -> None:
    wrapper, _ = start(first=FIRST, tiers=TIERS)
    manager = wrapper.worker.model_runner.cudagraph_manager
    cycle: list[Any] = [g for d, g in manager.graphs.items() if d.num_tokens == 8]
    cycle.append(cycle)
    del cycle
    gc.disable()
    try:
        assert rank.drop(wrapper, ("PIECEWISE:16", "FULL:8"))["freed"] == 4 * MIB
    finally:
        gc.enable()


# ------------------------------------------------------------------ reservations


def test_a_reservation_is_held_until_the_capture_begins(gpu: Any) -> None:
    wrapper, _ = start()
    free = gpu.free_bytes
    assert rank.preflight(wrapper, "FULL:2", 0, 60 * MIB, 50 * MIB)["reason"] is None
    assert gpu.free_bytes == free - 50 * MIB
    gpu.events.clear()
    rank.capture(wrapper, "FULL:2")
    names = gpu.names()
    assert names.index("give back") < names.index("begin")
    assert gpu.free_bytes == free - MIB and gpu.driver_held == {}


def test_a_reservation_without_a_capture_is_given_back(gpu: Any) -> None:
    wrapper, _ = start()
    free = gpu.free_bytes
    rank.preflight(wrapper, "FULL:2", 0, 60 * MIB, 50 * MIB)
    rank.preflight(wrapper, "FULL:1", 0, 60 * MIB, 40 * MIB)
    assert gpu.free_bytes == free - 40 * MIB, "one at a time"
    rank.give_back(wrapper)
    rank.give_back(wrapper)
    assert gpu.free_bytes == free and gpu.driver_held == {}


def test_what_serving_needs_and_doesnt_hold_is_no_headroom(gpu: Any) -> None:
    wrapper, _ = start()
    gpu.free_bytes = (1 << 30) + 9 * MIB
    answer = rank.preflight(wrapper, "FULL:2", 0, 10 * MIB, MIB)
    reason = "headroom: 1033 MiB free, 1024 MiB of them for serving, 10 MiB needed"
    assert (answer["reason"], answer["short"]) == (reason, True)
    assert answer["memory"].free_bytes == gpu.free_bytes
    assert gpu.count("reserve") == 0
    gpu.cached_bytes = 300 * MIB  # the first full load has come: part of the peak is held
    answer = rank.preflight(wrapper, "FULL:2", 0, 10 * MIB, MIB)
    assert answer["reason"] is None
    assert rank.rank_memory(wrapper).activation_held_bytes == 300 * MIB


def test_with_plenty_of_memory_what_is_held_is_not_read(gpu: Any, monkeypatch: Any) -> None:
    """It is read while requests wait: only where it decides."""
    wrapper, _ = start()
    read: list[Any] = []
    monkeypatch.setattr(memory, "pools_use", lambda pools: read.append(pools) or (0, 0))
    assert rank.preflight(wrapper, "FULL:2", 0, 60 * MIB, 50 * MIB)["reason"] is None
    assert read == []
    gpu.free_bytes = 1 << 30
    assert rank.preflight(wrapper, "FULL:2", 0, 60 * MIB, 50 * MIB)["short"]
    assert read != []


def test_a_device_that_doesnt_give_what_it_shows_is_a_refusal(gpu: Any) -> None:
    wrapper, _ = start()
    gpu.driver_status = 2
    answer = rank.preflight(wrapper, "FULL:2", 0, 60 * MIB, 50 * MIB)
    assert answer["short"] and "the device doesn't give 50 MiB" in answer["reason"]
    # Another driver error is no proof of anything: the figures decide.
    gpu.driver_status = 201
    assert rank.preflight(wrapper, "FULL:2", 0, 60 * MIB, 50 * MIB)["reason"] is None


def test_free_blocks_of_graph_pools_are_no_activations(gpu: Any) -> None:
    wrapper, _ = start()
    assert gpu.pool_bytes == 4 * MIB
    assert rank.rank_memory(wrapper).activation_held_bytes == 0
    gpu.cached_bytes = 2 << 30
    assert rank.rank_memory(wrapper).activation_held_bytes == 1 << 30, "the peak at most"


# ------------------------------------------------------------------ torch's cache

PEAK = 1 << 30


def crowded(gpu: Any, free_mib: int, cached_mib: int, stuck_mib: int = 0) -> Any:
    """A rank whose allocator has grown into nearly all there was."""
    wrapper, _ = start()
    gpu.free_bytes, gpu.cached_bytes = free_mib * MIB, cached_mib * MIB
    gpu.stuck_bytes = stuck_mib * MIB
    gpu.events.clear()
    return wrapper


def look(wrapper: Any, need_mib: int = 10, beyond_mib: int = 600) -> dict[str, Any]:
    need = need_mib * MIB
    return rank.preflight(wrapper, "FULL:2", 0, need, need, need + beyond_mib * MIB)


def test_what_the_cache_holds_beyond_servings_needs_is_taken_back(gpu: Any, caplog: Any) -> None:
    wrapper = crowded(gpu, free_mib=4, cached_mib=1024 + 610)
    before = rank.rank_memory(wrapper)
    assert (before.cached_bytes, before.activation_held_bytes) == (1634 * MIB, PEAK)
    caplog.set_level("INFO")
    answer = look(wrapper)
    assert answer["reason"] is None and gpu.count("flush") == 1
    assert answer["memory"].cached_bytes == 0, "told also where another rank has no room"
    assert "emptied torch's cache for FULL:2: 1634 MiB came back" in caplog.text
    assert gpu.free_bytes == (4 + 1634 - 10) * MIB and gpu.cached_bytes == 0, "10 are reserved"
    assert "error" not in rank.capture(wrapper, "FULL:2")


@pytest.mark.parametrize(
    ("free_mib", "cached_mib", "flushed"), [(0, 1024 + 609, 0), (0, 1024 + 610, 1), (9, 0, 0)]
)
def test_serving_keeps_its_peak_and_what_it_takes_beyond(
    free_mib: int, cached_mib: int, flushed: int, gpu: Any
) -> None:
    answer = look(crowded(gpu, free_mib, cached_mib))
    assert gpu.count("flush") == flushed
    assert (answer["reason"] is None) == bool(flushed)
    assert answer.get("short", False) is not bool(flushed)


def test_with_enough_memory_the_cache_is_left_alone(gpu: Any) -> None:
    wrapper = crowded(gpu, free_mib=100, cached_mib=4000)
    assert look(wrapper)["reason"] is None and gpu.count("flush") == 0
    # Nobody said what serving must be left with: an older caller, or none that knows.
    gpu.free_bytes = 0
    assert rank.preflight(wrapper, "FULL:2", 0, MIB, MIB)["short"] and gpu.count("flush") == 0


def test_a_device_that_doesnt_give_what_it_shows_may_after_the_cache_is_empty(
    gpu: Any, monkeypatch: Any
) -> None:
    import torch

    wrapper = crowded(gpu, free_mib=100, cached_mib=4000)
    gpu.driver_status = 2

    def emptied() -> None:
        gpu.driver_status = 0
        gpu.empty_cache()

    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)
    assert look(wrapper)["reason"] is None and gpu.count("flush") == 1


def test_what_does_not_come_back_is_a_refusal_with_fresh_figures(gpu: Any) -> None:
    wrapper = crowded(gpu, free_mib=4, cached_mib=4000, stuck_mib=3995)
    answer = look(wrapper)
    assert gpu.count("flush") == 1 and gpu.driver_held == {}
    assert answer["short"] and "9 MiB free" in answer["reason"]
    assert answer["memory"].free_bytes == 9 * MIB
    assert answer["memory"].cached_bytes == 3995 * MIB


def test_the_cache_is_emptied_seldom(gpu: Any, monkeypatch: Any) -> None:
    now = [1000.0]
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    wrapper = crowded(gpu, free_mib=4, cached_mib=2000)
    assert look(wrapper)["reason"] is None
    for seconds, flushes, fine in ((9.9, 1, False), (0.1, 2, True)):
        rank.give_back(wrapper)
        now[0] += seconds
        gpu.free_bytes, gpu.cached_bytes = 4 * MIB, 2000 * MIB
        answer = look(wrapper)
        assert (gpu.count("flush"), answer["reason"] is None) == (flushes, fine)


# ------------------------------------------------------------------ running out of memory


@pytest.mark.parametrize("graph", ["PIECEWISE:8", "FULL:4"])
def test_out_of_memory_in_a_later_capture_may_be_tried_again(gpu: Any, graph: str) -> None:
    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    stream, free = gpu.current, gpu.free_bytes
    gpu.fail_at_begin = 1 if graph.startswith("PIECE") else 0
    answer = rank.capture(wrapper, graph)
    assert answer["short"] and "out of memory" in answer["error"]
    assert gpu.current is stream, "torch alone would leave its capture stream current"
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []
    assert gpu.graphs_in(POOL) == 4, "pieces captured before it are gone"
    assert gpu.free_bytes <= free
    assert rank.preflight(wrapper, graph, 1)["reason"] is None
    assert "error" not in rank.capture(wrapper, graph)


def test_out_of_memory_in_the_first_capture_of_a_pool_leaves_a_new_one(gpu: Any) -> None:
    wrapper, _ = start(first=[])
    gpu.fail_at_begin = 1
    assert rank.capture(wrapper, "PIECEWISE:16")["short"]
    assert "error" not in rank.capture(wrapper, "PIECEWISE:8")


@pytest.mark.parametrize("guard", [None, 0])
def test_out_of_memory_before_ready_is_survived_by_one_rank(gpu: Any, guard: int | None) -> None:
    first = ["PIECEWISE:16", "PIECEWISE:8", "PIECEWISE:4", "FULL:8", "FULL:4"]
    gpu.fail_at_begin = 4
    gpu.free_bytes = 40 << 30
    wrapper, answer = start(first=first, guard_margin=guard)
    assert answer["refused"] == {"PIECEWISE:8": "ran out of GPU memory while capturing PIECEWISE:8"}
    assert held(wrapper) == sorted(set(first) - {"PIECEWISE:8"})
    runner = wrapper.worker.model_runner
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []
    wrapper.execute_model(step(*[1] * 4))
    assert "error" not in rank.capture(wrapper, "PIECEWISE:8")


def test_another_failure_before_ready_ends_the_start_as_in_vllm(gpu: Any) -> None:
    gpu.fail_at_begin, gpu.fail_with = 1, "CUDA error: device-side assert"
    with pytest.raises(RuntimeError, match="device-side assert"):
        start()


def test_out_of_memory_before_ready_with_several_ranks_ends_the_start(gpu: Any) -> None:
    gpu.fail_at_begin = 1
    config = make_config()
    config.parallel_config.tensor_parallel_size = 2
    wrapper = Wrapper(make_runner(config))
    rank.describe(wrapper)
    rank.prepare(wrapper, ["PIECEWISE:16"], False)
    with pytest.raises(RuntimeError, match="out of memory"):
        wrapper.compile_or_warm_up_model()


def test_the_guard_leaves_out_what_does_not_fit_and_goes_on_with_the_next(gpu: Any) -> None:
    # Each graph is forecast at 2.4 MiB; the stand-in's PIECEWISE graphs take three.
    gpu.free_bytes = (1 << 30) + 12 * MIB
    first = ["PIECEWISE:16", "PIECEWISE:8", "PIECEWISE:4", "FULL:8", "FULL:4"]
    wrapper, answer = start(first=first, guard_margin=2 * MIB)
    assert [c.graph for c in answer["captured"]] == ["PIECEWISE:16", "PIECEWISE:8", "PIECEWISE:4"]
    assert sorted(answer["refused"]) == ["FULL:4", "FULL:8"]
    assert "the margin of 2 MiB" in answer["refused"]["FULL:8"]
    assert gpu.free_bytes >= (1 << 30) + 2 * MIB, "what serving needs is still there"
    runner = wrapper.worker.model_runner
    assert wrong_dispatches(runner, runner.cudagraph_manager.dispatch) == []


def test_the_guard_counts_a_pools_growth_once(gpu: Any, monkeypatch: Any) -> None:
    from lazygraph_vllm.protocol.messages import Graph
    from lazygraph_vllm.rules.forecast import Shape, need_bytes

    shape = Shape(layers=2, hidden=64, intermediate=128, heads=64, head_size=127, splits=32)
    monkeypatch.setattr(rank, "model_shape", lambda _: shape)
    top = need_bytes(Graph(id="FULL:8", kind="FULL", tokens=8), [], shape)
    assert top > 50 * MIB
    # Room for one pool of this kind, and after it for graphs that fit into it.
    gpu.free_bytes = (1 << 30) + int(top * 1.1) + 20 * MIB
    gpu.bytes_per_capture = 40 * MIB
    _, answer = start(first=["FULL:8", "FULL:4"], guard_margin=0)
    assert [c.graph for c in answer["captured"]] == ["FULL:8", "FULL:4"]
    gpu.free_bytes = (1 << 30) + int(top * 1.1) - 20 * MIB
    _, answer = start(first=["FULL:8"], guard_margin=0)
    assert list(answer["refused"]) == ["FULL:8"], "and not without it"


def test_without_the_guard_nothing_is_checked_before_ready(gpu: Any) -> None:
    start(first=["PIECEWISE:16", "FULL:8"])
    assert gpu.count("reserve") == 0


def test_all_ranks_leave_out_what_one_of_them_has_no_room_for(gpu: Any, monkeypatch: Any) -> None:
    import torch

    asked: list[bool] = []

    def all_reduce(flag: Any, _: Any, group: Any) -> None:
        asked.append(bool(flag.item()))
        if len(asked) == 4:  # warm-up, no workspace and PIECEWISE:16 are fine, PIECEWISE:8 isn't
            flag.zero_()

    group = Group(gpu, "tp")
    group.world_size, group.cpu_group = 2, object()
    monkeypatch.setattr("vllm.distributed.parallel_state.get_tp_group", lambda: group)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    wrapper, answer = start(first=["PIECEWISE:16", "PIECEWISE:8", "FULL:8"], guard_margin=0)
    assert asked == [True] * 6, "the last one: all have come to the end"
    assert list(answer["refused"]) == ["PIECEWISE:8"]
    assert held(wrapper) == ["FULL:8", "PIECEWISE:16"]


def test_no_room_for_the_warm_up_at_the_top_sizes_the_buffer_only(
    gpu: Any, monkeypatch: Any
) -> None:
    from lazygraph_vllm.rank import guard

    monkeypatch.setattr(guard.StartGuard, "can_run", lambda *_: False)
    wrapper, _ = start(first=["PIECEWISE:2", "FULL:2"], guard_margin=0)
    runner = wrapper.worker.model_runner
    assert runner.cudagraph_manager.hidden_states.shape == (16, 4)
    assert max(runner.model.ran) == 2, "nothing ran at 16 tokens"
    assert "error" not in rank.capture(wrapper, "FULL:8"), "a larger one later still fits"


# ------------------------------------------------------------------ reserve


def sizing_wrapper(config: Any = None, requested_gib: float = 90) -> Any:
    """A rank before its KV cache is sized: of 100 GiB free vLLM may use 90."""
    wrapper = Wrapper(make_runner(config or make_config()))
    wrapper.worker.init_snapshot = SimpleNamespace(free_memory=100 << 30, total_memory=100 << 30)
    wrapper.worker.requested_memory = int(requested_gib * (1 << 30))
    return wrapper


def sized(wrapper: Any, monkeypatch: Any, peak: int = 0, uncounted: int = 0) -> int:
    """vLLM's own sizing of the KV cache, with made-up measurements.

    Args:
        wrapper: a rank.
        monkeypatch: of the test.
        peak: what the profile run allocates.
        uncounted: what is allocated beside weights, from before that run on.
    """
    import torch
    from vllm.v1.worker import gpu_worker

    gib = 1 << 30
    now = 10 * gib + uncounted

    @contextlib.contextmanager
    def memory_profiling(*_: Any, **__: Any) -> Any:
        yield SimpleNamespace(
            non_torch_increase=0,
            weights_memory=10 * gib,
            before_profile=SimpleNamespace(torch_peak=now),
            after_profile=SimpleNamespace(free_memory=80 * gib),
            # From 0.27 on these, from what the device has free.
            total_consumed=now,
            transient_peak_headroom=peak,
            non_kv_cache_memory=now + peak,
        )

    monkeypatch.setattr(gpu_worker, "memory_profiling", memory_profiling)
    monkeypatch.setattr(gpu_worker, "maybe_apply_startup_plan", lambda _: None)
    monkeypatch.setattr(gpu_worker, "current_platform", SimpleNamespace(is_cuda_alike=lambda: True))
    stats = {"allocated_bytes.all.peak": now + peak, "allocated_bytes.all.current": now}
    monkeypatch.setattr(torch.accelerator, "memory_stats", lambda _: stats, raising=False)
    runner = wrapper.worker.model_runner
    runner.profile_run = lambda **_: None
    runner.model_memory_usage = 10 * gib
    wrapper.worker.model_runner = runner
    worker = gpu_worker.Worker.__new__(gpu_worker.Worker)
    worker.__dict__.update(
        model_runner=runner,
        vllm_config=runner.vllm_config,
        cache_config=runner.vllm_config.cache_config,
        device=runner.device,
        init_snapshot=wrapper.worker.init_snapshot,
        requested_memory=wrapper.worker.requested_memory,
        _reserve_mm_ipc_gpu_memory=lambda size: size,
        model_config=runner.vllm_config.model_config,
        parallel_config=runner.vllm_config.parallel_config,
        use_v2_model_runner=True,
        randomize_dummy_inputs=False,
        _scoped_allocator_max_split=lambda **_: contextlib.nullcontext(),
    )
    return worker.determine_available_memory()


@pytest.mark.skipif(PROFILES_BY_CAPTURING, reason="from 0.29 on vLLM captures to find it out")
def test_vllms_runner_of_this_version_reserves_nothing_by_itself(monkeypatch: Any) -> None:
    wrapper = sizing_wrapper()
    assert wrapper.worker.model_runner.profile_cudagraph_memory() == 0
    assert sized(wrapper, monkeypatch) == 80 << 30
    assert sizing.reserved(wrapper) is None


@pytest.mark.parametrize(("mode", "graphs"), [("top", 2), ("plan", 9)])
def test_vllm_takes_the_reservation_off_its_kv_cache(
    mode: str, graphs: int, monkeypatch: Any
) -> None:
    wrapper = sizing_wrapper()
    assert sizing.reserve(wrapper, mode, None, None) is None
    left = sized(wrapper, monkeypatch)
    answer = sizing.reserved(wrapper)
    assert answer is not None and (answer["graphs"], answer["serving_bytes"]) == (graphs, 0)
    assert left == (80 << 30) - answer["bytes"]
    assert answer["bytes"] > 16 * MIB and answer["kv_tokens"] == answer["bytes"] // 2048


@pytest.mark.parametrize(
    ("requested_gib", "peak_mib", "margin_mib", "serving_mib"),
    [
        (99, 0, None, 0),
        (99.75, 100, None, 0),  # small peaks want 256 MiB
        (99.75, 800, None, 480 - 256),
        (99.75, 4000, None, 1088 - 256),
        (99.75, 4000, 300, 300 - 256),
        (99.75, 4000, 0, 0),
    ],
)
def test_where_the_budget_leaves_too_little_outside_serving_gets_its_part_too(
    requested_gib: float, peak_mib: int, margin_mib: int | None, serving_mib: int, monkeypatch: Any
) -> None:
    wrapper = sizing_wrapper(requested_gib=requested_gib)
    margin = None if margin_mib is None else margin_mib * MIB
    assert sizing.reserve(wrapper, "plan", 123 * MIB, margin) is None
    left = sized(wrapper, monkeypatch, peak_mib * MIB)
    answer = sizing.reserved(wrapper)
    assert answer is not None
    assert (answer["bytes"], answer["serving_bytes"]) == (123 * MIB, serving_mib * MIB)
    kept = (123 + serving_mib) * MIB
    assert answer["kv_tokens"] == kept // 2048
    before = int((requested_gib - 10) * (1 << 30)) - peak_mib * MIB
    assert left == before - kept


@pytest.mark.parametrize(
    ("beside_mib", "before_mib", "margin_mib"),
    [
        (700, 0, None),
        # Of torch's at the first snapshot already, so vLLM counts it as not its own.
        (700, 100, None),
        (700, 900, None),
        (700, 0, 300),
        (0, 0, 0),
    ],
)
def test_what_vllm_leaves_uncounted_is_kept_back_as_well(
    beside_mib: int, before_mib: int, margin_mib: int | None, monkeypatch: Any
) -> None:
    counted_mib = beside_mib if COUNTS_ALL_MEMORY else 0
    uncounted_mib = 0 if COUNTS_ALL_MEMORY else max(0, beside_mib - before_mib)
    allowance_mib = 480 if margin_mib is None else margin_mib
    serving_mib = max(0, allowance_mib + uncounted_mib - 256)
    wrapper = sizing_wrapper(requested_gib=99.75)
    wrapper.worker.init_snapshot.torch_memory = before_mib * MIB
    margin = None if margin_mib is None else margin_mib * MIB
    assert sizing.reserve(wrapper, "plan", 123 * MIB, margin) is None
    left = sized(wrapper, monkeypatch, 800 * MIB, beside_mib * MIB)
    answer = sizing.reserved(wrapper)
    assert answer is not None
    assert answer["uncounted_bytes"] == uncounted_mib * MIB
    assert answer["serving_bytes"] == serving_mib * MIB
    # Where vLLM's own sum is the same with it and without, that is what uncounted means.
    assert left == int(89.75 * (1 << 30)) - (800 + 123 + serving_mib + counted_mib) * MIB


# What the graphs of these tests take at most: the forecast of four.
GRAPHS_MIB_MAX = 50


@pytest.mark.parametrize(
    ("outside_mib", "beside_mib", "margin_mib", "allowance_mib"),
    [
        # What is left outside vLLM's share is enough for serving and for these graphs.
        (10_000, 700, None, 480),
        (1000, 400, None, 480),
        # Enough for serving, not for the graphs as well: what is missing, and no more.
        (490, 0, None, 480),
        (480, 0, None, 480),
        # Not even for serving: its part besides theirs.
        (256, 0, None, 480),
        (256, 700, None, 480),
        (256, 700, 300, 300),
        # A margin beyond the allowance is for captures to leave, and no KV cache is given for it.
        (256, 700, 50_000, 480),
    ],
)
def test_the_least_is_what_the_device_does_not_have_free_anyway(
    outside_mib: int, beside_mib: int, margin_mib: int | None, allowance_mib: int, monkeypatch: Any
) -> None:
    counted_mib, uncounted_mib = (beside_mib, 0) if COUNTS_ALL_MEMORY else (0, beside_mib)
    beside_graphs_mib = allowance_mib + uncounted_mib - outside_mib
    config = make_config(sizes=(32, 64, 128), max_num_seqs=64)
    wrapper = sizing_wrapper(config, requested_gib=100 - outside_mib / 1024)
    margin = None if margin_mib is None else margin_mib * MIB
    assert sizing.reserve(wrapper, "least", 999 * MIB, margin) is None
    left = sized(wrapper, monkeypatch, 800 * MIB, beside_mib * MIB)
    before = (90 << 30) - (outside_mib + 800 + counted_mib) * MIB
    answer = sizing.reserved(wrapper)
    assert answer is not None and answer["graphs"] == 4, "of five, the largest left out"
    if beside_graphs_mib < -GRAPHS_MIB_MAX:
        assert (answer["bytes"], answer["serving_bytes"], answer["kv_tokens"]) == (0, 0, 0)
        assert left == before
    else:
        assert 16 * MIB < answer["bytes"] < GRAPHS_MIB_MAX * MIB
        kept = answer["bytes"] + beside_graphs_mib * MIB
        assert answer["serving_bytes"] == max(0, beside_graphs_mib) * MIB
        assert answer["kv_tokens"] == kept // 2048
        assert left == before - kept


@pytest.mark.parametrize("mode", ["none", "least", "top", "plan"])
def test_vllms_own_profile_of_graphs_never_runs(mode: str, monkeypatch: Any) -> None:
    """From 0.29 on it captures everything, throws it away, and is off by a factor of two."""
    wrapper = sizing_wrapper(requested_gib=99.75)
    asked: list[str] = []
    wrapper.worker.model_runner.profile_cudagraph_memory = lambda: asked.append("x") or 321 * MIB
    sizing.reserve(wrapper, mode, None, None)
    sized(wrapper, monkeypatch, 800 * MIB)
    assert asked == []
    sizing.withdraw(wrapper)
    sized(wrapper, monkeypatch, 800 * MIB)
    assert asked == []


def test_the_activation_peak_is_known_where_vllm_does_not_profile(gpu: Any) -> None:
    """A start-up plan gives the KV cache's size: serving still needs room for activations."""
    import torch

    wrapper = sizing_wrapper()
    peaks = iter([{"allocated_bytes.all.current": 5 << 30, "allocated_bytes.all.peak": 7 << 30}])
    wrapper.worker.model_runner.profile_run = lambda: None
    sizing.reserve(wrapper, "none", None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "memory_stats", lambda *_: next(peaks), raising=False)
        patch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda *_: None, raising=False)
        wrapper.worker.model_runner.profile_run()
    del wrapper.worker.peak_activation_memory
    assert current().activation_peak(wrapper.worker) == 2 << 30


def test_without_a_graph_small_enough_the_least_is_what_serving_lacks(monkeypatch: Any) -> None:
    config = make_config(sizes=(128,), max_num_seqs=128)
    wrapper = sizing_wrapper(config, requested_gib=99.75)
    assert sizing.reserve(wrapper, "least", None, None) is None
    lacking = (480 - 256) * MIB
    left = sized(wrapper, monkeypatch, 800 * MIB)
    assert left == int(89.75 * (1 << 30)) - 800 * MIB - lacking
    answer = sizing.reserved(wrapper)
    assert answer is not None
    assert (answer["graphs"], answer["bytes"], answer["serving_bytes"]) == (0, 0, lacking)


def test_what_a_rank_offered_is_taken_back_when_another_one_cant(monkeypatch: Any) -> None:
    wrapper = sizing_wrapper()
    assert sizing.reserve(wrapper, "plan", None, None) is None
    sizing.withdraw(wrapper)
    sizing.withdraw(wrapper)  # also where nothing was offered
    assert sized(wrapper, monkeypatch) == 80 << 30
    assert sizing.reserved(wrapper) is None


@pytest.mark.parametrize("mode", ["least", "plan"])
def test_figures_that_cant_be_read_do_not_end_vllms_start(
    mode: str, monkeypatch: Any, caplog: Any
) -> None:
    wrapper = sizing_wrapper()
    assert sizing.reserve(wrapper, mode, None, None) is None
    monkeypatch.setattr(sizing, "_profiled", lambda _: 1 / 0)
    assert sized(wrapper, monkeypatch) == 80 << 30
    assert sizing.reserved(wrapper) is None
    assert f"reserve={mode} keeps nothing back here" in caplog.text


def test_without_the_weights_figure_nothing_is_uncounted(monkeypatch: Any) -> None:
    worker = SimpleNamespace(model_runner=SimpleNamespace(), init_snapshot=SimpleNamespace())
    assert V26().uncounted_bytes(worker, 17 << 30) == 0
    worker.model_runner.model_memory_usage = 16 << 30
    assert V26().uncounted_bytes(worker, 17 << 30) == 1 << 30
    assert V31().uncounted_bytes(worker, 17 << 30) == 0, "vLLM counts all that the device lost"


def test_what_the_controller_knows_replaces_the_forecast(monkeypatch: Any) -> None:
    wrapper = sizing_wrapper()
    assert sizing.reserve(wrapper, "plan", 123 * MIB, None) is None
    assert sized(wrapper, monkeypatch) == (80 << 30) - 123 * MIB


def test_where_vllm_would_not_take_it_nothing_is_said_to_be_reserved(monkeypatch: Any) -> None:
    config = make_config()
    config.cache_config.kv_cache_memory_bytes = 1 << 30
    why = sizing.reserve(sizing_wrapper(config), "plan", None, None)
    assert why == "--kv-cache-memory-bytes gives the KV cache's size"
    monkeypatch.setenv("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "0")
    why = sizing.reserve(sizing_wrapper(), "plan", None, None)
    assert why is not None and "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0" in why


def test_a_forecast_that_fails_is_a_reason_and_no_end(monkeypatch: Any) -> None:
    wrapper = sizing_wrapper()
    wrapper.worker.get_kv_cache_spec = lambda: {"layer": object()}
    assert "can't forecast: AttributeError" in str(sizing.reserve(wrapper, "top", None, None))


def test_the_models_shape_is_read_from_vllms_configuration(monkeypatch: Any) -> None:
    import torch
    from vllm.v1.attention.backends import fa_utils

    monkeypatch.setattr(fa_utils, "get_flash_attn_version", lambda *_: 3)
    config = make_config()
    model = config.model_config
    assert sizing.model_shape(config).hidden == 0, "unknown: only driver memory is forecast"
    model.hf_text_config = SimpleNamespace(intermediate_size=28672)
    model.get_num_attention_heads = lambda _: 32
    model.get_num_kv_heads = lambda _: 4
    model.get_head_size = lambda: 128
    model.dtype = torch.bfloat16
    config.parallel_config.tensor_parallel_size = 2
    config.attention_config = SimpleNamespace(flash_attn_max_num_splits_for_cuda_graph=32)
    layer = SimpleNamespace(attn_backend=SimpleNamespace(get_name=lambda: "FLASH_ATTN"))
    config.compilation_config.static_forward_context = {"layer.0": layer, "rotary": object()}
    shape = sizing.model_shape(config)
    assert (shape.intermediate, shape.value_bytes, shape.splits) == (14336, 2, 32)
    monkeypatch.setattr(fa_utils, "get_flash_attn_version", lambda *_: 2)
    assert sizing.model_shape(config).splits == 0


# ------------------------------------------------------------------ the whole way


def test_the_reservation_is_made_before_vllm_sizes_its_kv_cache(gpu: Any, monkeypatch: Any) -> None:
    from builders import bring_up, make_executor
    from lazygraph_vllm import plugin

    monkeypatch.setenv("LAZYGRAPH_MODE", "idle")
    monkeypatch.setenv("LAZYGRAPH_RESERVE", "plan")
    plugin.register()
    config = make_config()
    wrapper = sizing_wrapper(config)
    asked: list[int] = []

    def determine_available_memory() -> int:
        asked.append(wrapper.worker.model_runner.profile_cudagraph_memory())
        return 5

    wrapper.determine_available_memory = determine_available_memory
    executor = make_executor(config, wrapper)
    assert executor.determine_available_memory() == [5]
    reserved = executor.lazygraph.state.room.reserved
    assert reserved is not None and asked == [reserved.bytes]
    bring_up(executor)
    inventory = executor.lazygraph.session.inventory()
    assert (inventory.reserve, inventory.tiers) == (reserved, None)


def test_a_vllm_that_did_not_ask_has_reserved_nothing(gpu: Any, monkeypatch: Any) -> None:
    from builders import make_executor
    from lazygraph_vllm import plugin

    monkeypatch.setenv("LAZYGRAPH_MODE", "idle")
    monkeypatch.setenv("LAZYGRAPH_RESERVE", "plan")
    plugin.register()
    config = make_config()
    wrapper = sizing_wrapper(config)
    wrapper.determine_available_memory = lambda: 5
    executor = make_executor(config, wrapper)
    assert executor.determine_available_memory() == [5]
    assert executor.lazygraph.state.room.reserved is None


@pytest.mark.parametrize("in_flight", [1, 2], ids=["sync", "async"])
def test_a_tier_is_dropped_and_captured_again_between_the_steps_of_a_busy_engine(
    serving: Any, controller: Any, gpu: Any, in_flight: int
) -> None:
    from builders import request
    from lazygraph_vllm.protocol.messages import Capture, Drop, Dropped, Inventory, Result, Resync

    controller.first, controller.tiers = FIRST, TIERS
    engine = serving(in_flight=in_flight)
    engine.core.input_queue.put_nowait(request("long", steps=1_000_000))
    engine.scheduler.wait_for_steps(3)
    at = len(gpu.events)
    free = gpu.free_bytes
    controller.send(Drop(command=1, graphs=("FULL:8", "PIECEWISE:16")))
    dropped = controller.wait_for(Dropped)
    assert (dropped.outcome, dropped.freed_bytes) == ("dropped", 4 * MIB)
    assert dropped.ranks[0].free_bytes == free + 4 * MIB
    engine.scheduler.wait_for_steps(engine.scheduler.steps + 2)
    controller.send(Capture(command=2, graph="FULL:8", when_idle=False, need_bytes=2 * MIB))
    result = controller.wait_for(Result)
    assert (result.outcome, result.reason) == ("captured", None)
    engine.scheduler.wait_for_steps(engine.scheduler.steps + 2)
    controller.send(Resync())
    inventory = controller.wait_for(Inventory, where=lambda i: i.phase == "serving")
    assert inventory.tiers == TIERS
    assert {c.graph for c in inventory.captured} == {"FULL:8", "FULL:2", "PIECEWISE:2"}
    if in_flight == 1:
        # Between the end of one step and the start of the next, never inside one.
        names = gpu.names()
        for name in ("pool gone", "begin"):
            steps = [e for e in names[: names.index(name, at)] if e in ("step", "step end")]
            assert steps[-1] == "step end", name
    assert engine.error is None
