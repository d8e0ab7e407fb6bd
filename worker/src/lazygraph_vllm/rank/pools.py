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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..rules.pairs import DECODE, Role
from ..vllm.adapter import Adapter, replaced

logger = logging.getLogger("vllm.lazygraph")

DEFAULT = -1


class GraphPools:
    """Which pool each graph is captured into."""

    def __init__(
        self,
        adapter: Adapter,
        manager: Any,
        tiers: Sequence[Sequence[str]] = (),
        drafting: Mapping[Role, Any] | None = None,
    ) -> None:
        """Nothing is changed before ``use``.

        Args:
            adapter: for this vLLM.
            manager: vLLM's graph manager of the target.
            tiers: graphs that get a pool each.
            drafting: managers of a drafter. Its prefill graphs lie where their target's do; decode
                graphs, which several tiers may share, in the default pool.
        """
        self._adapter = adapter
        self._manager = manager
        self._drafting = drafting or {}
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

    def shared(self) -> Any:
        """The id of the default pool."""
        return self._owned[DEFAULT].id if DEFAULT in self._owned else self._default

    @contextlib.contextmanager
    def use(self, home: int) -> Iterator[Any]:
        """Captures inside go into the pool of ``home``; gives its id."""
        if home == DEFAULT and DEFAULT not in self._owned:
            yield self._default  # vLLM's own way: nothing is changed
            return
        pool = self._pool(home).id
        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced(self._manager, "pool", pool))
            for role, manager in self._drafting.items():
                own = self.shared() if role == DECODE else pool
                stack.enter_context(replaced(manager, "pool", own))
            for wrapper in self._adapter.wrappers():
                stack.enter_context(replaced(wrapper, "graph_pool", pool))
            if home != DEFAULT:
                stack.enter_context(_all_reduce_by_copy(self._adapter))
            yield pool

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


def make_workspaces(adapter: Adapter, runner: Any) -> None:
    """Let cuBLAS make its workspace for each capture stream outside the tiers' pools.

    It keeps one for each stream, from the first use on. In a tier it would stay when the tier is
    dropped, and keep a part of its memory.
    """
    import torch

    with torch.inference_mode(), adapter.capture_streams(runner.device) as streams:
        dtype = runner.vllm_config.model_config.dtype
        square = torch.zeros((64, 64), dtype=dtype, device=runner.device)
        for stream in streams:
            with torch.cuda.stream(stream):
                torch.nn.functional.linear(square, square)
        torch.cuda.synchronize()


@contextlib.contextmanager
def _all_reduce_by_copy(adapter: Adapter) -> Iterator[None]:
    """Keep custom all-reduces in a tier's graphs from sharing the tier's memory with other ranks.

    vLLM's custom all-reduce registers the buffers a graph uses with every other rank, which then
    maps their memory for good: freed here, it would not come back. Copied first into the buffer
    that vLLM registered at start, as an ungraphed step does, nothing of the tier is shared.
    """
    custom = adapter.custom_all_reduce()
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
