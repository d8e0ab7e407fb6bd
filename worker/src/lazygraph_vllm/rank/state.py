"""What one rank holds of graphs: planned, captured, refused, failed; and forgetting one.

On each rank, on the thread that runs the model: before ready, and then between two steps. The
other parts of a rank share it; it captures nothing itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from ..protocol.messages import Captured, Graph
from ..rules import forecast
from ..rules.local_fill import top_graphs
from ..vllm.adapter import Adapter
from .descriptors import by_id, graph_id
from .pairs import described, pairs_of
from .pools import DEFAULT, GraphPools


class RankState:
    """One per rank.

    Attributes:
        adapter: for this vLLM.
        runner: vLLM's ``GPUModelRunner``.
        manager: its ``CudaGraphManager``.
        pools: which pool each graph is captured into.
        descs: vLLM's descriptor of each planned graph, by id.
        lists: the same descriptors as vLLM keeps them: by mode, largest first.
        graphs: the plan, as the protocol has it.
        by_id: the same by id.
        pairs: a drafter's graphs beside them; ``None``: there are none.
        captured: what may serve, with its cost, by id.
        refused: not captured before ready for want of memory, with the sentence why.
        failed: not to be tried again, with the reason.
        verified: largest relative difference to an ungraphed run, of what was checked.
        mismatched: the same of those that failed the check.
        epoch: counts changes of ``captured``, the same on all ranks.
        absent_weights: how many were on no device when the engine came up.
    """

    def __init__(self, adapter: Adapter, runner: Any, tiers: Sequence[Sequence[str]] = ()) -> None:
        self.adapter = adapter
        self.runner = runner
        self.manager = runner.cudagraph_manager
        self.lists = {mode: list(d) for mode, d in adapter.planned(self.manager).items()}
        self.descs: dict[str, Any] = by_id(d for descs in self.lists.values() for d in descs)
        self.pairs = pairs_of(adapter, runner, self.descs.values())
        self.graphs: list[Graph] = described(self.descs.values(), self.pairs)
        self.by_id: dict[str, Graph] = {graph.id: graph for graph in self.graphs}
        drafting = {} if self.pairs is None else self.pairs.drafter.managers
        self.pools = GraphPools(adapter, self.manager, tiers, drafting)
        self.captured: dict[str, Captured] = {}
        self.refused: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.verified: dict[str, float] = {}
        self.mismatched: dict[str, float] = {}
        self.epoch = 0
        self.absent_weights = adapter.absent_weights(runner)

    def hash(self) -> str:
        """Equal on all ranks exactly when they hold the same graphs at the same epoch."""
        text = f"{self.epoch}|{'|'.join(sorted(self.captured))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def layers(self) -> int:
        """Decoder layers of the model on this pipeline stage."""
        config = self.runner.vllm_config
        return int(config.model_config.get_num_layers(config.parallel_config))

    def projected_bytes(self) -> int:
        """Bytes the graphs that are still missing will take, from the last ones of their sort."""
        sizes: dict[tuple[str, int], list[int]] = {}
        tops = {g.id for g in top_graphs(self.graphs)}
        for name, captured in self.captured.items():
            if name not in tops:
                sizes.setdefault(_sort(self.descs[name]), []).append(captured.bytes)
        total = 0
        for name, desc in self.descs.items():
            if name not in self.captured:
                known = sizes.get(_sort(desc))
                total += int(sum(known) / len(known)) if known else self.typical_bytes(desc)
        return total

    def typical_bytes(self, desc: Any) -> int:
        """Driver memory of one such graph, by our forecast."""
        kind, loras = _sort(desc)
        drafted = 0 if self.pairs is None else self.pairs.layers[graph_id(desc)]
        latent = bool(getattr(self.runner.vllm_config.model_config, "use_mla", False))
        return forecast.typical_graph_bytes(kind, self.layers(), latent, loras, drafted)

    def purge(self, graph: str) -> None:
        """Forget a graph: what a failed capture left behind, or one that failed its check."""
        if self.captured.pop(graph, None) is not None:
            self.epoch += 1
        self.adapter.forget(self.manager, self.descs[graph])
        if self.pairs is not None:
            self.pairs.forget(graph, self.captured)

    def servable(self) -> list[str]:
        """What of the captured graphs may serve: none without its drafter's."""
        return list(self.captured if self.pairs is None else self.pairs.whole(self.captured))

    def release_empty(self, gone: Iterable[str]) -> None:
        """Give up the pools that lost their last graph: torch can't capture into them again."""
        held = {self.pools.home(graph) for graph in self.captured}
        left = {self.pools.home(graph) for graph in gone}
        if self.pairs is not None and self.pairs.drafter.has_decodes:
            # What several tiers may share lies in none of them.
            (held if self.pairs.has_shared() else left).add(DEFAULT)
        for home in left - held:
            self.pools.release(home)


def _sort(desc: Any) -> tuple[str, int]:
    """Graphs of one sort take alike: those of a kind and an adapter case."""
    return desc.cg_mode.name, int(desc.num_active_loras)
