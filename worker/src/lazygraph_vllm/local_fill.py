"""What an engine captures when nobody tells it: the defaults of its mode. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from .messages import Graph, Mode

# A graph has to be missed this often before a lazy engine without controller captures it.
LAZY_MISSES_MIN = 3


def top_graphs(graphs: Iterable[Graph]) -> list[Graph]:
    """The largest graph of each kind and uniform length, PIECEWISE first as in stock."""
    tops: dict[tuple[str, int], Graph] = {}
    for graph in graphs:
        group = (graph.kind, graph.uniform or 0)
        if group not in tops or graph.tokens > tops[group].tokens:
            tops[group] = graph
    return sorted(tops.values(), key=lambda g: (g.kind != "PIECEWISE", -g.tokens))


def first_set(mode: Mode, graphs: Sequence[Graph]) -> list[Graph]:
    """What to capture before ready."""
    return list(graphs) if mode == "eager" else top_graphs(graphs)


def next_capture(
    mode: Mode, graphs: Sequence[Graph], done: Collection[str], misses: Mapping[str, int]
) -> Graph | None:
    """The next graph to capture while idle; ``done`` holds captured, failed and refused ids."""
    left = [g for g in graphs if g.id not in done]
    if mode == "eager" or not left:
        return None
    if mode == "lazy":
        left = [g for g in left if misses.get(g.id, 0) >= LAZY_MISSES_MIN]
        return max(left, key=lambda g: misses[g.id], default=None)
    return max(left, key=lambda g: (g.tokens, g.kind == "PIECEWISE"))
