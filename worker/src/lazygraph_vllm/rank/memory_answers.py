"""What a rank answers about its memory: what there is, and whether a capture would fit.

On each rank, on the thread that runs the model, before ready and then between two steps: vLLM's
``WorkerWrapperBase`` is asked, as by ``rank``, whose answers these are a part of. Counting bytes is
``memory``'s.
"""

from __future__ import annotations

import logging
from typing import Any

from ..protocol.messages import RankMemory
from ..vllm.choose import current
from . import memory

logger = logging.getLogger("vllm.lazygraph")


def _activation_peak(wrapper: Any) -> int:
    return current().activation_peak(wrapper.worker)


def _pool_ids(runner: Any) -> list[Any]:
    graphs = getattr(runner, "lazygraph", None)
    return [runner.cudagraph_manager.pool] if graphs is None else graphs.state.pools.ids()


def activation_missing(wrapper: Any) -> int:
    """What serving still needs of the device: the activation peak less what torch holds of it."""
    runner, peak = wrapper.worker.model_runner, _activation_peak(wrapper)
    _, unused = memory.pools_use(_pool_ids(runner))
    return peak - memory.activation_held_bytes(runner.device, unused, peak)


def rank_memory(wrapper: Any) -> RankMemory:
    """This rank's GPU and what the allocator and the graph pools hold of it."""
    import torch

    runner = wrapper.worker.model_runner
    device = runner.device
    free, total = torch.cuda.mem_get_info(device)
    properties = torch.cuda.get_device_properties(device)
    in_pools, unused = memory.pools_use(_pool_ids(runner))
    cached = memory.cached_bytes(device, unused)
    peak = _activation_peak(wrapper)
    return RankMemory(
        rank=int(getattr(wrapper, "global_rank", 0)),
        gpu_uuid=f"GPU-{properties.uuid}",
        gpu_name=properties.name,
        total_bytes=total,
        free_bytes=free,
        reserved_bytes=torch.cuda.memory_reserved(device),
        pool_bytes=in_pools,
        activation_peak_bytes=peak,
        activation_held_bytes=min(peak, cached),
        cached_bytes=cached,
    )


def shortage(wrapper: Any, free_min: int, headroom_min: int, reserve_bytes: int) -> str | None:
    """Why a capture wouldn't fit now; ``None`` if it would, and then ``reserve_bytes`` are held.

    Args:
        wrapper: vLLM's worker wrapper.
        free_min: bytes that the device must have free.
        headroom_min: bytes that it must have free besides what serving still needs.
        reserve_bytes: what to hold, until the capture or ``give_back``.
    """
    import torch

    runner = wrapper.worker.model_runner
    free = torch.cuda.mem_get_info(runner.device)[0]
    if free < free_min:
        return f"headroom: {free >> 20} MiB free, {free_min >> 20} MiB needed"
    # What is held is read only where it decides: it takes a snapshot of every pool, in the stall.
    if headroom_min and free - _activation_peak(wrapper) < headroom_min:
        serving = activation_missing(wrapper)
        if free - serving < headroom_min:
            return (
                f"headroom: {free >> 20} MiB free, {serving >> 20} MiB of them for serving, "
                f"{headroom_min >> 20} MiB needed"
            )
    if not runner.lazygraph.reservation.take(reserve_bytes):
        return (
            f"headroom: {free >> 20} MiB free, but the device doesn't give "
            f"{reserve_bytes >> 20} MiB"
        )
    return None


def reclaim(wrapper: Any, graph: str, bytes_min: int) -> bool:
    """Take back what torch's allocator keeps beyond what serving needs; False: it stays.

    Serving's first waves may have grown into memory that was kept for graphs not captured yet, and
    the allocator doesn't let go of it by itself.
    """
    import torch

    runner = wrapper.worker.model_runner
    device, flush = runner.device, runner.lazygraph.cache_flush
    if bytes_min <= 0 or not flush.is_due():
        return False
    _, unused = memory.pools_use(_pool_ids(runner))
    cached = memory.cached_bytes(device, unused)
    free = torch.cuda.mem_get_info(device)[0]
    if cached == 0 or free + cached - _activation_peak(wrapper) < bytes_min:
        return False
    back = flush.run(device)
    logger.info("lazygraph: emptied torch's cache for %s: %d MiB came back", graph, back >> 20)
    return True
