"""vLLM's descriptors of graphs, in the protocol's words. Pure.

On each rank: a descriptor is vLLM's ``BatchExecutionDescriptor`` and never leaves the rank's
process; what the engine and the controller see is its id, or a ``Graph``. Fields that a version of
vLLM doesn't have stand at their defaults: ``max_query_len`` came with 0.28, ``num_ubatches`` with
0.30. Source: ``vllm/v1/worker/gpu/cudagraph_utils.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from ..protocol.graph import Graph

# What an id and a ``Graph`` hold of a descriptor.
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


class DescriptorError(ValueError):
    """Descriptors that can't be told apart by what is known of them; the text says which."""


def graph_id(desc: Any) -> str:
    """The stable id of one of vLLM's ``BatchExecutionDescriptor``.

    Kind and padded tokens, then what is not at its default: ``:mixed`` (FULL, any mixture), ``:u4``
    (4 tokens a request), ``:r64`` (64 requests, where they don't follow from the tokens), ``:q16``
    (at most 16 tokens a request), ``:l2`` (2 active adapters), ``:b2`` (2 microbatches). The
    requests of a mixed FULL graph follow from the engine's limit, which is one for all.
    """
    parts = [desc.cg_mode.name, str(desc.num_tokens)]
    uniform = desc.uniform_token_count
    if desc.cg_mode.name == "FULL" and uniform is None:
        parts.append("mixed")
    elif uniform is not None and (uniform != 1 or desc.cg_mode.name != "FULL"):
        parts.append(f"u{uniform}")
    if not _requests_follow(desc):
        parts.append(f"r{desc.num_reqs}")
    if (longest := _query_length(desc)) is not None:
        parts.append(f"q{longest}")
    if desc.num_active_loras:
        parts.append(f"l{desc.num_active_loras}")
    if (count := _microbatches(desc)) != 1:
        parts.append(f"b{count}")
    return ":".join(parts)


def describe_graph(desc: Any, draft_layers: int = 0) -> Graph:
    """The protocol's view of a descriptor; ``draft_layers``: of the drafter's, with it."""
    return Graph(
        id=graph_id(desc),
        kind=desc.cg_mode.name,
        tokens=desc.num_tokens,
        requests=desc.num_reqs,
        uniform=desc.uniform_token_count,
        loras=desc.num_active_loras,
        query_length=_query_length(desc),
        microbatches=_microbatches(desc),
        draft_layers=draft_layers,
    )


def by_id(descs: Iterable[Any]) -> dict[str, Any]:
    """Descriptors by their ids, in their order.

    Raises:
        DescriptorError: two of them have one id, so that one graph would be taken for another.
    """
    found: dict[str, Any] = {}
    for desc in descs:
        other = found.setdefault(graph_id(desc), desc)
        if other != desc:
            raise DescriptorError(
                f"expected each graph to have an id of its own, got {graph_id(desc)} for {other} "
                f"and for {desc}"
            )
    return found


def unknown_fields(desc: Any) -> tuple[str, ...]:
    """Names of a descriptor's fields that we don't know and that are not at their defaults.

    Where there is one, graphs differ in something that neither an id nor a step can say: the engine
    must run as stock. A field without a default counts as not at it.
    """
    return tuple(
        field.name
        for field in dataclasses.fields(desc)
        if field.name not in KNOWN_FIELDS and not _at_default(field, getattr(desc, field.name))
    )


def unsupported(descs: Iterable[Any]) -> str | None:
    """Why an engine with these graphs must run as stock, as the sentence to log; ``None``: no."""
    descs = tuple(descs)
    for desc in descs:
        for name in unknown_fields(desc):
            value = str(getattr(desc, name))[:64]
            return f"a descriptor has the field {name} = {value}, which lazygraph doesn't know"
    try:
        by_id(descs)
    except DescriptorError as error:
        return str(error)
    return None


def _at_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False


def _requests_follow(desc: Any) -> bool:
    """Whether the number of requests is what the rest of the id implies."""
    if desc.cg_mode.name != "FULL":
        return desc.num_reqs is None
    uniform = desc.uniform_token_count
    return uniform is None or desc.num_reqs == desc.num_tokens // uniform


def _query_length(desc: Any) -> int | None:
    longest: int | None = getattr(desc, "max_query_len", None)
    return longest


def _microbatches(desc: Any) -> int:
    return int(getattr(desc, "num_ubatches", 1))
