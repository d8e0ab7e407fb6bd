"""A rank's drafter beside its target: which of its graphs are there, and with whom they go.

On each rank, on the thread that runs the model. The rule is ``rules.pairs``; vLLM's part is
``vllm.drafts``. An engine without a drafter that has graphs has no ``Pairs``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..protocol.graph import Graph
from ..rules.pairs import DECODE, Draft, layers_of, pair
from ..vllm.adapter import Adapter
from ..vllm.drafts import Drafter
from .descriptors import describe_graph, graph_id


class Pairs:
    """One per rank with a drafter.

    Attributes:
        drafter: vLLM's.
        partners: the drafter's graphs that go along with each of the target's, by its id.
        layers: decoder layers of the drafter that are recorded with each.
        captured: the drafter's graphs that are there.
    """

    def __init__(self, drafter: Drafter, targets: Sequence[Graph], decode_length: int) -> None:
        self.drafter = drafter
        decodes = [describe_graph(desc) for desc in self.descs()]
        self.partners: Mapping[str, tuple[Draft, ...]] = pair(targets, decodes, decode_length)
        self.layers = layers_of(self.partners, targets, drafter.layers, drafter.decode_passes)
        self.captured: set[Draft] = set()

    def missing(self, graph: str) -> list[Draft]:
        """What of its partners isn't there yet."""
        return [draft for draft in self.partners[graph] if draft not in self.captured]

    def whole(self, graphs: Iterable[str]) -> list[str]:
        """Those of these graphs whose partners are all there: no other may serve."""
        return [graph for graph in graphs if all(map(self._is_there, self.partners[graph]))]

    def _is_there(self, draft: Draft) -> bool:
        return draft in self.captured and self.drafter.holds(draft)

    def capture(self, graph: str) -> None:
        """Capture what is missing of its partners; inside ``Adapter.capturing``."""
        if left := self.missing(graph):
            self.drafter.capture(left)
            self.captured.update(left)

    def worst_difference(self, graph: str, target: float) -> float | None:
        """The largest relative difference of a graph, ``target``, and of its partners.

        Returns:
            ``None``: one of the runs without a graph has no numbers to compare with.
        """
        worst = target
        for draft in self.partners[graph]:
            difference = self.drafter.difference(draft)
            if difference is None:
                return None
            worst = max(worst, difference)
        return worst

    def forget(self, graph: str, others: Collection[str]) -> None:
        """Drop its partners, but for those that one of ``others`` has, too.

        Args:
            graph: of the target; it is gone.
            others: what of the target is captured besides.
        """
        kept = {draft for other in others for draft in self.partners[other]}
        for draft in self.partners[graph]:
            if draft not in kept:
                self.drafter.forget(draft)
                self.captured.discard(draft)

    def descs(self) -> list[Any]:
        """VLLM's descriptors of the drafter's decode graphs; the others are as the target's."""
        return [self.drafter.desc(draft) for draft in self.drafter.drafts(DECODE)]

    def has_shared(self) -> bool:
        """Whether graphs that lie in no tier's pool are there."""
        return any(draft.role == DECODE for draft in self.captured)

    def warm_up_set(self) -> list[Draft]:
        """The largest and the smallest graph of each role and kind."""
        ends: dict[tuple[str, str], list[Draft]] = {}
        for partners in self.partners.values():
            for draft in partners:
                kind = self.drafter.desc(draft).cg_mode.name
                ends.setdefault((draft.role, kind), []).append(draft)

        def tokens(draft: Draft) -> int:
            return int(self.drafter.desc(draft).num_tokens)

        found = (of(group, key=tokens) for group in ends.values() for of in (max, min))
        return list(dict.fromkeys(found))


def described(descs: Iterable[Any], pairs: Pairs | None) -> list[Graph]:
    """The protocol's view of the target's graphs, with what goes along of a drafter's."""
    layers = {} if pairs is None else pairs.layers
    return [describe_graph(desc, layers.get(graph_id(desc), 0)) for desc in descs]


def pairs_of(adapter: Adapter, runner: Any, descs: Iterable[Any]) -> Pairs | None:
    """The pairs of this runner's graphs; ``None`` where no drafter has any.

    Args:
        adapter: for this vLLM.
        runner: vLLM's ``GPUModelRunner``.
        descs: all planned graphs of the target.
    """
    drafter = adapter.drafter(runner, graph_id)
    if drafter is None:
        return None
    targets = described(descs, None)
    return Pairs(drafter, targets, runner.cudagraph_manager.decode_query_len)
