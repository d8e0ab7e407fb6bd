"""Which captured graph serves which step: the table, and its default without a controller.

Pure: no vLLM, no torch; ``rank_dispatch`` makes a rank's look-up lists of it. The rule is the
protocol's: for a step of n tokens the row with the smallest ``up_to`` >= n applies, and its first
graph that covers the step is replayed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from .messages import Dispatch, DispatchRow, Graph

# Without measured costs a step is padded to at most this many tokens, or by a quarter. Padding to
# 64 is far cheaper than launching kernel by kernel on every model we measured; 1 to 512 is not.
PAD_FLOOR_TOKENS = 64
PAD_RATIO = 1.25


def pad_limit(tokens: int) -> int:
    """Largest graph, in tokens, that a step of ``tokens`` takes when no costs are known."""
    return max(PAD_FLOOR_TOKENS, int(tokens * PAD_RATIO))


def default_table(
    captured: Iterable[Graph], decode_length: int, planned: Iterable[Graph] = ()
) -> Dispatch:
    """The table of an engine without a controller: captured sizes within the pad limit.

    Args:
        captured: what may serve.
        decode_length: tokens of each request in a uniform step.
        planned: all graphs; a step always takes the size that stock would pad it to.
    """
    ordered = sorted(captured, key=lambda g: (g.tokens, g.kind != "FULL"))
    sizes = sorted({g.tokens for g in planned})
    return Dispatch(
        uniform=_rows([g for g in ordered if g.uniform in (None, decode_length)], sizes),
        mixed=_rows([g for g in ordered if g.uniform is None], sizes),
    )


def _rows(ordered: Sequence[Graph], sizes: Sequence[int]) -> tuple[DispatchRow, ...]:
    rows: list[DispatchRow] = []
    for tokens in range(1, max((g.tokens for g in ordered), default=0) + 1):
        next_size = bisect_left(sizes, tokens)
        limit = max(pad_limit(tokens), sizes[next_size] if next_size < len(sizes) else 0)
        graphs = tuple(g.id for g in ordered if tokens <= g.tokens <= limit)
        if rows and rows[-1].graphs == graphs:
            rows[-1] = DispatchRow(up_to=tokens, graphs=graphs)
        else:
            rows.append(DispatchRow(up_to=tokens, graphs=graphs))
    return tuple(rows)


class TableError(ValueError):
    """A table that names a graph that isn't captured, or breaks the order of its rows."""


def expand(rows: Sequence[DispatchRow], known: frozenset[str]) -> list[tuple[str, ...]]:
    """Turn rows into a list indexed by the step's tokens, checked against the captured graphs.

    Raises:
        TableError: rows not ascending, or a graph that is not captured.
    """
    table: list[tuple[str, ...]] = [()]
    for row in rows:
        if row.up_to < len(table):
            raise TableError(
                f"expected rows of the dispatch table in ascending order, got upTo {row.up_to} "
                f"after {len(table) - 1}"
            )
        missing = next((g for g in row.graphs if g not in known), None)
        if missing is not None:
            raise TableError(f"expected captured graphs in the dispatch table, got {missing!r}")
        table.extend([row.graphs] * (row.up_to - len(table) + 1))
    return table
