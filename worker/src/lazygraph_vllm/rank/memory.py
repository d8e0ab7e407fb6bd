"""Graph memory on one rank, and what would take it from serving.

A graph's bytes are the growth of its pool's segments plus the growth of what the device has in use
beyond torch's reservation (driver memory). The change of free memory around one capture is neither:
torch gives cached blocks back on the way.

On each rank, on the thread that runs the model; only ``output_lock`` is for other threads too.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..rules import forecast

logger = logging.getLogger("vllm.lazygraph")

# Held while a capture is under way, and by whoever waits for CUDA events on another thread:
# in torch's default "global" capture mode such a wait fails and ends the capture.
output_lock = threading.RLock()

# Between two times that a rank empties torch's cache.
FLUSH_SECONDS_MIN = 10.0


def _segments(pool: Any) -> list[Any]:
    import torch

    segments = torch.cuda.memory_snapshot(pool, include_traces=False)
    return [s for s in segments if tuple(s["segment_pool_id"]) == tuple(pool)]


def pool_bytes(pool: Any) -> int:
    """Bytes in the segments of one graph pool."""
    return sum(s["total_size"] for s in _segments(pool))


def pools_use(pools: Iterable[Any]) -> tuple[int, int]:
    """Bytes in the segments of graph pools, and how many of them no graph's buffer lies in."""
    segments = [segment for pool in pools for segment in _segments(pool)]
    total = sum(s["total_size"] for s in segments)
    return total, total - sum(s["allocated_size"] for s in segments)


def cached_bytes(device: Any, pools_free_bytes: int) -> int:
    """What the allocator holds for serving, without giving it to anyone.

    Free blocks of graph pools don't count: only captures can use them. Fragmentation may make
    less of it usable than it says. Meaningful while no step is under way.
    """
    import torch

    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, cached - pools_free_bytes)


def activation_held_bytes(device: Any, pools_free_bytes: int, peak: int) -> int:
    """How much of the activation peak the allocator holds already."""
    return min(peak, cached_bytes(device, pools_free_bytes))


class CacheFlush:
    """Empties torch's cache for a capture that finds no memory, and seldom.

    Stock does it on entry of every capture. It costs the steps that come next some allocations
    from the driver, so it is done only where memory is tight, and at most every 10 seconds.
    """

    def __init__(self) -> None:
        self._due_at = -math.inf

    def is_due(self) -> bool:
        """Whether the last one is long enough ago."""
        return time.monotonic() >= self._due_at

    def run(self, device: Any) -> int:
        """Give back all blocks that are free as a whole; what the device has more, in bytes."""
        import torch

        self._due_at = time.monotonic() + FLUSH_SECONDS_MIN
        before = torch.cuda.mem_get_info(device)[0]
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0] - before


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

    def growth_bytes(self, graph: str, typical: int) -> int:
        """Driver memory of this graph: the growth outside torch since the last call.

        A change that no graph can make is somebody else's, who took memory or gave it back
        meanwhile. It is said and left out, and ``typical`` is the graph's.
        """
        now = self._outside_torch()
        growth, self._outside = now - self._outside, now
        if not forecast.is_foreign(growth, typical):
            return growth
        logger.warning(
            "lazygraph: device memory in use grew by %d MiB while %s was captured, far from the "
            "%d MiB that such a graph takes: booked as somebody else's",
            growth // forecast.MIB,
            graph,
            -(-typical // forecast.MIB),
        )
        return typical

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


# ------------------------------------------------------------------ disposable reservations

CUDA_SUCCESS = 0
CUDA_ERROR_OUT_OF_MEMORY = 2


class Driver:
    """The two calls of the CUDA driver that a reservation needs.

    Not torch's allocator: it would keep the block in its cache. Not the CUDA runtime: a failure
    there stays behind as the thread's last error, and torch's next check finds it.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def allocate(self, size: int) -> tuple[int, int]:
        """The driver's status and, if that is success, the address."""
        address = ctypes.c_uint64()
        status = self._library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        return int(status), int(address.value)

    def free(self, address: int) -> int:
        """Give it back; the driver's status."""
        return int(self._library.cuMemFree_v2(ctypes.c_uint64(address)))


_driver: Driver | None = None


def _get_driver() -> Driver:
    global _driver
    if _driver is None:
        _driver = Driver()
    return _driver


class Reservation:
    """Device memory held for a moment, to prove that a capture will find it."""

    def __init__(self) -> None:
        self._address: int | None = None
        self._told = False

    def take(self, size: int) -> bool:
        """Hold ``size`` bytes instead of what was held; False if the device has them not.

        True also where it can't be tried: the figures were read before and said that it fits, and
        a proof that is missing is no reason to end an engine.
        """
        self.give_back()
        if size <= 0:
            return True
        try:
            status, address = _get_driver().allocate(size)
        except (OSError, AttributeError) as error:  # no such library, or no such call in it
            self._warn(str(error))
            return True
        if status == CUDA_SUCCESS:
            self._address = address
        elif status != CUDA_ERROR_OUT_OF_MEMORY:
            self._warn(f"CUDA driver error {status}")
        return status != CUDA_ERROR_OUT_OF_MEMORY

    def _warn(self, why: str) -> None:
        """Once: every capture after it would say the same."""
        if not self._told:
            self._told = True
            logger.warning("lazygraph: can't try a reservation: %s", why)

    def give_back(self) -> None:
        """Hold nothing."""
        if self._address is None:
            return
        address, self._address = self._address, None
        if status := _get_driver().free(address):
            logger.warning("lazygraph: can't give a reservation back: CUDA driver error %d", status)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one behind it, says that the device is full.

    Leaving a capture that ran out of memory may fail once more, when the part that was captured is
    made executable: the error that comes out is then another one, with the first behind it.
    """
    import torch

    for _ in range(16):
        if error is None:
            return False
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
