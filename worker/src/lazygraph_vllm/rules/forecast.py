"""What graphs will take, from the model's shape, before any was captured. Pure.

A graph's bytes have two parts (docs/gpu-memory.md):

- *Driver memory* of its own: about constant for each captured piece, whatever its size.
- Its *pool's* growth, which the largest graph of a kind sets; smaller ones fit into what it left.

The pool of a FULL graph is mostly attention: with FlashAttention 3 every captured step gets
buffers for a fixed number of splits (vLLM's ``flash_attn_max_num_splits_for_cuda_graph``), of
``[splits, heads, tokens, value size]`` in 32-bit floats; the value size is the head's, or the
latent one's with multi-head latent attention (512 in DeepSeek models). A PIECEWISE graph leaves
attention out and keeps one layer's activations.

Up to vLLM 0.28 each kind is captured on a stream of its own: cuBLAS keeps a workspace for each, and
where a layer's other buffers are large enough to be cut out of the freed block of splits, the next
layer needs a second one. Later versions capture both on one stream, which the warm-up has given its
workspace, and FULL graphs lie in what PIECEWISE ones left.

On an H200, whole plans of 102 graphs: with 0.26 a Llama-3.1-8B 1,010 MiB (forecast 1,001) and a
Qwen3-0.6B 508 (495); with 0.33 the 8B 640 (642), Qwen3-30B-A3B 787 (751), DeepSeek-V2-Lite 1,104
(1,101). Bench: ``bench/gpu/families.sh``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from ..protocol.messages import Graph
from .local_fill import top_graphs

MIB = 1 << 20
# The same as the controller's (src/memory/constants.ts), to which test/golden/rules.json.gz holds
# both sides: fitted by ``npm run bench:forecast``.
PIECEWISE_BYTES_PER_PIECE = int(0.138 * MIB)
FULL_BYTES_PER_LAYER = int(0.044 * MIB)
# Latent attention launches more kernels a layer: DeepSeek-V2-Lite on an H200, vLLM 0.33.
LATENT_PIECEWISE_BYTES_PER_PIECE = int(0.235 * MIB)
LATENT_FULL_BYTES_PER_LAYER = int(0.139 * MIB)
# With adapters each of a layer's four linear pieces launches three kernels more (clear, shrink,
# expand). An 8B with 16 on an H200, vLLM 0.33: 0.026 MiB in PIECEWISE graphs, 0.029 in FULL ones.
LORA_BYTES_PER_LAYER = int(0.03 * MIB)
# torch's default for Hopper; 8 MiB on older devices.
CUBLAS_WORKSPACE_BYTES = 32 * MIB
# torch's allocator asks the driver for this much where less than half of it is wanted.
SMALL_SEGMENT_BYTES = 20 * MIB
# A Llama-3.1-8B: at 256 tokens, with activations of 14 MiB, one buffer; at 512, with 28 MiB, two.
SPLIT_FROM_BYTES = 20 * MIB
# Beside the kinds of graphs: those whose drafter's logits are recorded with them.
DRAFTS = "DRAFTS"
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
    # Latent size of attention, in the place of the head's; 0: it has none.
    latent: int = 0
    # Both kinds are captured on one stream, whose workspace is there before.
    one_stream: bool = False
    # Of a drafter whose FULL graphs hold its logits; 0: there is none.
    draft_vocabulary: int = 0


def largest(shapes: Iterable[Shape]) -> Shape:
    """Of each figure the largest: what holds on every rank, as stages of a pipeline differ."""
    every = list(shapes)
    return Shape(**{f.name: max(getattr(s, f.name) for s in every) for f in fields(Shape)})


def typical_graph_bytes(
    kind: str, layers: int, latent: bool = False, loras: int = 0, draft_layers: int = 0
) -> int:
    """Driver memory of one graph of this kind, and of this adapter case.

    ``draft_layers`` of a drafter are recorded with it: as so many layers of the target, with what
    such a run has besides (logits, sampling) as one more.
    """
    adapters = layers * LORA_BYTES_PER_LAYER if loras > 0 else 0
    if draft_layers > 0:
        layers += draft_layers + 1
    if kind == "PIECEWISE":
        piece = LATENT_PIECEWISE_BYTES_PER_PIECE if latent else PIECEWISE_BYTES_PER_PIECE
        return (layers + 1) * piece + adapters
    return layers * (LATENT_FULL_BYTES_PER_LAYER if latent else FULL_BYTES_PER_LAYER) + adapters


def is_foreign(growth: int, typical: int) -> bool:
    """Whether a change of device memory outside torch is too large to be one graph's."""
    return abs(growth - typical) > FOREIGN_FROM_BYTES + FOREIGN_FROM_GRAPHS * typical


def pool_bytes(largest: Mapping[str, int], shape: Shape) -> int:
    """Segments of a pool.

    Args:
        largest: tokens of its largest graph of each kind; of ``DRAFTS``: requests.
        shape: of the model on this rank.
    """
    if shape.hidden == 0 or not largest:
        return 0
    full = largest.get("FULL", 0)
    split = shape.splits * shape.heads * full * ((shape.latent or shape.head_size) + 1) * 4
    if shape.one_stream:
        activations = _activation_bytes(max(full, largest.get("PIECEWISE", 0)), shape)
        # A drafter's logits fit into what the target's splits left, or are larger.
        logits = largest.get(DRAFTS, 0) * shape.draft_vocabulary * shape.value_bytes
        return activations + _round_up(max(split, logits), DRIVER_STEP_BYTES)
    total = 0
    if "PIECEWISE" in largest:
        total += CUBLAS_WORKSPACE_BYTES + _activation_bytes(largest["PIECEWISE"], shape)
    if "FULL" in largest:
        if 2 * shape.intermediate * full * shape.value_bytes >= SPLIT_FROM_BYTES:
            split *= 2
        total += CUBLAS_WORKSPACE_BYTES + SMALL_SEGMENT_BYTES
        total += _round_up(split, DRIVER_STEP_BYTES)
    return total


def _activation_bytes(tokens: int, shape: Shape) -> int:
    """What one layer keeps, in segments as torch's allocator takes them."""
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    values = 3 * shape.intermediate + 4 * shape.hidden + attention
    return _round_up(values * tokens * shape.value_bytes, SMALL_SEGMENT_BYTES)


def _largest(graphs: Iterable[Graph]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for graph in graphs:
        largest[graph.kind] = max(graph.tokens, largest.get(graph.kind, 0))
        if graph.kind == "FULL" and graph.draft_layers > 0:
            largest[DRAFTS] = max(graph.requests or graph.tokens, largest.get(DRAFTS, 0))
    return largest


def need_bytes(graph: Graph, captured: Iterable[Graph], shape: Shape) -> int:
    """What capturing ``graph`` into the pool that holds ``captured`` will take."""
    before = list(captured)
    grown = pool_bytes(_largest(before), shape)
    growth = max(0, pool_bytes(_largest([*before, graph]), shape) - grown)
    return _own_bytes(graph, shape) + growth


def _own_bytes(graph: Graph, shape: Shape) -> int:
    latent = shape.latent > 0
    return typical_graph_bytes(graph.kind, shape.layers, latent, graph.loras, graph.draft_layers)


def forecast_bytes(pools: Iterable[Sequence[Graph]], shape: Shape) -> int:
    """What these graphs will take, each list in a pool of its own."""
    total = 0
    for graphs in pools:
        total += sum(_own_bytes(graph, shape) for graph in graphs)
        total += pool_bytes(_largest(graphs), shape)
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
