"""Weights that are being replaced while the engine is up: nothing is captured meanwhile.

vLLM's weight transfer, as reinforcement learning uses it, takes several calls (start, chunks,
finish). Nothing pauses the engine between them, so that it looks as idle as any other. But layers
whose weights haven't come yet lie on no device, and a transfer may have threads of its own that
call CUDA, which ends a capture on another thread. Whoever reloads a model layer by layer with calls
of his own is in the same state, without vLLM's flag.

Graphs that are there stay right: vLLM copies new weights to the old addresses, for stock's graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any


def why_not_now(worker: Any, absent_before: int) -> str | None:
    """Why nothing may be captured with this worker's weights now; ``None``: they are all there.

    Args:
        worker: vLLM's ``Worker``.
        absent_before: how many were on no device when the engine came up: nothing reads those.
    """
    if getattr(worker, "_weight_update_active", False):
        return "its weights are being replaced: finish_weight_update ends that"
    if absent(worker.model_runner) > absent_before:
        return "some of its weights are on no device: whoever reloads them isn't done yet"
    return None


def absent(runner: Any) -> int:
    """How many weights and buffers of this runner's models are on no device."""
    return sum(tensor.is_meta for tensor in _tensors(runner))


def _tensors(runner: Any) -> Iterator[Any]:
    """All parameters and buffers of this runner's model, and of its drafter's."""
    drafter: Any = getattr(getattr(runner, "speculator", None), "model", None)
    for model in (runner.model, drafter):
        if hasattr(model, "parameters"):
            yield from chain(model.parameters(), model.buffers())
