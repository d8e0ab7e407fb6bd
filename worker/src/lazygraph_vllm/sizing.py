"""Before vLLM sizes its KV cache: what is to be kept back from it on this rank.

vLLM subtracts from its KV cache what its runner's ``profile_cudagraph_memory`` returns; the V2
runner of 0.26 returns 0. Called on every rank through vLLM's collective RPC, as ``rank`` is.
"""

from __future__ import annotations

import logging
from typing import Any

from . import forecast
from .descriptors import describe_graph

logger = logging.getLogger("vllm.lazygraph")


def reserve(
    wrapper: Any, mode: str, known_bytes: int | None, margin_bytes: int | None
) -> str | None:
    """Let vLLM's coming memory profile count the graphs, and what serving needs beyond it.

    Never fails, and says why not.

    Args:
        wrapper: vLLM's worker wrapper.
        mode: ``least``, ``top`` or ``plan``. ``least`` takes of the KV cache only what vLLM's
            share of the device doesn't leave outside of it, so mostly nothing; and nothing where
            vLLM keeps memory for graphs itself.
        known_bytes: what graphs took in an earlier start, instead of a forecast; not for ``least``.
        margin_bytes: what the user wants to stay free, instead of an allowance.
    """
    try:
        return _reserve(wrapper, mode, known_bytes, margin_bytes)
    except Exception as error:
        logger.debug("lazygraph: can't reserve memory for graphs", exc_info=True)
        return f"can't forecast: {type(error).__name__}: {error}"


def _reserve(
    wrapper: Any, mode: str, known_bytes: int | None, margin_bytes: int | None
) -> str | None:
    from vllm import envs
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

    worker, runner = wrapper.worker, wrapper.worker.model_runner
    config = runner.vllm_config
    if config.cache_config.kv_cache_memory_bytes is not None:
        return "--kv-cache-memory-bytes gives the KV cache's size"
    if not envs.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS:
        return "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0 keeps vLLM from subtracting it"
    graph_mode = config.compilation_config.cudagraph_mode
    # vLLM makes its own manager later; this one only says which graphs it will have.
    manager = ModelCudaGraphManager(config, runner.device, graph_mode, runner.decode_query_len)
    planned = [describe_graph(d) for descs in manager._capture_descs.values() for d in descs]
    if not planned:
        return "vLLM has no graph to capture here"
    chosen = forecast.reserved_graphs(mode, planned)
    size = known_bytes if mode != "least" else None
    if size is None:
        size = forecast.reserve_bytes(chosen, model_shape(config))
    specs = worker.get_kv_cache_spec().values()
    token_bytes = sum(spec.page_size_bytes / spec.block_size for spec in specs)
    unrequested = worker.init_snapshot.free_memory - worker.requested_memory
    vllms_own = runner.profile_cudagraph_memory

    def keep() -> int:
        # vLLM asks right after its profile run, whose activations are free again by then.
        current, peak = _profiled(runner.device)
        uncounted = _uncounted(worker, current)
        outside = unrequested - uncounted
        if mode == "least":
            # A large margin says what captures are to leave; it is no order to take it from the
            # KV cache. Graphs come first into what is left outside: what is missing is serving's.
            margin = forecast.allowance_bytes(peak)
            if margin_bytes is not None:
                margin = min(margin, margin_bytes)
            kept = forecast.serving_reserve_bytes(peak, outside - size, margin)
        else:
            kept = size + forecast.serving_reserve_bytes(peak, outside, margin_bytes)
        runner.lazygraph_reserve = {
            "bytes": size if kept else 0,
            "serving_bytes": max(0, kept - size),
            "uncounted_bytes": uncounted,
            "kv_tokens": int(kept / token_bytes) if token_bytes else 0,
            "graphs": len(chosen),
        }
        return kept

    def profile_cudagraph_memory() -> int:
        if mode == "least" and (own := int(vllms_own())) > 0:
            return own
        try:
            return keep()
        except Exception:
            # In the middle of vLLM's own start, which no reservation is worth.
            logger.warning("lazygraph: reserve=%s keeps nothing back here", mode, exc_info=True)
            return int(vllms_own())

    runner.profile_cudagraph_memory = profile_cudagraph_memory
    return None


def withdraw(wrapper: Any) -> None:
    """Take back what ``reserve`` offered here: another rank can't, and they go alike."""
    vars(wrapper.worker.model_runner).pop("profile_cudagraph_memory", None)


def _profiled(device: Any) -> tuple[int, int]:
    """Bytes allocated now, and what the profile run had allocated besides at its peak."""
    import torch

    stats = torch.accelerator.memory_stats(device)
    current = int(stats.get("allocated_bytes.all.current", 0))
    return current, max(0, int(stats.get("allocated_bytes.all.peak", 0)) - current)


def _uncounted(worker: Any, allocated: int) -> int:
    """What torch has allocated and vLLM's sum for the KV cache leaves out.

    That sum is what is held outside torch since the first snapshot, the weights as load_model
    counted them, and the growth of the profile run. What the V2 runner allocates for itself, after
    that snapshot and outside load_model, is in none of the three: 583 MiB on a Llama-3.1-8B with
    1,024 requests, 501 of them for counts of each token of the vocabulary. What the profile run
    left behind (cuBLAS's workspaces) is counted twice here, to the safe side.
    """
    weights = getattr(worker.model_runner, "model_memory_usage", None)
    if weights is None:
        return 0  # Everything would be: the weights are the most of it.
    before = getattr(worker.init_snapshot, "torch_memory", 0)
    return max(0, allocated - int(weights) - int(before))


def reserved(wrapper: Any) -> dict[str, Any] | None:
    """What vLLM took of the offer, now that its KV cache is sized; ``None`` if it did not ask."""
    return getattr(wrapper.worker.model_runner, "lazygraph_reserve", None)


def model_shape(config: Any) -> forecast.Shape:
    """What a forecast needs to know of the model on this rank; less where vLLM says less."""
    model, parallel = config.model_config, config.parallel_config
    layers = int(model.get_num_layers(parallel))
    try:
        text = model.hf_text_config
        return forecast.Shape(
            layers=layers,
            hidden=int(model.get_hidden_size()),
            intermediate=-(-int(text.intermediate_size) // parallel.tensor_parallel_size),
            heads=int(model.get_num_attention_heads(parallel)),
            kv_heads=int(model.get_num_kv_heads(parallel)),
            head_size=int(model.get_head_size()),
            value_bytes=int(model.dtype.itemsize),
            splits=_attention_splits(config),
        )
    except Exception:
        # A forecast is worth no start: without the shape it knows driver memory only.
        logger.debug("lazygraph: this model's shape isn't known", exc_info=True)
        return forecast.Shape(layers=layers)


def _attention_splits(config: Any) -> int:
    """Splits that FlashAttention 3 gets buffers for in every captured step; 0 for others."""
    from vllm import envs
    from vllm.v1.attention.backends.fa_utils import get_flash_attn_version

    if envs.VLLM_BATCH_INVARIANT:
        return 0  # one split, and no buffers
    layers = config.compilation_config.static_forward_context.values()
    backends = {layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")}
    if backends != {"FLASH_ATTN"} or get_flash_attn_version() != 3:
        return 0
    return int(config.attention_config.flash_attn_max_num_splits_for_cuda_graph)
