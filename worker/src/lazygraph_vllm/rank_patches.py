"""Where the plugin hangs in vLLM on a rank: its graph manager, its outputs, its model runner.

In each rank's process, installed by ``rank.prepare``; what is patched runs where vLLM calls it: on
the thread that runs the model, and ``get_output`` on a thread of its own where vLLM has one. What
is patched in EngineCore's process is in ``hooks``.
"""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

from . import memory
from .rank_graphs import RankGraphs


def take_over(runner: Any, graphs: RankGraphs) -> None:
    """From now on this runner's graphs are captured and dispatched by ours."""
    # Bound here once: ``dispatch`` is in the path of every step.
    runner.cudagraph_manager.lazygraph_capture = graphs.capture_first
    runner.cudagraph_manager.lazygraph_dispatch = graphs.dispatch.choose
    _patch_classes()
    capture_model = runner.capture_model

    @functools.wraps(capture_model)
    def capture_and_project() -> int:
        # vLLM keeps this number (start-up plan, --kv-cache-memory advice) as what graphs take.
        # It collects garbage first, 0.3 s of a start; after its warm-up it does so again anyway.
        with mock.patch("gc.collect", lambda *_: 0):
            size = capture_model()
        return size + graphs.state.projected_bytes()

    runner.capture_model = capture_and_project


def _patch_classes() -> None:
    """Patch vLLM's classes once per process; managers without our attributes stay as they are."""
    import torch
    from vllm.distributed.parallel_state import GraphCaptureContext
    from vllm.v1.worker.gpu import async_utils, cudagraph_utils

    manager_class = cudagraph_utils.CudaGraphManager
    if getattr(manager_class.capture, "lazygraph", False):
        return
    capture, dispatch = manager_class.capture, manager_class.dispatch
    graph_capture = cudagraph_utils.graph_capture
    contexts: dict[Any, Any] = {}

    def persistent_graph_capture(device: Any) -> Any:
        # A new stream per session would cost a cuBLAS workspace each and keep the pool from
        # reusing its blocks: 2.4 GiB for 100 graphs of an 8B.
        if device not in contexts:
            contexts[device] = GraphCaptureContext(torch.cuda.Stream(device=device))
        return graph_capture(device, contexts[device])

    @functools.wraps(capture)
    def patched_capture(self: Any, create_forward_fn: Any, progress_bar_desc: str = "") -> None:
        ours = getattr(self, "lazygraph_capture", None)
        if ours is None:
            capture(self, create_forward_fn, progress_bar_desc)
        else:
            ours(capture, create_forward_fn, progress_bar_desc)

    @functools.wraps(dispatch)
    def patched_dispatch(
        self: Any,
        num_reqs: int,
        num_tokens: int,
        uniform_token_count: int | None,
        num_active_loras: int,
    ) -> Any:
        ours = getattr(self, "lazygraph_dispatch", None)
        if ours is None:
            return dispatch(self, num_reqs, num_tokens, uniform_token_count, num_active_loras)
        return ours(num_reqs, num_tokens, uniform_token_count, num_active_loras)

    patched_capture.lazygraph = True  # type: ignore[attr-defined]
    manager_class.capture = patched_capture
    manager_class.dispatch = patched_dispatch
    cudagraph_utils.graph_capture = persistent_graph_capture
    get_output = async_utils.AsyncOutput.get_output

    @functools.wraps(get_output)
    def locked_get_output(self: Any) -> Any:
        with memory.output_lock:
            return get_output(self)

    async_utils.AsyncOutput.get_output = locked_get_output
