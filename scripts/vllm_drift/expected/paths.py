"""Where in vLLM's package things are, and a short way to expect several names at once."""

from __future__ import annotations

from ..hooks import Exists

ASYNC_UTILS = "v1/worker/gpu/async_utils.py"
COMPILATION = "config/compilation.py"
CORE = "v1/engine/core.py"
CUDAGRAPH_UTILS = "v1/worker/gpu/cudagraph_utils.py"
CUDAGRAPH_WRAPPER = "compilation/cuda_graph.py"
EXECUTOR = "v1/executor/abstract.py"
FLASH_ATTENTION = "v1/attention/backends/flash_attn.py"
MODEL_RUNNER = "v1/worker/gpu/model_runner.py"
MULTIPROC_EXECUTOR = "v1/executor/multiproc_executor.py"
PARALLEL_STATE = "distributed/parallel_state.py"
UNIPROC_EXECUTOR = "v1/executor/uniproc_executor.py"
WORKER = "v1/worker/gpu_worker.py"


def names(file: str, owner: str, attributes: str, why: str) -> tuple[Exists, ...]:
    """Each of ``attributes``, separated by spaces, must exist in ``owner``; "": in the module."""
    prefix = f"{owner}." if owner else ""
    return tuple(Exists(file, prefix + attribute, why) for attribute in attributes.split())
