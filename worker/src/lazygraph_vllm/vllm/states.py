"""Recurrent states on loan, to check a graph of a model that has any (Mamba, gated delta nets).

A dummy batch points every request at block 0, which the kernels skip: their outputs are then
whatever lay in memory, and no comparison says anything. So a few of its requests get blocks of
their own, whose states are zeroed before each run and put back after the check. Only their rows are
compared. Nothing runs meanwhile: a check is made between two steps, on the thread of the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

# A state takes up to some MiB a layer: so many requests at the start and at the end of the batch.
BORROWED_AT_EACH_END = 4


class States:
    """What is borrowed; nothing, unless ``borrow`` found recurrent states.

    Attributes:
        requests: those of the dummy batch that have a state of their own; ``None``: all count.
    """

    def __init__(self, views: Sequence[Any] = (), requests: Sequence[int] | None = None) -> None:
        self.requests = requests
        self._views = views

    def reset(self) -> None:
        """Zero the states, as for a request that begins."""
        for view in self._views:
            view.zero_()

    def rows(self, tokens: int, requests: int) -> slice | list[int]:
        """The rows of the output that say something."""
        if self.requests is None:
            return slice(None)
        # vLLM's dummy batch gives every request the same number of tokens, the last ones one more.
        each, more = divmod(tokens, requests)
        begins = [i * each + max(0, i - (requests - more)) for i in range(requests + 1)]
        return [row for i in self.requests for row in range(begins[i], begins[i + 1])]


@contextlib.contextmanager
def borrow(runner: Any, requests: int) -> Iterator[States]:
    """Dummy batches built inside use states of their own; see ``Adapter.borrowed_states``."""
    groups = _recurrent_groups(runner)
    if not groups:
        yield States()
        return
    every = range(requests)
    chosen = sorted({*every[:BORROWED_AT_EACH_END], *every[-BORROWED_AT_EACH_END:]})
    # Block 0 stays the null block; who else uses the others gets their contents back.
    blocks = range(1, len(chosen) + 1)
    views = [state[1 : len(chosen) + 1] for state in _states(runner)]
    kept = [view.clone() for view in views]
    tables = runner.block_tables
    # Somebody else's replacement stays: vLLM's own is the class's.
    replaced = vars(tables).get("get_dummy_block_tables")
    dummy = tables.get_dummy_block_tables

    def with_own_blocks(num_reqs: int) -> Any:
        rows = dummy(num_reqs)
        for group in groups:
            for request, block in zip(chosen, blocks, strict=True):
                rows[group][request].fill_(block)
        return rows

    tables.get_dummy_block_tables = with_own_blocks
    try:
        yield States(views, chosen)
    finally:
        if replaced is None:
            del tables.get_dummy_block_tables
        else:
            tables.get_dummy_block_tables = replaced
        for view, before in zip(views, kept, strict=True):
            view.copy_(before)


def _recurrent_groups(runner: Any) -> list[int]:
    """By the KV cache itself: vLLM has several words for models that keep states."""
    from vllm.v1.kv_cache_interface import MambaSpec

    groups = runner.kv_cache_config.kv_cache_groups
    return [i for i, group in enumerate(groups) if isinstance(group.kv_cache_spec, MambaSpec)]


def _states(runner: Any) -> list[Any]:
    layers = runner.vllm_config.compilation_config.static_forward_context.values()
    recurrent = [layer for layer in layers if hasattr(layer, "get_state_shape")]
    return [state for layer in recurrent for state in layer.kv_cache]
