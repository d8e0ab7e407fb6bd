"""Breakable CUDA graphs: PIECEWISE graphs without a compiler. vLLM 0.31 to 0.33.

Where they are on, vLLM compiles nothing. One wrapper around the whole model records it as a list:
a CUDA graph up to an attention layer, that layer as a call, the next graph, and so on. Each entry
of the wrapper is one graph of ours; its CUDA graphs go with it, and so do the addresses that its
calls and its output hold (none of them is a reference).

vLLM's wrapper makes an entry before it records, and makes the recording the thread's current one
before the first CUDA graph begins. A failure at either leaves that behind: an entry without a
recording would be recorded in the next step that comes to it, and no other recording can begin.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

SWITCH = "VLLM_USE_BREAKABLE_CUDAGRAPH"


def switched_on() -> bool:
    """Whether vLLM's switch is on, by the user or by vLLM itself while it made a configuration."""
    return os.environ.get(SWITCH, "0") == "1"


def in_use(manager: Any) -> bool:
    """Whether this manager's PIECEWISE graphs are breakable ones."""
    return bool(getattr(manager, "use_breakable_cg", False))


def missing(runner: Any) -> str | None:
    """Why this runner's breakable graphs can't be captured by need; ``None`` if they can."""
    if has_graphs_inside(runner):
        return "not supported: models with CUDA graphs inside"
    if not in_use(runner.cudagraph_manager):
        return None
    if not hasattr(runner.cudagraph_manager, "breakable_cg_runner"):
        return "this vLLM's graph manager lacks breakable_cg_runner"
    if not _attention_breaks():
        return "not supported: breakable CUDA graphs that were turned on after vLLM's import"
    return None


def has_graphs_inside(runner: Any) -> bool:
    """Whether the model's state captures graphs that run inside the model's own.

    DeepSeek-V4.1's layers that replay, for one: what such a graph leaves behind in a capture or a
    check between two steps was not thought through.
    """
    from vllm.v1.worker.gpu.model_states.interface import ModelState

    name = "capture_inner_cudagraphs"
    own = getattr(type(getattr(runner, "model_state", None)), name, None)
    return own is not None and own is not getattr(ModelState, name, None)


def _attention_breaks() -> bool:
    """Whether attention ends a recorded graph, and isn't recorded with its dummy inputs.

    To 0.32 that is decided when vLLM's attention is imported. In a process forked from one that
    imported it before the switch was on, every PIECEWISE graph would be wrong.
    """
    from vllm.compilation import breakable_cudagraph
    from vllm.model_executor.layers.attention import attention

    code = getattr(attention.unified_attention_with_output, "__code__", None)
    return code is not None and code.co_filename == breakable_cudagraph.__file__


def wrappers() -> list[Any]:
    """What holds breakable graphs."""
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper

    return list(BreakableCUDAGraphWrapper._all_instances)


def batch_of(key: Any) -> Any:
    """The batch's part of an entry's key; the rest tells runs of one size apart (from 0.33 on)."""
    return key[0] if isinstance(key, tuple) else key


@contextlib.contextmanager
def none_left_open() -> Iterator[None]:
    """After a recording that failed, let another one begin on this thread."""
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphCapture

    try:
        yield
    finally:
        BreakableCUDAGraphCapture._tls.active = None
