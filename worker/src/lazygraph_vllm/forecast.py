"""What graphs will take, from the model's shape, before any was captured. Pure.

A graph's bytes have two parts (docs/gpu-memory.md):

- *Driver memory* of its own: about constant for each captured piece, whatever its size.
- Its *pool's* growth, which the largest graph of a kind sets; smaller ones fit into what it left.

The pool of a FULL graph is mostly attention: with FlashAttention 3 every captured step gets
buffers for a fixed number of splits (vLLM's ``flash_attn_max_num_splits_for_cuda_graph``), of
``[splits, heads, tokens, head size]`` in 32-bit floats. Layers share them, but where a layer's
other buffers are large enough to be cut out of the freed block, the next layer needs a second one.
A PIECEWISE graph leaves attention out and keeps one layer's activations. Each kind is captured on a
stream of its own, and cuBLAS keeps a workspace for each.

Constants come from 102 graphs of a Llama-3.1-8B on an H200; on a Qwen3-0.6B, which they were not
fitted on, the whole plan comes out at 489 MiB of 508 measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .local_fill import top_graphs
from .messages import Graph

MIB = 1 << 20
# One by one on a Llama-3.1-8B (32 layers): PIECEWISE 4 MiB for 33 pieces, FULL 1.6 MiB.
# bench/gpu/main-job.sh measures them again.
PIECEWISE_BYTES_PER_PIECE = int(0.124 * MIB)
FULL_BYTES_PER_LAYER = int(0.05 * MIB)
# torch's default for Hopper; 8 MiB on older devices.
CUBLAS_WORKSPACE_BYTES = 32 * MIB
# torch's allocator asks the driver for this much where less than half of it is wanted.
SMALL_SEGMENT_BYTES = 20 * MIB
# A Llama-3.1-8B: at 256 tokens, with activations of 14 MiB, one buffer; at 512, with 28 MiB, two.
SPLIT_FROM_BYTES = 20 * MIB
# The driver hands out memory in steps of this size.
DRIVER_STEP_BYTES = 2 * MIB
# What is kept back is the forecast and this much more: too little is an engine that dies.
SAFETY_SHARE = 1.1
SAFETY_BYTES = 16 * MIB
# The graphs that no engine should be without, and the first tier (src/memory/tiers.ts): on a
# Llama-3.1-8B they take 62 MiB, and make a step of one request three times as fast.
LEAST_TOKENS = 64
# A capture's growth outside torch is read from the whole device. On four models no graph but a
# pool's first took more than 16 MiB in all, at a forecast of 10 (70B over two H200s).
FOREIGN_FROM_BYTES = 128 * MIB
FOREIGN_FROM_GRAPHS = 8
# What serving may take beyond vLLM's activation peak: the same as the controller's
# src/memory/headroom.ts, where its reasons are.
ALLOWANCE_OF_PEAK = 0.6
ALLOWANCE_BYTES_MIN = 256 * MIB
ALLOWANCE_BYTES_MAX = 1088 * MIB


@dataclass(frozen=True)
class Shape:
    """One rank's part of the model, as far as graphs depend on it."""

    layers: int
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_size: int = 0
    value_bytes: int = 2
    # Splits of attention under capture; 0: the backend has none, or its buffers aren't known.
    splits: int = 0


def typical_graph_bytes(kind: str, layers: int) -> int:
    """Driver memory of one graph of this kind."""
    if kind == "PIECEWISE":
        return (layers + 1) * PIECEWISE_BYTES_PER_PIECE
    return layers * FULL_BYTES_PER_LAYER


def is_foreign(growth: int, typical: int) -> bool:
    """Whether a change of device memory outside torch is too large to be one graph's."""
    return abs(growth - typical) > FOREIGN_FROM_BYTES + FOREIGN_FROM_GRAPHS * typical


def pool_growth_bytes(kind: str, tokens: int, shape: Shape) -> int:
    """Segments of a pool whose largest graph of this kind has so many tokens."""
    if shape.hidden == 0:
        return 0
    widest = 2 * shape.intermediate * tokens * shape.value_bytes
    if kind == "PIECEWISE":
        attention = (shape.heads + 2 * shape.kv_heads) * shape.head_size
        values = 3 * shape.intermediate + 4 * shape.hidden + attention
        activations = values * tokens * shape.value_bytes
        return CUBLAS_WORKSPACE_BYTES + _round_up(activations, SMALL_SEGMENT_BYTES)
    split = shape.splits * shape.heads * tokens * (shape.head_size + 1) * 4
    if widest >= SPLIT_FROM_BYTES:
        split *= 2
    return CUBLAS_WORKSPACE_BYTES + SMALL_SEGMENT_BYTES + _round_up(split, DRIVER_STEP_BYTES)


def need_bytes(graph: Graph, captured: Iterable[Graph], shape: Shape) -> int:
    """What capturing ``graph`` into the pool that holds ``captured`` will take."""
    largest = max((g.tokens for g in captured if g.kind == graph.kind), default=0)
    grown = pool_growth_bytes(graph.kind, largest, shape) if largest else 0
    growth = max(0, pool_growth_bytes(graph.kind, graph.tokens, shape) - grown)
    return typical_graph_bytes(graph.kind, shape.layers) + growth


def forecast_bytes(pools: Iterable[Sequence[Graph]], shape: Shape) -> int:
    """What these graphs will take, each list in a pool of its own."""
    total = 0
    for graphs in pools:
        total += sum(typical_graph_bytes(g.kind, shape.layers) for g in graphs)
        total += sum(
            pool_growth_bytes(kind, max(g.tokens for g in graphs if g.kind == kind), shape)
            for kind in {g.kind for g in graphs}
        )
    return total


def with_safety(size: int) -> int:
    """A forecast and what it may be wrong by."""
    return _round_up(int(size * SAFETY_SHARE) + SAFETY_BYTES, DRIVER_STEP_BYTES)


def reserved_graphs(mode: str, graphs: Sequence[Graph]) -> Sequence[Graph]:
    """The graphs that ``least``, ``top`` or ``plan`` keep memory for."""
    if mode == "least":
        return [graph for graph in graphs if graph.tokens <= LEAST_TOKENS]
    return top_graphs(graphs) if mode == "top" else graphs


def reserve_bytes(graphs: Sequence[Graph], shape: Shape) -> int:
    """What to keep back from the KV cache for these."""
    return with_safety(forecast_bytes([graphs], shape)) if graphs else 0


def allowance_bytes(activation_peak: int) -> int:
    """What serving may take beyond the activation peak that vLLM measured."""
    share = int(ALLOWANCE_OF_PEAK * activation_peak)
    return min(ALLOWANCE_BYTES_MAX, max(ALLOWANCE_BYTES_MIN, share))


def serving_reserve_bytes(activation_peak: int, outside: int, margin: int | None) -> int:
    """What to keep back for serving itself, where vLLM's budget leaves too little outside of it.

    Args:
        activation_peak: as vLLM measured it, in bytes that were allocated.
        outside: what is free of the device besides what vLLM was given to use, less what it uses
            of that all the same.
        margin: the user's, instead of an allowance by the peak.
    """
    wanted = allowance_bytes(activation_peak) if margin is None else margin
    return _round_up(max(0, wanted - outside), DRIVER_STEP_BYTES)


def fitting(graphs: Sequence[Graph], tops_only: bool, room_bytes: int, shape: Shape) -> list[Graph]:
    """The first set of an engine that nobody tells: what fits, without the largest sizes.

    Args:
        graphs: all that are planned.
        tops_only: lazy and idle start with the top of each kind, eager with everything.
        room_bytes: what captures may take.
        shape: of the model on this rank.
    """
    for limit in sorted({g.tokens for g in graphs}, reverse=True):
        kept = [g for g in graphs if g.tokens <= limit]
        chosen = top_graphs(kept) if tops_only else kept
        if with_safety(forecast_bytes([chosen], shape)) <= room_bytes:
            return chosen
    return []


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
