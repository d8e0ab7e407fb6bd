"""vLLM's descriptors of graphs, in the protocol's words. Pure.

On each rank: a descriptor is vLLM's ``BatchExecutionDescriptor`` and never leaves the rank's
process; what the engine and the controller see is its id, or a ``Graph``.
"""

from __future__ import annotations

from typing import Any

from .messages import Graph

KNOWN_FIELDS = frozenset(
    (
        "cg_mode",
        "num_tokens",
        "num_reqs",
        "uniform_token_count",
        "max_query_len",
        "num_active_loras",
        "num_ubatches",
    )
)


def unknown_fields(desc: Any) -> list[str]:
    """Fields of a descriptor that nobody here knows and that are not at their default."""
    fields = getattr(desc, "__dataclass_fields__", {})
    return [
        name
        for name, field in fields.items()
        if name not in KNOWN_FIELDS and getattr(desc, name) != field.default
    ]


def graph_id(desc: Any) -> str:
    """The stable id of one of vLLM's ``BatchExecutionDescriptor``."""
    base = f"{desc.cg_mode.name}:{desc.num_tokens}"
    if desc.cg_mode.name == "PIECEWISE":
        return base if desc.num_reqs is None else f"{base}:r{desc.num_reqs}"
    if desc.uniform_token_count is None:
        return f"{base}:mixed"
    return base if desc.uniform_token_count == 1 else f"{base}:u{desc.uniform_token_count}"


def describe_graph(desc: Any) -> Graph:
    """The protocol's view of a descriptor."""
    return Graph(
        id=graph_id(desc),
        kind=desc.cg_mode.name,
        tokens=desc.num_tokens,
        requests=desc.num_reqs,
        uniform=desc.uniform_token_count,
    )
