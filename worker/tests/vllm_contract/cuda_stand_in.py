"""Stands in for the CUDA calls that vLLM's own classes and ours make; everything else is real.

``torch.cuda.graph`` itself stays torch's: it flushes caches, begins and ends a capture on the
``CUDAGraph`` that we replace. What happens is written down in ``Gpu.events``.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from vllm_facts import PROFILES_BY_CAPTURING

MIB = 1 << 20
POOL = (7, 1)


class Gpu:
    """What the fake device saw, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.capturing: Graph | None = None
        self.inside_context = 0
        self.streams = 0
        self.contexts: list[Any] = []
        self.current: Any = SimpleNamespace(name="main")
        self.free_bytes = 100 << 30
        self.total_bytes = 140 << 30
        self.cached_bytes = 0  # in the allocator's cache, outside graph pools
        self.stuck_bytes = 0  # of those, in segments that are in use as well
        self.pools: dict[tuple[int, int], int] = {}
        self.pools_made = 0
        self.live: dict[tuple[int, int], weakref.WeakSet[Graph]] = {}
        self.mem_pools: weakref.WeakSet[MemPool] = weakref.WeakSet()
        self.driver_status = 0
        self.driver_held: dict[int, int] = {}
        self.gc_during_capture: list[bool] = []
        self.flag_during_capture: list[bool] = []
        self.threads: set[int] = set()
        self.replayed: list[Graph] = []
        self.fail_at_begin: int | None = None
        self.fail_with = "CUDA error: out of memory"
        self.bytes_per_capture = MIB

    def empty_cache(self) -> None:
        self.note("flush")
        self.free_bytes += self.cached_bytes - self.stuck_bytes
        self.cached_bytes = self.stuck_bytes

    @property
    def pool_bytes(self) -> int:
        return sum(self.pools.values())

    def graphs_in(self, pool: tuple[int, int]) -> int:
        return len(self.live.get(pool, ()))

    def note(self, *event: Any) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event[0] for event in self.events]

    def count(self, name: str) -> int:
        return self.names().count(name)


class Graph:
    """``torch.cuda.CUDAGraph`` without CUDA."""

    gpu: Gpu

    def capture_begin(self, *pool: Any, capture_error_mode: str = "global", **_: Any) -> None:
        from vllm.compilation import monitor

        gpu = self.gpu
        if gpu.capturing is not None:
            raise RuntimeError("a capture inside a capture")
        self.pool = pool[0]
        gpu.note("begin", gpu.current, self.pool)
        owned = MemPool.of(gpu, self.pool)
        if self.pool in gpu.pools and gpu.graphs_in(self.pool) == 0 and not owned:
            raise AssertionError("use_count > 0 INTERNAL ASSERT FAILED")
        gpu.gc_during_capture.append(gc.isenabled())
        gpu.flag_during_capture.append(monitor.cudagraph_capturing_enabled)
        gpu.threads.add(threading.get_ident())
        if gpu.fail_at_begin is not None:
            gpu.fail_at_begin -= 1
            if gpu.fail_at_begin < 0:
                gpu.fail_at_begin = None
                raise RuntimeError(gpu.fail_with)
        if gpu.free_bytes < gpu.bytes_per_capture:
            raise RuntimeError("CUDA error: out of memory")
        gpu.capturing = self

    def capture_end(self) -> None:
        gpu = self.gpu
        if gpu.capturing is None:
            raise RuntimeError("no capture to end")
        gpu.capturing = None
        gpu.live.setdefault(self.pool, weakref.WeakSet()).add(self)
        gpu.pools[self.pool] = gpu.pools.get(self.pool, 0) + gpu.bytes_per_capture
        gpu.free_bytes -= gpu.bytes_per_capture
        gpu.note("end")

    def replay(self) -> None:
        self.gpu.replayed.append(self)
        self.gpu.note("replay", self)


class MemPool:
    """``torch.cuda.MemPool``: gives its memory back when it goes, if no graph holds it."""

    gpu: Gpu
    owned: weakref.WeakSet[MemPool]

    def __init__(self) -> None:
        self.gpu.pools_made += 1
        self.id = (0, 100 + self.gpu.pools_made)
        self.gpu.pools[self.id] = 0
        self.owned.add(self)

    @staticmethod
    def of(gpu: Gpu, pool: tuple[int, int]) -> bool:
        return any(p.id == pool for p in gpu.mem_pools)

    def use_count(self) -> int:
        return 1 + self.gpu.graphs_in(self.id)

    def __del__(self) -> None:
        self.gpu.note("pool gone", self.id, self.gpu.graphs_in(self.id))
        if self.gpu.graphs_in(self.id) == 0:
            self.gpu.free_bytes += self.gpu.pools.pop(self.id, 0)


class Driver:
    """``memory.Driver`` without a driver."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def allocate(self, size: int) -> tuple[int, int]:
        gpu = self._gpu
        gpu.note("reserve", size)
        status = gpu.driver_status or (2 if size > gpu.free_bytes else 0)
        if status:
            return status, 0
        address = 1 + len(gpu.driver_held) + gpu.count("reserve")
        gpu.driver_held[address] = size
        gpu.free_bytes -= size
        return 0, address

    def free(self, address: int) -> int:
        self._gpu.note("give back")
        self._gpu.free_bytes += self._gpu.driver_held.pop(address)
        return 0


class Group:
    """``GroupCoordinator`` of one rank: only what a graph capture asks of it."""

    is_first_rank = True
    is_last_rank = True
    world_size = 1

    def __init__(self, gpu: Gpu, name: str) -> None:
        self._gpu = gpu
        self._name = name

    @contextlib.contextmanager
    def graph_capture(self, context: Any) -> Iterator[Any]:
        gpu = self._gpu
        before, gpu.current = gpu.current, context.stream
        if self._name == "tp":
            gpu.contexts.append(context)
        gpu.inside_context += 1
        try:
            yield context
        finally:
            gpu.inside_context -= 1
            gpu.current = before


def install(gpu: Gpu, patch: Any) -> None:
    """Replace the CUDA calls; ``patch`` is pytest's ``monkeypatch``."""
    import torch

    # All of vLLM that the tests touch comes first: annotations are evaluated on import, and
    # ``torch.cuda.Stream | None`` needs torch's own class.
    import vllm.v1.engine.core
    import vllm.v1.executor.uniproc_executor  # noqa: F401
    from vllm.compilation import cuda_graph
    from vllm.distributed import parallel_state
    from vllm.v1.worker.gpu import cudagraph_utils
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    from lazygraph_vllm.rank import memory

    def stream(device: Any = None, **_: Any) -> Any:
        gpu.streams += 1
        return SimpleNamespace(name=f"stream {gpu.streams}", wait_stream=lambda _: None)

    class OnStream:
        """A class as in torch: one that is entered and never left changes nothing later."""

        def __init__(self, chosen: Any) -> None:
            self.chosen = chosen

        def __enter__(self) -> None:
            self.before, gpu.current = gpu.current, self.chosen

        def __exit__(self, *_: Any) -> None:
            gpu.current = self.before

    class Event:
        def __init__(self, **_: Any) -> None: ...

        def record(self, *_: Any) -> None:
            gpu.note("record")

        def query(self) -> bool:
            return True

        def elapsed_time(self, _: Any) -> float:
            return 2.0

    class BoundGraph(Graph):
        pass

    class BoundPool(MemPool):
        pass

    BoundGraph.gpu = BoundPool.gpu = gpu
    BoundPool.owned = gpu.mem_pools
    cuda = torch.cuda

    def segments(pool: Any, **_: Any) -> list[dict[str, Any]]:
        size = gpu.pools.get(tuple(pool), 0)
        return [{"total_size": size, "allocated_size": 0, "segment_pool_id": pool}]

    properties = SimpleNamespace(uuid="5f3c1a52", name="NVIDIA H200")
    for owner, name, value in (
        (cuda, "synchronize", lambda *_: gpu.note("sync", gpu.capturing is not None)),
        (cuda, "empty_cache", gpu.empty_cache),
        (torch._C, "_host_emptyCache", lambda: gpu.note("host-flush")),
        (cuda, "mem_get_info", lambda *_: (gpu.free_bytes, gpu.total_bytes)),
        (cuda, "memory_reserved", lambda *_: gpu.pool_bytes + gpu.cached_bytes),
        (cuda, "memory_allocated", lambda *_: 0),
        (cuda, "MemPool", BoundPool),
        (memory, "_driver", Driver(gpu)),
        (cuda, "memory_snapshot", segments),
        (cuda, "get_device_properties", lambda *_: properties),
        (cuda, "Stream", stream),
        (cuda, "stream", OnStream),
        (cuda, "current_stream", lambda *_: gpu.current),
        (cuda, "Event", Event),
        (cuda, "CUDAGraph", BoundGraph),
        (cuda.graph, "default_capture_stream", None),
        (cuda, "is_current_stream_capturing", lambda: gpu.capturing is not None),
        (torch.accelerator, "empty_cache", lambda: gpu.note("start flush")),
        (torch.accelerator, "get_memory_info", lambda *_: (gpu.free_bytes, gpu.total_bytes)),
        (cuda_graph, "weak_ref_tensors", lambda tensors: tensors),
        (cuda_graph, "current_stream", lambda: gpu.current),
        (cudagraph_utils, "current_stream", lambda: gpu.current),  # from 0.29 on
        (cuda_graph, "current_platform", SimpleNamespace(get_global_graph_pool=lambda: POOL)),
        (cudagraph_utils, "current_platform", SimpleNamespace(get_global_graph_pool=lambda: POOL)),
        (cudagraph_utils, "is_global_first_rank", lambda: True),
        (cudagraph_utils, "get_pp_group", lambda: Group(gpu, "pp")),
        (parallel_state, "get_pp_group", lambda: Group(gpu, "pp")),
        (parallel_state, "get_tp_group", lambda: Group(gpu, "tp")),
        (parallel_state, "get_dp_group", lambda: Group(gpu, "dp")),
    ):
        patch.setattr(owner, name, value, raising=False)
    if PROFILES_BY_CAPTURING:

        def profile_cudagraph_memory(_: Any) -> int:
            gpu.note("profile")
            return 0

        patch.setattr(GPUModelRunner, "profile_cudagraph_memory", profile_cudagraph_memory)
