"""Where the plugin hangs in vLLM on a rank: its graph manager, its outputs, its model runner.

In each rank's process. ``take_over`` is called by ``rank.prepare``, ``let_go`` undoes it; what is
patched runs where vLLM calls it: on the thread that runs the model, and ``get_output`` on a thread
of its own where vLLM has one. What is patched in EngineCore's process is in ``engine_hooks``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..rank import memory
from . import drafts
from .adapter import Adapter, StepCall

# What ``take_over`` and others of ours set on vLLM's runner, in the place of a method of its class.
RUNNER_METHODS = (
    "capture_model",
    "execute_model",
    "sample_tokens",
    "profile_run",
    "profile_cudagraph_memory",
)


def take_over(adapter: Adapter, runner: Any, graphs: Any) -> None:
    """From now on this runner's graphs are captured and dispatched by ours.

    Args:
        adapter: for this vLLM.
        runner: vLLM's ``GPUModelRunner``.
        graphs: this rank's ``RankGraphs``.
    """
    # Bound here once: ``dispatch`` is in the path of every step.
    runner.cudagraph_manager.lazygraph_capture = graphs.capture_first
    runner.cudagraph_manager.lazygraph_dispatch = graphs.dispatch.choose
    if graphs.state.pairs is not None:
        graphs.state.pairs.drafter.take_over(graphs.dispatch.drafts.hooks())
    _patch_classes(adapter)
    capture_model = runner.capture_model

    @functools.wraps(capture_model)
    def capture_and_project(*args: Any, **kwargs: Any) -> int:
        # vLLM keeps this number (start-up plan, --kv-cache-memory advice) as what graphs take.
        # It collects garbage first, 0.3 s of a start; after its warm-up it does so again anyway.
        with adapter.without_collection(runner):
            size = capture_model(*args, **kwargs)
        return int(size + graphs.state.projected_bytes())

    runner.capture_model = capture_and_project


def let_go(runner: Any) -> None:
    """Leave this runner to vLLM again: nothing of ours stays on it or its manager."""
    for name in RUNNER_METHODS:
        vars(runner).pop(name, None)
    for manager in (getattr(runner, "cudagraph_manager", None), *drafts.managers_of(runner)):
        for name in ("lazygraph_capture", "lazygraph_dispatch"):
            vars(manager).pop(name, None) if manager is not None else None
    for name in [name for name in vars(runner) if name.startswith("lazygraph")]:
        delattr(runner, name)


def _patch_classes(adapter: Adapter) -> None:
    """Patch vLLM's classes once per process; managers without our attributes stay as they are."""
    from vllm.v1.worker.gpu import async_utils, cudagraph_utils

    manager_class = cudagraph_utils.CudaGraphManager
    if getattr(manager_class.capture, "lazygraph", False):
        return
    capture = manager_class.capture

    @functools.wraps(capture)
    def patched_capture(self: Any, create_forward_fn: Any, progress_bar_desc: str = "") -> None:
        ours = getattr(self, "lazygraph_capture", None)
        if ours is None:
            capture(self, create_forward_fn, progress_bar_desc)
        else:
            ours(capture, create_forward_fn, progress_bar_desc)

    patched_capture.lazygraph = True  # type: ignore[attr-defined]
    manager_class.capture = patched_capture
    manager_class.dispatch = _patched_dispatch(manager_class.dispatch)
    graph_capture = cudagraph_utils.graph_capture

    @functools.wraps(graph_capture)
    def persistent_graph_capture(device: Any) -> Any:
        return adapter.graph_capture(device)

    cudagraph_utils.graph_capture = persistent_graph_capture
    get_output = async_utils.AsyncOutput.get_output

    @functools.wraps(get_output)
    def locked_get_output(self: Any) -> Any:
        with memory.output_lock:
            return get_output(self)

    async_utils.AsyncOutput.get_output = locked_get_output


def _patched_dispatch(dispatch: Any) -> Callable[..., Any]:
    """VLLM's dispatch, with ours asked first; its arguments are checked by ``Adapter.missing``."""

    @functools.wraps(dispatch)
    def patched_dispatch(self: Any, *step: Any, **named: Any) -> Any:
        choose = getattr(self, "lazygraph_dispatch", None)
        if choose is None:
            return dispatch(self, *step, **named)
        return choose(_call(*step, **named))

    return patched_dispatch


def _call(
    num_reqs: int,
    num_tokens: int,
    uniform_token_count: int | None,
    num_active_loras: int,
    max_query_len: int | None = None,
    num_ubatches: int = 1,
) -> StepCall:
    """By vLLM's names, which are in the path of every step."""
    return StepCall(
        num_reqs, num_tokens, uniform_token_count, num_active_loras, max_query_len, num_ubatches
    )
