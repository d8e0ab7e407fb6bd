"""What the plugin runs on: an allow-list of what was tried on a GPU, and the hooks it needs.

Everything else runs as stock, with one log line that says why. Being wrong here means wrong
tokens or a dead engine, so the list grows only by trying.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

TESTED_VLLM = ("0.26.0",)


def _version_reason(version: str, allow_untested: bool) -> str | None:
    if version.split("+")[0] in TESTED_VLLM or allow_untested:
        return None
    return (
        f"vLLM {version} was not tried (tried: {', '.join(TESTED_VLLM)}); "
        "LAZYGRAPH_ALLOW_UNTESTED=1 overrides this"
    )


def config_reason(config: Any, version: str, allow_untested: bool) -> str | None:
    """Why this configuration is not on the allow-list; ``None`` if it is.

    Args:
        config: vLLM's ``VllmConfig``.
        version: vLLM's version.
        allow_untested: accept versions that were not tried.
    """
    if reason := _version_reason(version, allow_untested):
        return reason
    try:
        return _unsupported(config)
    except AttributeError as error:
        # Only a version that was let in untested gets here.
        return f"this vLLM's configuration is another one: {error}"


def _unsupported(config: Any) -> str | None:
    parallel, model = config.parallel_config, config.model_config
    compilation = config.compilation_config
    checks: tuple[tuple[bool, str], ...] = (
        (model is None or model.runner_type != "generate", "the model doesn't generate text"),
        (bool(model and model.enforce_eager), "enforce_eager turns CUDA graphs off"),
        (not config.use_v2_model_runner, "vLLM uses its V1 model runner here"),
        (bool(model and getattr(model, "is_moe", False)), "mixture-of-experts models"),
        (bool(model and getattr(model, "is_hybrid", False)), "hybrid models"),
        (bool(model and getattr(model, "is_encoder_decoder", False)), "encoder-decoder models"),
        (bool(model and getattr(model, "is_multimodal_model", False)), "multimodal models"),
        (parallel.data_parallel_size > 1, "data parallelism"),
        (parallel.pipeline_parallel_size > 1, "pipeline parallelism"),
        (getattr(parallel, "prefill_context_parallel_size", 1) > 1, "context parallelism"),
        (getattr(parallel, "decode_context_parallel_size", 1) > 1, "context parallelism"),
        (getattr(parallel, "enable_dbo", False), "dual batch overlap"),
        (getattr(parallel, "enable_elastic_ep", False), "elastic expert parallelism"),
        (
            parallel.distributed_executor_backend not in (None, "mp", "uni"),
            f"the executor backend {parallel.distributed_executor_backend!r}",
        ),
        (getattr(parallel, "nnodes", 1) > 1, "several nodes"),
        (config.speculative_config is not None, "speculative decoding"),
        (config.lora_config is not None, "LoRA"),
        (bool(model and getattr(model, "enable_sleep_mode", False)), "sleep mode"),
        (config.kv_transfer_config is not None, "KV connectors"),
        (getattr(config, "ec_transfer_config", None) is not None, "encoder-cache connectors"),
        (_offloads(config), "weight or KV offloading"),
        (not _in_engine_process(), "VLLM_ENABLE_V1_MULTIPROCESSING=0, an in-process engine"),
        (
            getattr(compilation, "mode", None) is not None and int(compilation.mode) != 3,
            f"compilation mode {getattr(compilation, 'mode', None)}",
        ),
    )
    for unsupported, what in checks:
        if unsupported:
            return f"not supported: {what}"
    return None


def _offloads(config: Any) -> bool:
    cache = config.cache_config
    if getattr(cache, "kv_offloading_size", None):
        return True
    offload = getattr(config, "offload_config", None)
    if offload is None:
        return False
    uva = getattr(getattr(offload, "uva", None), "cpu_offload_gb", 0)
    prefetch = getattr(getattr(offload, "prefetch", None), "offload_group_size", 0)
    return bool(uva) or bool(prefetch)


def _in_engine_process() -> bool:
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0"


def graph_mode_reason(mode: Any) -> str | None:
    """Why this final cudagraph mode has nothing to capture; ``None`` if it has."""
    name = getattr(mode, "name", str(mode))
    if name in ("FULL", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"):
        return None
    return f"not supported: cudagraph_mode {name}"


# Attribute paths that must exist; checked on every rank before anything is changed.
MANAGER_HOOKS = ("capture", "dispatch", "run_fullgraph", "needs_capture")
MANAGER_FIELDS = (
    "_capture_descs",
    "_candidates",
    "_graphs_captured",
    "graphs",
    "decode_query_len",
    "pool",
)
RUNNER_HOOKS = ("capture_model", "execute_model", "sample_tokens", "device", "vllm_config")
MODULE_HOOKS = {
    "vllm.compilation.cuda_graph": ("CUDAGraphWrapper",),
    "vllm.compilation.monitor": ("set_cudagraph_capturing_enabled",),
    "vllm.distributed.parallel_state": ("GraphCaptureContext",),
    "vllm.utils.jit_monitor": ("_mode",),
    "vllm.v1.worker.gpu.async_utils": ("AsyncOutput",),
    "vllm.v1.worker.gpu.cudagraph_utils": ("CudaGraphManager", "graph_capture", "tqdm"),
}
EXECUTOR_HOOKS = ("initialize_from_config", "determine_available_memory", "collective_rpc")
CORE_HOOKS = (
    "run_busy_loop",
    "_handle_client_request",
    "_process_input_queue",
    "_process_engine_step",
)


def missing_module_hook() -> str | None:
    """What vLLM's modules on a rank lack of what we replace or call, as a sentence."""
    for path, names in MODULE_HOOKS.items():
        try:
            module = importlib.import_module(path)
        except ImportError:
            return f"this vLLM lacks {path}"
        if reason := missing_hook(module, names):
            return reason
    return None


def missing_hook(owner: Any, names: tuple[str, ...]) -> str | None:
    """The first name that ``owner`` lacks, as a sentence."""
    for name in names:
        if not hasattr(owner, name):
            return f"this vLLM lacks {getattr(owner, '__name__', type(owner).__name__)}.{name}"
    return None


def unsupported_runner(runner: Any) -> str | None:
    """Why this runner's graphs can't be controlled; ``None`` if they can."""
    manager = getattr(runner, "cudagraph_manager", None)
    if manager is None:
        return "this vLLM's model runner has no cudagraph_manager"
    reason = (
        missing_hook(manager, MANAGER_HOOKS + MANAGER_FIELDS)
        or missing_hook(runner, RUNNER_HOOKS)
        or missing_module_hook()
    )
    if reason is None:
        reason = graph_mode_reason(manager.cudagraph_mode)
    if reason is None and manager.use_breakable_cg:
        reason = "not supported: breakable CUDA graphs"
    if reason is None and getattr(runner, "speculator", None) is not None:
        reason = "not supported: speculative decoding"
    if reason is None and not manager._capture_descs:
        reason = "vLLM has no graph to capture here"
    return reason
