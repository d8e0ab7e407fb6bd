"""Stands in for the CUDA calls that vLLM's own classes and ours make; everything else is real.

``torch.cuda.graph`` itself stays torch's: it flushes caches, begins and ends a capture on the
``CUDAGraph`` that we replace. What happens is written down in ``Gpu.events``.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

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
        self.pool_bytes = 0
        self.gc_during_capture: list[bool] = []
        self.flag_during_capture: list[bool] = []
        self.threads: set[int] = set()
        self.replayed: list[Graph] = []
        self.fail_at_begin: int | None = None

    def note(self, *event: Any) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event[0] for event in self.events]

    def count(self, name: str) -> int:
        return self.names().count(name)


class Graph:
    """``torch.cuda.CUDAGraph`` without CUDA."""

    gpu: Gpu

    def capture_begin(self, *pool: Any, capture_error_mode: str = "global") -> None:
        from vllm.compilation import monitor

        gpu = self.gpu
        if gpu.capturing is not None:
            raise RuntimeError("a capture inside a capture")
        gpu.note("begin", gpu.current)
        gpu.gc_during_capture.append(gc.isenabled())
        gpu.flag_during_capture.append(monitor.cudagraph_capturing_enabled)
        gpu.threads.add(threading.get_ident())
        if gpu.fail_at_begin is not None:
            gpu.fail_at_begin -= 1
            if gpu.fail_at_begin < 0:
                gpu.fail_at_begin = None
                raise RuntimeError("CUDA error: out of memory")
        gpu.capturing = self

    def capture_end(self) -> None:
        self.gpu.capturing = None
        self.gpu.pool_bytes += MIB
        self.gpu.free_bytes -= MIB
        self.gpu.note("end")

    def replay(self) -> None:
        self.gpu.replayed.append(self)
        self.gpu.note("replay", self)


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
    from vllm.compilation import cuda_graph
    from vllm.distributed import parallel_state
    from vllm.v1.worker.gpu import cudagraph_utils

    def stream(device: Any = None, **_: Any) -> Any:
        gpu.streams += 1
        return SimpleNamespace(name=f"stream {gpu.streams}", wait_stream=lambda _: None)

    @contextlib.contextmanager
    def on_stream(chosen: Any) -> Iterator[None]:
        before, gpu.current = gpu.current, chosen
        try:
            yield
        finally:
            gpu.current = before

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

    BoundGraph.gpu = gpu
    cuda = torch.cuda
    segments = lambda *_, **__: [{"total_size": gpu.pool_bytes, "segment_pool_id": POOL}]  # noqa: E731
    properties = SimpleNamespace(uuid="5f3c1a52", name="stand-in")
    for owner, name, value in (
        (cuda, "synchronize", lambda *_: gpu.note("sync", gpu.capturing is not None)),
        (cuda, "empty_cache", lambda: gpu.note("flush")),
        (torch._C, "_host_emptyCache", lambda: gpu.note("host-flush")),
        (cuda, "mem_get_info", lambda *_: (gpu.free_bytes, gpu.total_bytes)),
        (cuda, "memory_reserved", lambda *_: gpu.pool_bytes),
        (cuda, "memory_snapshot", segments),
        (cuda, "get_device_properties", lambda *_: properties),
        (cuda, "Stream", stream),
        (cuda, "stream", on_stream),
        (cuda, "Event", Event),
        (cuda, "CUDAGraph", BoundGraph),
        (cuda.graph, "default_capture_stream", None),
        (cuda, "is_current_stream_capturing", lambda: gpu.capturing is not None),
        (torch.accelerator, "empty_cache", lambda: gpu.note("start flush")),
        (torch.accelerator, "get_memory_info", lambda *_: (gpu.free_bytes, gpu.total_bytes)),
        (cuda_graph, "weak_ref_tensors", lambda tensors: tensors),
        (cuda_graph, "current_stream", lambda: gpu.current),
        (cuda_graph, "current_platform", SimpleNamespace(get_global_graph_pool=lambda: POOL)),
        (cudagraph_utils, "current_platform", SimpleNamespace(get_global_graph_pool=lambda: POOL)),
        (cudagraph_utils, "is_global_first_rank", lambda: True),
        (cudagraph_utils, "get_pp_group", lambda: Group(gpu, "pp")),
        (parallel_state, "get_pp_group", lambda: Group(gpu, "pp")),
        (parallel_state, "get_tp_group", lambda: Group(gpu, "tp")),
    ):
        patch.setattr(owner, name, value, raising=False)
