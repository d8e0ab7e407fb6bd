"""Graph memory on one rank, and the two things that would take it from serving.

A graph's bytes are the growth of its pool's segments plus the growth of what the device has in use
beyond torch's reservation (driver memory). The change of free memory around one capture is neither:
torch gives cached blocks back on the way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

# Held while a capture is under way, and by whoever waits for CUDA events on another thread:
# in torch's default "global" capture mode such a wait fails and ends the capture.
output_lock = threading.RLock()

MIB = 1 << 20
# One by one on a Llama-3.1-8B (32 layers): PIECEWISE 4 MiB for 33 pieces, FULL 1.6 MiB.
# bench/gpu/main-job.sh measures them again.
PIECEWISE_BYTES_PER_PIECE = int(0.124 * MIB)
FULL_BYTES_PER_LAYER = int(0.05 * MIB)


def typical_graph_bytes(kind: str, layers: int) -> int:
    """What one more graph of this kind takes, before any was measured."""
    if kind == "PIECEWISE":
        return (layers + 1) * PIECEWISE_BYTES_PER_PIECE
    return layers * FULL_BYTES_PER_LAYER


def pool_bytes(pool: Any) -> int:
    """Bytes in the segments of one graph pool."""
    import torch

    segments = torch.cuda.memory_snapshot(pool, include_traces=False)
    return sum(s["total_size"] for s in segments if tuple(s["segment_pool_id"]) == tuple(pool))


class GraphMeter:
    """Reads what graphs take while they are captured one after the other."""

    def __init__(self, pool: Any, device: Any) -> None:
        self._pool = pool
        self._device = device
        self._outside = self._outside_torch()
        self._pool_before = pool_bytes(pool)

    def _outside_torch(self) -> int:
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return total - free - torch.cuda.memory_reserved(self._device)

    def growth_bytes(self) -> int:
        """Driver memory taken since the last call."""
        now = self._outside_torch()
        growth, self._outside = now - self._outside, now
        return growth

    def settle(self, booked: list[tuple[str, float, int]]) -> None:
        """Add the pool's growth to the first graph: it is the largest and sized the segments."""
        if booked:
            name, ms, size = booked[0]
            booked[0] = (name, ms, size + pool_bytes(self._pool) - self._pool_before)


@contextlib.contextmanager
def no_cache_flush(torch: Any) -> Iterator[None]:
    """Keep ``torch.cuda.graph`` from emptying the allocators' caches on entry."""
    flush, host_flush = torch.cuda.empty_cache, torch._C._host_emptyCache
    torch.cuda.empty_cache = lambda: None
    torch._C._host_emptyCache = lambda: None
    try:
        yield
    finally:
        torch.cuda.empty_cache, torch._C._host_emptyCache = flush, host_flush
