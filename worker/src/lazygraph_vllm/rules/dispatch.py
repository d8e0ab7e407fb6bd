"""Which captured graph serves which step: the table, and its default without a controller.

Pure; ``rank.dispatch`` makes a rank's look-up lists of it. The rule is the
protocol's: for a step of n tokens the row with the smallest ``up_to`` >= n applies, and its first
graph that covers the step is replayed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ..protocol.messages import Dispatch, DispatchRow, Graph

# Without measured costs a step is padded to at most this many tokens, or by a quarter. Padding to
# 64 is far cheaper than no graph, 1 to 512 is not.
PAD_FLOOR_TOKENS = 64
PAD_RATIO = 1.25

Found = TypeVar("Found")


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


def expand(
    rows: Sequence[DispatchRow], known: Mapping[str, Found], tokens_max: int
) -> list[tuple[Found, ...]]:
    """Turn rows into a list indexed by the step's tokens, checked against the captured graphs.

    Args:
        rows: of a dispatch table.
        known: what to find in the place of each captured graph's id.
        tokens_max: of the largest graph: a row may go far beyond it, and the list does not.

    Raises:
        TableError: rows not ascending, or a graph that is not captured.
    """
    table: list[tuple[Found, ...]] = [()]
    last = 0
    for row in rows:
        if row.up_to <= last:
            raise TableError(
                f"expected rows of the dispatch table in ascending order, got upTo {row.up_to} "
                f"after {last}"
            )
        last = row.up_to
        missing = next((g for g in row.graphs if g not in known), None)
        if missing is not None:
            raise TableError(f"expected captured graphs in the dispatch table, got {missing!r}")
        if (count := min(last, tokens_max) - len(table) + 1) > 0:
            table.extend([tuple(known[g] for g in row.graphs)] * count)
    return table
