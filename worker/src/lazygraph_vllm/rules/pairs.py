"""Which of a drafter's graphs go along with which of its target's. Pure.

A step of an engine that drafts runs the target once, and then its drafter: first over the target's
own batch ("prefill"), then token by token over its requests ("decode"). vLLM plans a prefill graph
of the drafter for each of the target's, of the same shape, and decode graphs by the number of
requests. Here each graph of the target gets the drafter's graphs that its steps would replay: they
are captured, checked, dropped and counted together, or none of them serves.

Several sizes of the target may want the same decode graph: it stays as long as one of them does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ..protocol.graph import Graph

Role = Literal["prefill", "decode"]
PREFILL: Role = "prefill"
DECODE: Role = "decode"


class Draft(NamedTuple):
    """One graph of a drafter.

    Attributes:
        role: which of its two runs it is of.
        graph: its id, made as the target's are.
    """

    role: Role
    graph: str


def pair(
    targets: Sequence[Graph], decodes: Sequence[Graph], decode_length: int
) -> dict[str, tuple[Draft, ...]]:
    """The drafter's graphs of each of the target's.

    A decode graph that no step of a FULL graph wants serves mixed steps of many requests: it goes
    to the smallest graph of as many tokens, a PIECEWISE one if there are any.

    Args:
        targets: all planned graphs of the target.
        decodes: all planned decode graphs of its drafter; none where it drafts one token.
        decode_length: tokens of each request in a decode step of the target.
    """
    ordered = sorted(decodes, key=lambda g: g.tokens)
    sizes = [g.tokens for g in ordered]
    wanted: dict[str, list[str]] = {g.id: [] for g in targets}
    served: set[str] = set()
    for group in _by_uniform(targets).values():
        below = 0
        for graph in group:
            reach = _requests(graph, decode_length)
            # Steps of more than ``below`` and at most ``reach`` requests are padded to these.
            if reach > below:
                first, last = bisect_left(sizes, below + 1), bisect_left(sizes, reach)
                wanted[graph.id] = [g.id for g in ordered[first : last + 1]]
            served.update(wanted[graph.id])
            below = max(below, reach)
    for decode in ordered:
        if decode.id not in served and targets:
            wanted[_home(targets, decode.tokens).id].append(decode.id)
    return {
        graph: (Draft(PREFILL, graph), *(Draft(DECODE, name) for name in names))
        for graph, names in wanted.items()
    }


def layers_of(
    pairs: Mapping[str, Sequence[Draft]], order: Sequence[Graph], layers: int, decode_passes: int
) -> dict[str, int]:
    """Decoder layers of the drafter that are recorded with each graph, for its forecast.

    What several graphs share counts once, with the first of them to be captured in stock's order.

    Args:
        pairs: of ``pair``.
        order: the target's graphs; the largest are captured first.
        layers: of the drafter.
        decode_passes: how often one decode graph runs it.
    """
    passes = {"prefill": 1, "decode": decode_passes}
    counted: set[Draft] = set()
    found: dict[str, int] = {}
    for graph in sorted(order, key=lambda g: -g.tokens):
        new = [draft for draft in pairs[graph.id] if draft not in counted]
        counted.update(new)
        found[graph.id] = layers * sum(passes[draft.role] for draft in new)
    return found


def _by_uniform(targets: Sequence[Graph]) -> dict[int, list[Graph]]:
    """FULL graphs by the tokens of each request (0: any), smallest first."""
    groups: dict[int, list[Graph]] = {}
    for graph in sorted(targets, key=lambda g: g.tokens):
        if graph.kind == "FULL":
            groups.setdefault(graph.uniform or 0, []).append(graph)
    return groups


def _requests(graph: Graph, decode_length: int) -> int:
    """Requests of the largest decode step that it serves."""
    return min(graph.tokens // (graph.uniform or decode_length), graph.requests or graph.tokens)


def _home(targets: Sequence[Graph], tokens: int) -> Graph:
    ordered = sorted(targets, key=lambda g: (g.kind != "PIECEWISE", g.tokens))
    return next((g for g in ordered if g.tokens >= tokens), max(ordered, key=lambda g: g.tokens))
