"""The part of checks.py that is about recurrent states: whether a capture touches a live request's.

Hybrid models (Mamba, gated delta nets, KDA) keep one state a request and layer in a block of the KV
cache, which every run of the layer writes. A capture's dummy requests point at block 0, which the
kernels skip. The control points them at blocks of live requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


def live_states(runner: Any) -> Iterator[Any]:
    """Each recurrent layer's states of the requests that run, copied: ``[requests, ...]``."""
    import torch
    from vllm.v1.kv_cache_interface import MambaSpec

    rows = sorted(runner.req_states.req_id_to_index.values())
    layers = runner.vllm_config.compilation_config.static_forward_context
    for index, group in enumerate(runner.kv_cache_config.kv_cache_groups):
        if not rows or not isinstance(group.kv_cache_spec, MambaSpec):
            continue
        blocks = runner.block_tables.block_tables[index].gpu[rows, 0].long()
        for name in group.layer_names:
            for state in layers[name].kv_cache:
                # As bytes: what is no number is to equal itself.
                yield state[blocks].flatten(1).contiguous().view(torch.uint8)


def note_states(worker: Any) -> None:
    """Remember the states on this rank."""
    worker.lazygraph_states = list(live_states(worker.model_runner))


def touched_states(worker: Any) -> tuple[int, int]:
    """How many of them are others now, and how many there are, of all layers and requests."""
    before, now = worker.lazygraph_states, list(live_states(worker.model_runner))
    worker.lazygraph_states = []
    changed = sum(int((a != b).any(1).sum()) for a, b in zip(before, now, strict=True))
    return changed, sum(len(states) for states in now)


def lend_blocks_in_use(worker: Any) -> None:
    """Positive control: a capture's dummy requests have blocks, and states, of live ones."""
    import torch

    runner = worker.model_runner
    tables = runner.block_tables
    careful = tables.get_dummy_block_tables

    def careless(num_reqs: int) -> Any:
        rows = careful(num_reqs)
        live = sorted(runner.req_states.req_id_to_index.values())
        for group, table in zip(rows, tables.block_tables, strict=True):
            if live:
                owners = [live[request % len(live)] for request in range(num_reqs)]
                group[:num_reqs] = table.gpu[torch.tensor(owners), 0].unsqueeze(1)
        return rows

    tables.get_dummy_block_tables = careless


class Watch:
    """Counts what the captures of one engine touch; call it with a graph's name around each."""

    def __init__(self, engine: Any) -> None:
        """Nothing is looked at yet."""
        self._engine = engine
        self._touched: dict[str, int] = {}
        self._states = 0

    @contextlib.contextmanager
    def __call__(self, graph: str) -> Iterator[None]:
        """Around the capture of this graph."""
        self._engine.collective_rpc(note_states)
        yield
        answers = self._engine.collective_rpc(touched_states)
        if changed := sum(changed for changed, _ in answers):
            self._touched[graph] = changed
        self._states += sum(count for _, count in answers)

    def told(self) -> dict[str, Any]:
        """States that were looked at, and of which graph how many changed."""
        return {"states": self._states, "touched": self._touched}


def fine(parts: dict[str, dict[str, Any]]) -> bool:
    """Captures of ours touched none of the states that there were, those of the control some."""
    ours, control = parts["ours"], parts["control"]
    if "crashed" not in control and not control.get("touched"):
        return False
    return ours.get("states", 0) > 0 and not ours["touched"]
