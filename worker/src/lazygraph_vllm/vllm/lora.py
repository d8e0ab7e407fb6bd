"""Captures on an engine with LoRA adapters, without touching an adapter. vLLM 0.31 to 0.33.

A graph is captured for an adapter case: how many adapters its kernels may meet. vLLM makes a case
by loading dummy adapters under the ids 1, 2, … into the slots, and removes *all* adapters at the
end. That is right before the first request. Between two steps the same ids may be users' adapters:
activating them throws others out of their slots, and the removal unloads everybody's.

But a graph doesn't read which adapter is where while it is captured. It records addresses (the
slots' stacked weights, the kernels' metadata), which never move, and the size of its grids, which
is the case. So between steps only the metadata says that there are so many adapters, by vLLM's own
mapping of dummy requests to slots; registry, slots, weights and their order of use stay as they
are. The next step writes its own metadata first, as it does after vLLM's own removal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

# Of vLLM's ``LoRAModelManager``: what is called or changed here.
MANAGER_HOOKS = ("_set_adapter_mapping", "_last_mapping", "lora_index_to_id", "lora_slots")


def has_adapters(runner: Any) -> bool:
    """Whether this runner serves LoRA adapters."""
    return getattr(runner, "lora_config", None) is not None


def missing(runner: Any) -> str | None:
    """What this vLLM lacks for captures beside adapters, as a sentence; ``None``: nothing."""
    if not has_adapters(runner):
        return None
    worker_manager = getattr(runner, "lora_manager", None)
    manager = getattr(worker_manager, "_adapter_manager", None)
    if manager is None:
        return "this vLLM's model runner has no lora_manager"
    gone = [name for name in MANAGER_HOOKS if not hasattr(manager, name)]
    if gone:
        return f"this vLLM's manager of LoRA adapters lacks {gone[0]}"
    if not hasattr(runner, "_set_active_loras"):
        return "this vLLM's model runner lacks _set_active_loras"
    return None


@contextlib.contextmanager
def metadata_only(runner: Any) -> Iterator[None]:
    """Dummy adapters that vLLM activates inside are known to the kernels' metadata alone."""
    if not has_adapters(runner):
        yield
        return
    manager = runner.lora_manager._adapter_manager
    # vLLM's dummies have the ids from 1 on, and each step of it maps ids to slots by this list.
    dummies: list[int | None] = list(range(1, manager.lora_slots + 1))

    def set_active_loras(
        prompt_mapping: tuple[int, ...],
        token_mapping: tuple[int, ...],
        _: Any,
        *mapping_type: Any,
    ) -> None:
        from vllm.lora.layers import LoRAMapping

        # As in vLLM's own method, whose other half loads and activates what is asked for.
        mapping = LoRAMapping(token_mapping, prompt_mapping, True, *mapping_type)
        users, manager.lora_index_to_id = manager.lora_index_to_id, dummies
        try:
            manager._set_adapter_mapping(mapping)
        finally:
            manager.lora_index_to_id = users

    runner._set_active_loras = set_active_loras
    try:
        yield
    finally:
        del runner._set_active_loras
        # What the metadata says now is no step's: none may think that it is its own.
        manager._last_mapping = None
