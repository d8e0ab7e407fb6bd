"""Which captured graph serves a step: what stands in for ``CudaGraphManager.dispatch``.

On each rank, on the thread that runs the model. ``choose`` is in the path of every step: one
look-up of what a step like it got before, or in lists that are made anew when a capture, a purge, a
drop or the controller's table changes something, between two steps. The rule behind the lists is
``dispatch``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..protocol.messages import Dispatch, DispatchRow
from ..rules.dispatch import TableError, default_table, expand
from ..vllm.adapter import StepCall
from .descriptors import graph_id
from .draft_dispatch import DraftDispatch
from .state import RankState

# By a step's tokens: id and vLLM's descriptor of the graphs to try.
LookUp = list[tuple[tuple[str, Any], ...]]
# Steps whose answer is kept.
KEPT_MAX = 1024


class RankDispatch:
    """One per rank.

    Attributes:
        table: the controller's; ``None``: our rule.
        last_served: id of the graph that the last step got; empty: it ran ungraphed.
        last_call: that step, by the LoRA case its graph must have been captured for.
        decode_length: tokens of each request in a decode step.
        drafts: what a drafter runs after it; ``None``: nothing that has graphs.
    """

    def __init__(self, state: RankState) -> None:
        self.table: Dispatch | None = None
        self.last_served = ""
        self.last_call = StepCall(0, 0, None, 0)
        self._state = state
        # Of the state, for ``choose``.
        self._adapter = state.adapter
        self._manager = state.manager
        self.decode_length: int = state.manager.decode_query_len
        self._descs = state.descs
        self._uniform: LookUp = [()]
        self._mixed: LookUp = [()]
        self._kept: dict[StepCall, tuple[StepCall, str, Any]] = {}
        # vLLM's own candidates, as the first rebuild found them.
        self._stock: dict[Any, list[Any]] | None = None
        # Only then does a step's query length tell steps apart.
        self.limits_queries = any(g.query_length is not None for g in state.graphs)
        self._tokens_max = max((g.tokens for g in state.graphs), default=0)
        self.drafts: DraftDispatch | None = None
        if state.pairs is not None:
            self.drafts = DraftDispatch(state, state.pairs, lambda: self.last_served)

    def choose(self, call: StepCall) -> Any:
        """Stands in for ``CudaGraphManager.dispatch``: one look-up, captured graphs only."""
        kept = self._kept.get(call)
        if kept is None:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            kept = self._kept[call] = self._look_up(call)
        self.last_call, self.last_served, desc = kept
        return desc

    def _look_up(self, call: StepCall) -> tuple[StepCall, str, Any]:
        adapter = self._adapter
        call = adapter.effective(self._manager, call)
        is_decode = call.uniform == self.decode_length
        rows = self._uniform if is_decode else self._mixed
        if 0 < call.tokens < len(rows):
            for name, desc in rows[call.tokens]:
                if adapter.serves(desc, call):
                    return call, name, desc
        return call, "", adapter.ungraphed(next(iter(self._descs.values())), call)

    # -------------------------------------------------------------- between steps

    def set_table(self, table: Dispatch | None) -> None:
        """Use the controller's table from the next step on; ``None`` goes back to our rule.

        Raises:
            TableError: it names a graph that isn't captured; the old table stays.
        """
        if table is not None:
            self._expand(table, self._state.captured)
        self.table = table
        self.rebuild()

    def leave_out(self, gone: frozenset[str]) -> None:
        """Take graphs out of the controller's table: what is left of it still holds."""
        if self.table is None:
            return

        def kept(rows: Sequence[DispatchRow]) -> tuple[DispatchRow, ...]:
            return tuple(
                DispatchRow(up_to=r.up_to, graphs=tuple(g for g in r.graphs if g not in gone))
                for r in rows
            )

        self.table = Dispatch(uniform=kept(self.table.uniform), mixed=kept(self.table.mixed))

    def rebuild(self) -> None:
        """Recompute the look-up lists, and vLLM's own candidates, from what is captured."""
        self._kept.clear()
        state, manager = self._state, self._manager
        servable = state.servable()
        known = frozenset(servable)
        table = self.table
        if table is None:
            captured = [g for g in state.graphs if g.id in known]
            table = default_table(captured, self.decode_length, state.graphs)
        try:
            self._uniform, self._mixed = self._expand(table, servable)
        except TableError:
            # A graph the table names was purged meanwhile: fall back to the rule.
            self.table = None
            return self.rebuild()
        # Whoever reads vLLM's own table must not find a graph that isn't there either.
        manager._candidates = {
            key: found
            for key, descs in self._stock_candidates().items()
            if (found := [d for d in descs if graph_id(d) in known])
        }
        manager._graphs_captured = True
        if self.drafts is not None:
            self.drafts.rebuild()

    def _expand(self, table: Dispatch, captured: Iterable[str]) -> tuple[LookUp, LookUp]:
        known = {g: (g, self._descs[g]) for g in captured}
        return (
            expand(table.uniform, known, self._tokens_max),
            expand(table.mixed, known, self._tokens_max),
        )

    def _stock_candidates(self) -> dict[Any, list[Any]]:
        if self._stock is None:
            self._stock = dict(self._manager._candidates)
        return self._stock
