"""Graphs, steps, and which covers which: the mirror of ``src/base/graph.ts``. Pure.

Both are parts of messages; ``messages`` has the rest. ``test/golden/covers.json.gz`` holds both
sides to one rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec


class Graph(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One graph the engine could capture; see ``src/base/graph.ts``."""

    id: str
    kind: Literal["FULL", "PIECEWISE"]
    tokens: int
    requests: int | None = None
    uniform: int | None = None
    # Its case, version 2: active adapters, largest tokens of one request, microbatches.
    loras: int = 0
    query_length: int | None = None
    microbatches: int = 1
    # Decoder layers of a drafter's runs that are captured with it; see ``src/base/graph.ts``.
    draft_layers: int = 0


class StepCount(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Steps of one shape and case since the last batch."""

    tokens: int
    requests: int
    uniform: int
    served: str
    count: int
    seconds: float
    timed: int
    context_tokens: float
    # The step's case, version 2. ``loras`` is what its graph must have been captured for: vLLM's
    # own rounding of the active adapters. No query length: the step has a prompt, or no bound.
    loras: int = 0
    query_length: int | None = None
    microbatches: int = 1


def covers(graph: Graph, step: StepCount) -> bool:
    """Whether ``graph`` may serve the step, as in ``src/base/graph.ts``: vLLM's own rule."""
    longest = step.query_length
    return (
        graph.tokens >= step.tokens
        and (graph.requests is None or graph.requests >= step.requests)
        and graph.uniform in (None, step.uniform)
        and graph.loras == step.loras
        and graph.microbatches == step.microbatches
        # A step without a bound holds a prompt: it must not run in a graph that has one.
        and (graph.query_length is None or (longest is not None and longest <= graph.query_length))
    )


def version_for(graphs: Iterable[Graph]) -> int:
    """The oldest protocol version in which these graphs can be told apart."""
    plain = all(g.loras == 0 and g.query_length is None and g.microbatches == 1 for g in graphs)
    return 1 if plain else 2
