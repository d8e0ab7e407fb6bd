"""Which of a drafter's graphs serves a step: its dispatch follows the target's choice.

On each rank, on the thread that runs the model, right after the target's dispatch of the same step.

The drafter's first run has the target's batch and is given the target's attention metadata. Stock
dispatches it anew by the target's padded size and finds the same shape, since both have all graphs.
With some of them missing it could find another one: a target that ran 13 tokens ungraphed, a
drafter's graph for 16, and metadata for 13. So it gets the partner of the graph that the target
ran, or none. The runs after it build metadata of their own for its requests, padded as that graph
wants it: there any captured size that is not too far will do, as in stock.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from ..rules.dispatch import pad_limit
from ..rules.pairs import DECODE, PREFILL, Draft, Role
from ..vllm.adapter import StepCall
from .pairs import Pairs
from .state import RankState

logger = logging.getLogger("vllm.lazygraph")


class DraftDispatch:
    """One per rank with a drafter."""

    def __init__(self, state: RankState, pairs: Pairs, last_served: Callable[[], str]) -> None:
        """Serves nothing before ``rebuild``.

        Args:
            state: what the rank holds.
            pairs: of it.
            last_served: id of the graph that the target's last dispatch gave; empty: none.
        """
        self._state = state
        self._pairs = pairs
        self._last_served = last_served
        self._told = False
        # Sizes that stock pads to, and the largest that each graph of the target may want.
        self._sizes = sorted(desc.num_tokens for desc in pairs.descs())
        self._reach = {
            graph: max((pairs.drafter.desc(d).num_tokens for d in partners if d.role == DECODE),
                       default=0)
            for graph, partners in pairs.partners.items()
        }  # fmt: skip
        self._captured: list[tuple[int, Any]] = []

    def hooks(self) -> Mapping[Role, Callable[[StepCall], Any]]:
        """What stands in for each manager's dispatch."""
        return {PREFILL: self.prefill, DECODE: self.decode}

    def rebuild(self) -> None:
        """Look anew at what is captured, between two steps."""
        drafter = self._pairs.drafter
        held = [d for d in self._pairs.captured if d.role == DECODE and drafter.holds(d)]
        descs = (drafter.desc(draft) for draft in held)
        self._captured = sorted(((d.num_tokens, d) for d in descs), key=lambda pair: pair[0])

    def prefill(self, call: StepCall) -> Any:
        """The partner of the graph that the target runs this step in."""
        name = self._last_served()
        if not name:
            return self._ungraphed(call)
        desc = self._pairs.drafter.desc(Draft(PREFILL, name))
        if call.tokens == desc.num_tokens and call.requests <= (desc.num_reqs or call.requests):
            return desc
        if not self._told:
            # What vLLM does here is not what we know: without a graph it is right all the same.
            self._told = True
            logger.warning(
                "lazygraph: the target ran %s and its drafter is asked for %d tokens of %d "
                "requests: it drafts without graphs there",
                name,
                call.tokens,
                call.requests,
            )
        return self._ungraphed(call)

    def decode(self, call: StepCall) -> Any:
        """The smallest captured size, if it isn't too far."""
        place = bisect_left(self._captured, call.requests, key=lambda pair: pair[0])
        if place == len(self._captured):
            return self._ungraphed(call)
        tokens, desc = self._captured[place]
        next_size = bisect_left(self._sizes, call.requests)
        stock = self._sizes[next_size] if next_size < len(self._sizes) else 0
        reach = self._reach.get(self._last_served(), 0)
        if tokens <= max(pad_limit(call.requests), stock, reach):
            return desc
        return self._ungraphed(call)

    def _ungraphed(self, call: StepCall) -> Any:
        state = self._state
        return state.adapter.ungraphed(next(iter(state.descs.values())), call)
