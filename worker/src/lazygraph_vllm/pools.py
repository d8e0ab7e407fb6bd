"""Memory pools of graphs on one rank: vLLM's one for all, or one for each tier.

torch gives the memory of a pool back only when the last graph in it is gone, and capturing into a
pool that lost its last graph fails an assertion of its allocator. So what is dropped is a whole
tier, and what is captured after it gets a new pool.

A tier's pool is a ``torch.cuda.MemPool``: when the object goes, torch frees this pool's segments
and no others. Emptying the whole cache instead would hand the device what serving's next step
wants, at the very moment somebody else is short of memory.

On each rank, on the thread that runs the model.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator, Sequence
from typing import Any

logger = logging.getLogger("vllm.lazygraph")

DEFAULT = -1


class GraphPools:
    """Which pool each graph is captured into."""

    def __init__(self, manager: Any, tiers: Sequence[Sequence[str]] = ()) -> None:
        self._manager = manager
        self._home = {graph: tier for tier, graphs in enumerate(tiers) for graph in graphs}
        self._default: Any = manager.pool
        # Only pools of ours: vLLM owns the first default one.
        self._owned: dict[int, Any] = {}

    def home(self, graph: str) -> int:
        """The tier of a graph; ``DEFAULT`` for one in none."""
        return self._home.get(graph, DEFAULT)

    def ids(self) -> list[Any]:
        """All pools there are."""
        default = [] if DEFAULT in self._owned else [self._default]
        return default + [pool.id for pool in self._owned.values()]

    @contextlib.contextmanager
    def use(self, home: int) -> Iterator[Any]:
        """Captures inside go into the pool of ``home``; gives its id."""
        if home == DEFAULT and DEFAULT not in self._owned:
            yield self._default  # vLLM's own way: nothing is changed
            return
        from vllm.compilation.cuda_graph import CUDAGraphWrapper

        pool = self._pool(home).id
        wrappers = [(w, w.graph_pool) for w in list(CUDAGraphWrapper._all_instances)]
        before = self._manager.pool
        self._manager.pool = pool
        for wrapper, _ in wrappers:
            wrapper.graph_pool = pool
        try:
            with _all_reduce_by_copy() if home != DEFAULT else contextlib.nullcontext():
                yield pool
        finally:
            self._manager.pool = before
            for wrapper, graph_pool in wrappers:
                wrapper.graph_pool = graph_pool

    def _pool(self, home: int) -> Any:
        import torch

        if home not in self._owned:
            self._owned[home] = torch.cuda.MemPool()
        return self._owned[home]

    def release(self, home: int) -> None:
        """Give the memory of a pool back whose last graph is gone; the next capture gets a new one.

        vLLM's own pool stays on its books, but isn't captured into again.
        """
        pool = self._owned.pop(home, None)
        if pool is None:
            if home == DEFAULT:
                self._pool(DEFAULT)
            return
        if pool.use_count() > 1:
            gc.collect()  # a graph in a reference cycle, of a failed capture for example
        if pool.use_count() > 1:
            logger.warning("lazygraph: graphs of a dropped tier are still in use: memory stays")
        del pool
        if home == DEFAULT:
            self._pool(DEFAULT)


def make_workspaces(runner: Any) -> None:
    """Let cuBLAS make its workspace for each capture stream outside the tiers' pools.

    It keeps one for each stream, from the first use on. In a tier it would stay when the tier is
    dropped, and keep a part of its memory.
    """
    import torch
    from vllm.v1.worker.gpu import cudagraph_utils

    if torch.cuda.graph.default_capture_stream is None:
        torch.cuda.graph.default_capture_stream = torch.cuda.Stream()
    with torch.inference_mode(), cudagraph_utils.graph_capture(device=runner.device):
        dtype = runner.vllm_config.model_config.dtype
        square = torch.zeros((64, 64), dtype=dtype, device=runner.device)
        torch.nn.functional.linear(square, square)
        with torch.cuda.stream(torch.cuda.graph.default_capture_stream):
            torch.nn.functional.linear(square, square)
        torch.cuda.synchronize()


@contextlib.contextmanager
def _all_reduce_by_copy() -> Iterator[None]:
    """Keep custom all-reduces in a tier's graphs from sharing the tier's memory with other ranks.

    vLLM's custom all-reduce registers the buffers a graph uses with every other rank, which then
    maps their memory for good: freed here, it would not come back. Copied first into the buffer
    that vLLM registered at start, as an ungraphed step does, nothing of the tier is shared.
    """
    from vllm.distributed.parallel_state import get_tp_group

    communicator = getattr(get_tp_group(), "device_communicator", None)
    custom = getattr(communicator, "ca_comm", None)
    if custom is None:
        yield
        return
    all_reduce = custom.all_reduce

    def copied(inp: Any, *, out: Any = None, registered: bool = False) -> Any:
        return all_reduce(inp, out=out, registered=False)

    custom.all_reduce = copied
    try:
        yield
    finally:
        del custom.all_reduce
