"""The engine's own forecast, against what graphs took on an H200."""

from __future__ import annotations

import dataclasses

import pytest

from lazygraph_vllm.protocol.messages import Graph
from lazygraph_vllm.rules.forecast import (
    MIB,
    Shape,
    fitting,
    forecast_bytes,
    is_foreign,
    need_bytes,
    reserve_bytes,
    reserved_graphs,
    typical_graph_bytes,
    with_safety,
)
from lazygraph_vllm.rules.local_fill import top_graphs
from test_dispatch import plan

SIZES = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
PLAN = plan(SIZES)
LLAMA_8B = Shape(
    layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_size=128, splits=32
)
QWEN_06B = Shape(
    layers=28, hidden=1024, intermediate=3072, heads=16, kv_heads=8, head_size=128, splits=32
)


@pytest.mark.parametrize(
    ("shape", "tops_mib", "plan_mib"),
    # Stock's 102 graphs in one go, in MiB of free memory lost (vLLM 0.26.0, one H200).
    [(LLAMA_8B, 700, 1010), (QWEN_06B, 248, 508)],
    ids=["8B, which the constants come from", "0.6B, which they don't"],
)
def test_the_forecast_is_near_what_was_measured(shape: Shape, tops_mib: int, plan_mib: int) -> None:
    assert len(PLAN) == 102
    tops = forecast_bytes([top_graphs(PLAN)], shape) / MIB
    whole = forecast_bytes([PLAN], shape) / MIB
    assert tops == pytest.approx(tops_mib, rel=0.15)
    assert whole == pytest.approx(plan_mib, rel=0.15)
    assert reserve_bytes(reserved_graphs("plan", PLAN), shape) >= plan_mib * MIB
    assert reserve_bytes(reserved_graphs("top", PLAN), shape) >= tops_mib * MIB


@pytest.mark.parametrize(
    ("shape", "plan_mib"),
    [
        (dataclasses.replace(LLAMA_8B, one_stream=True), 640),
        (
            Shape(
                layers=48, hidden=2048, intermediate=6144, heads=32, kv_heads=4, head_size=128,
                splits=32, one_stream=True,
            ),
            787,
        ),
        (
            Shape(
                layers=27, hidden=2048, intermediate=10944, heads=16, kv_heads=1, head_size=576,
                splits=32, latent=512, one_stream=True,
            ),
            1104,
        ),
    ],
    ids=["Llama-3.1-8B", "Qwen3-30B-A3B", "DeepSeek-V2-Lite"],
)  # fmt: skip
def test_with_one_stream_it_is_near_what_was_measured(shape: Shape, plan_mib: int) -> None:
    """102 graphs captured while idle, by the growth of pool and driver (vLLM 0.33.0, one H200)."""
    assert forecast_bytes([PLAN], shape) / MIB == pytest.approx(plan_mib, rel=0.06)
    small = [g for g in PLAN if g.tokens <= 64]
    assert forecast_bytes([small], shape) < forecast_bytes([PLAN], shape)


def test_a_reservation_is_a_multiple_of_the_drivers_steps_and_more_than_the_forecast() -> None:
    for size in (0, 1, 500 * MIB + 1):
        assert with_safety(size) % (2 * MIB) == 0 and with_safety(size) > size


@pytest.mark.parametrize("kind", ["FULL", "PIECEWISE"])
@pytest.mark.parametrize("layers", [2, 32, 80])
def test_growth_that_no_graph_can_be_is_somebody_elses(kind: str, layers: int) -> None:
    typical = typical_graph_bytes(kind, layers)
    for own in (typical, 0, -8 * MIB, 22 * MIB, 8 * typical, 100 * MIB):
        assert not is_foreign(own, typical)
    # A CUDA context alone takes about as much on an H200.
    for foreign in (500 * MIB, 1000 * MIB, -1000 * MIB):
        assert is_foreign(foreign, typical)


def test_the_first_graph_of_a_pool_pays_for_its_size_and_smaller_ones_after_it_dont() -> None:
    by_id = {g.id: g for g in PLAN}
    driver = typical_graph_bytes("FULL", 32)
    first = need_bytes(by_id["FULL:256"], [], LLAMA_8B)
    assert 130 * MIB < first < 208 * MIB, (
        "with PIECEWISE:256, in a pool of their own, 208 on an H200"
    )
    assert need_bytes(by_id["FULL:128"], [by_id["FULL:256"]], LLAMA_8B) == driver
    # What is there of the other kind is no help: its buffers are others.
    assert need_bytes(by_id["FULL:256"], [by_id["PIECEWISE:512"]], LLAMA_8B) == first
    larger = need_bytes(by_id["FULL:512"], [by_id["FULL:256"]], LLAMA_8B)
    assert driver < larger < need_bytes(by_id["FULL:512"], [], LLAMA_8B)


def test_each_pool_has_its_own_segments() -> None:
    small = [g for g in PLAN if g.tokens <= 64]
    large = [g for g in PLAN if g.tokens > 64]
    apart, together = (forecast_bytes(pools, QWEN_06B) for pools in ([small, large], [PLAN]))
    assert apart > together
    assert forecast_bytes([], QWEN_06B) == 0


def test_of_an_unknown_shape_only_driver_memory_is_forecast() -> None:
    shape = Shape(layers=10)
    top = Graph(id="FULL:512", kind="FULL", tokens=512)
    assert need_bytes(top, [], shape) == typical_graph_bytes("FULL", 10)


def test_without_splits_attention_takes_no_buffers() -> None:
    top = Graph(id="FULL:512", kind="FULL", tokens=512)
    other = Shape(layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_size=128)
    assert need_bytes(top, [], other) < 60 * MIB < need_bytes(top, [], LLAMA_8B)


@pytest.mark.parametrize("tops_only", [True, False])
def test_what_fits_is_all_but_the_largest_sizes(tops_only: bool) -> None:
    everything = top_graphs(PLAN) if tops_only else PLAN
    assert fitting(PLAN, tops_only, 2 << 30, LLAMA_8B) == everything
    chosen = fitting(PLAN, tops_only, 500 * MIB, LLAMA_8B)
    limit = max(g.tokens for g in chosen)
    assert 8 <= limit < 512
    expected = [g for g in PLAN if g.tokens <= limit]
    assert chosen == (top_graphs(expected) if tops_only else expected)
    assert with_safety(forecast_bytes([chosen], LLAMA_8B)) <= 500 * MIB
    assert fitting(PLAN, tops_only, 0, LLAMA_8B) == []
