"""The part of checks.py that is about recurrent states: whether a capture touches a live request's.

Hybrid models (Mamba, gated delta nets, KDA) keep one state a request and layer in a block of the KV
cache, which every run of the layer writes; with prefix caching also those at boundaries of blocks,
and each state moves on to the next block there. A capture's dummy requests point at block 0, which
the kernels skip. The control points them at blocks of live requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def live_states(runner: Any) -> Iterator[Any]:
    """Each recurrent layer's states of the requests that run, copied: ``[blocks, ...]``."""
    import torch
    from vllm.v1.kv_cache_interface import MambaSpec

    rows = sorted(runner.req_states.req_id_to_index.values())
    layers = runner.vllm_config.compilation_config.static_forward_context
    for index, group in enumerate(runner.kv_cache_config.kv_cache_groups):
        if not rows or not isinstance(group.kv_cache_spec, MambaSpec):
            continue
        table = runner.block_tables.block_tables[index].gpu[rows].long()
        blocks = table[table > 0].unique()
        for name in group.layer_names:
            for state in layers[name].kv_cache:
                # As bytes: what is no number is to equal itself.
                yield state[blocks].flatten(1).contiguous().view(torch.uint8)


def watched(worker: Any, capture: Any, graph: str) -> tuple[str | None, int, int]:
    """Capture a graph on this rank.

    In one call: between two an engine steps on, and its requests' states change as they should.

    Returns:
        Why not, how many states are others after it, and how many there are, of all layers and
        requests that run.
    """
    before = settled_states(worker)
    error = capture(worker, graph)
    now = settled_states(worker)
    changed = sum(int((a != b).any(1).sum()) for a, b in zip(before, now, strict=True))
    return error, changed, sum(len(states) for states in now)


def settled_states(worker: Any) -> list[Any]:
    """The states once nothing runs on the device."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return list(live_states(worker.model_runner))


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
                owners = torch.tensor([live[request % len(live)] for request in range(num_reqs)])
                columns = columns_of(runner, owners, table.gpu.shape[1])
                group[:num_reqs] = table.gpu[owners, columns].unsqueeze(1)
        return rows

    tables.get_dummy_block_tables = careless


def columns_of(runner: Any, rows: Any, width: int) -> Any:
    """Where in their tables these requests' states are; the first where prefixes aren't cached."""
    import torch

    moving = getattr(getattr(runner, "model_state", None), "_mamba_state_idx_gpu", None)
    if moving is None or width == 1:
        return torch.zeros_like(rows)
    return moving[rows].long().clamp(0, width - 1).to(rows.device)


class Watch:
    """Captures graphs of one engine, and counts what that touches."""

    def __init__(self, engine: Any, capture: Any) -> None:
        """Nothing is captured yet; ``capture`` is for a rank, by worker and graph."""
        self._engine = engine
        self._capture = capture
        self._touched: dict[str, int] = {}
        self._states = 0

    def capture(self, graph: str) -> list[str | None]:
        """Capture a graph on all ranks; why not, by rank."""
        answers = self._engine.collective_rpc(watched, args=(self._capture, graph))
        if changed := sum(changed for _, changed, _ in answers):
            self._touched[graph] = changed
        self._states += sum(count for _, _, count in answers)
        return [error for error, _, _ in answers]

    def told(self) -> dict[str, Any]:
        """States that were looked at, and of which graph how many changed."""
        return {"states": self._states, "touched": self._touched}


def fine(parts: dict[str, dict[str, Any]]) -> bool:
    """Captures of ours touched none of the states that there were, those of the control some."""
    ours, control = parts["ours"], parts["control"]
    if "crashed" not in control and not control.get("touched"):
        return False
    return ours.get("states", 0) > 0 and not ours["touched"]
