"""What is to be kept back from vLLM's KV cache, before it is sized.

vLLM subtracts from its KV cache what its runner's ``profile_cudagraph_memory`` returns. The V2
runner of 0.26 returns 0; from 0.29 on it captures all PIECEWISE graphs and two FULL ones to find
out, throws them away, and is off by 90 to 160% (docs/gpu-memory.md). So it is always answered in
its place. Called on every rank, as ``rank.calls`` is.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from ..protocol.graph import Graph
from ..rules import forecast
from ..vllm.adapter import Adapter
from ..vllm.choose import current
from .descriptors import graph_id
from .pairs import Pairs, described

logger = logging.getLogger("vllm.lazygraph")


def reserve(
    wrapper: Any, mode: str, known_bytes: int | None, margin_bytes: int | None
) -> str | None:
    """Let vLLM's coming profile count the graphs, and what serving needs beyond it.

    Never fails, and says why not. From now on vLLM's own profile of graphs doesn't run here.

    Args:
        wrapper: vLLM's worker wrapper.
        mode: ``none``, ``least``, ``top`` or ``plan``. ``least`` takes of the KV cache only what
            vLLM's share of the device doesn't leave outside of it, so mostly nothing.
        known_bytes: what graphs took in an earlier start, instead of a forecast; not for ``least``.
        margin_bytes: what the user wants to stay free, instead of an allowance.
    """
    try:
        runner = wrapper.worker.model_runner
        _watch_profile_run(runner)
        withdraw(wrapper)
        return None if mode == "none" else _reserve(wrapper, mode, known_bytes, margin_bytes)
    except Exception as error:
        logger.debug("lazygraph: can't reserve memory for graphs", exc_info=True)
        return f"can't forecast: {type(error).__name__}: {error}"


def _reserve(
    wrapper: Any, mode: str, known_bytes: int | None, margin_bytes: int | None
) -> str | None:
    adapter = current()
    worker, runner = wrapper.worker, wrapper.worker.model_runner
    config = runner.vllm_config
    if config.cache_config.kv_cache_memory_bytes is not None:
        return "--kv-cache-memory-bytes gives the KV cache's size"
    if not adapter.subtracts_estimate():
        return "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0 keeps vLLM from subtracting it"
    planned = _planned(adapter, runner)
    if not planned:
        return "vLLM has no graph to capture here"
    chosen = forecast.reserved_graphs(mode, planned)
    size = known_bytes if mode != "least" else None
    if size is None:
        size = forecast.reserve_bytes(chosen, model_shape(config))
    specs = worker.get_kv_cache_spec().values()
    token_bytes = sum(spec.page_size_bytes / spec.block_size for spec in specs)
    unrequested = worker.init_snapshot.free_memory - worker.requested_memory

    def keep() -> int:
        # vLLM asks right after its profile run, whose activations are free again by then.
        allocated, peak = _profiled(runner.device)
        uncounted = adapter.uncounted_bytes(worker, allocated)
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
        try:
            return keep()
        except Exception:
            # In the middle of vLLM's own start, which no reservation is worth.
            logger.warning("lazygraph: reserve=%s keeps nothing back here", mode, exc_info=True)
            return 0

    runner.profile_cudagraph_memory = profile_cudagraph_memory
    return None


def _planned(adapter: Adapter, runner: Any) -> list[Graph]:
    """All graphs, before there is a manager of vLLM's that has them."""
    manager = adapter.planning_manager(runner)
    descs = [d for descs in adapter.planned(manager).values() for d in descs]
    drafter = adapter.planning_drafter(runner, graph_id)
    if drafter is None:
        return described(descs, None)
    return described(descs, Pairs(drafter, described(descs, None), manager.decode_query_len))


def withdraw(wrapper: Any) -> None:
    """Take back what ``reserve`` offered here: another rank can't, and they go alike."""
    wrapper.worker.model_runner.profile_cudagraph_memory = lambda: 0


def _watch_profile_run(runner: Any) -> None:
    """Note what vLLM's profile run had allocated at its peak.

    vLLM keeps that number only where it sizes the KV cache by it: not where a start-up plan or
    ``--kv-cache-memory-bytes`` gives the size, and serving needs the room all the same.
    """
    profile_run = runner.profile_run

    @functools.wraps(profile_run)
    def measured(*args: Any, **kwargs: Any) -> Any:
        import torch

        # vLLM has done so itself just before, where it reads the peak.
        torch.accelerator.reset_peak_memory_stats(runner.device)
        result = profile_run(*args, **kwargs)
        _, runner.lazygraph_activation_peak = _profiled(runner.device)
        return result

    runner.profile_run = measured


def _profiled(device: Any) -> tuple[int, int]:
    """Bytes allocated now, and what the profile run had allocated besides at its peak."""
    import torch

    stats = torch.accelerator.memory_stats(device)
    current = int(stats.get("allocated_bytes.all.current", 0))
    return current, max(0, int(stats.get("allocated_bytes.all.peak", 0)) - current)


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
            splits=current().attention_splits(config),
            latent=int(getattr(text, "kv_lora_rank", 0) or 0)
            if getattr(model, "use_mla", False)
            else 0,
            one_stream=current().captures_on_one_stream,
            draft_vocabulary=current().draft_vocabulary(config),
        )
    except Exception:
        # A forecast is worth no start: without the shape it knows driver memory only.
        logger.debug("lazygraph: this model's shape isn't known", exc_info=True)
        return forecast.Shape(layers=layers)
