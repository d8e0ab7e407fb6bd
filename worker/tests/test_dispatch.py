from __future__ import annotations

import pytest

from lazygraph_vllm.protocol.messages import TOKENS_MAX, Dispatch, DispatchRow, Graph
from lazygraph_vllm.rules.dispatch import (
    PAD_FLOOR_TOKENS,
    PAD_RATIO,
    TableError,
    default_table,
    expand,
    pad_limit,
)

SIZES = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]


def plan(sizes: list[int] | None = None, max_requests: int = 512) -> list[Graph]:
    """What stock plans by default: both kinds of each size, FULL for decodes of one token."""
    graphs = []
    for n in sizes or SIZES:
        graphs.append(Graph(id=f"PIECEWISE:{n}", kind="PIECEWISE", tokens=n))
        if n <= max_requests:
            graphs.append(Graph(id=f"FULL:{n}", kind="FULL", tokens=n, requests=n, uniform=1))
    return graphs


def row_for(rows: tuple[DispatchRow, ...], tokens: int) -> tuple[str, ...]:
    """The protocol's rule, written out."""
    return next((r.graphs for r in rows if r.up_to >= tokens), ())


def tokens_of(name: str) -> int:
    return int(name.split(":")[1])


def test_the_default_plan_has_as_many_graphs_as_stock() -> None:
    assert len(plan()) == 102


@pytest.mark.parametrize(
    "captured",
    [
        plan(),
        plan([512]),
        plan([1, 512]),
        plan([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
        [g for g in plan() if g.kind == "PIECEWISE"],
        [g for g in plan() if g.kind == "FULL"],
        [],
    ],
    ids=["all", "tops", "ends", "ladder", "PIECEWISE", "FULL", "none"],
)
def test_the_rule_over_every_step(captured: list[Graph]) -> None:
    table = default_table(captured, 1, plan())
    known = {g.id: g for g in captured}
    for rows, mixed in ((table.uniform, False), (table.mixed, True)):
        by_tokens = expand(rows, {name: name for name in known}, tokens_max=512)
        assert by_tokens[0] == ()
        for tokens in range(1, 600):
            names = row_for(rows, tokens)
            assert names == (by_tokens[tokens] if tokens < len(by_tokens) else ())
            sizes = [tokens_of(n) for n in names]
            assert sizes == sorted(sizes), "the smallest first"
            for name in names:
                graph = known[name]
                next_size = next((s for s in SIZES if s >= tokens), 0)
                assert tokens <= graph.tokens <= max(pad_limit(tokens), next_size)
                assert not (mixed and graph.uniform), "a mixed step in a uniform graph"
            usable = [g for g in captured if not (mixed and g.uniform) and g.tokens >= tokens]
            nearest = min((g.tokens for g in usable), default=None)
            if nearest is not None and nearest <= pad_limit(tokens):
                assert sizes[0] == nearest


def test_full_comes_before_piecewise_at_one_size() -> None:
    table = default_table(plan([8]), 1)
    assert row_for(table.uniform, 8) == ("FULL:8", "PIECEWISE:8")
    assert row_for(table.mixed, 8) == ("PIECEWISE:8",)


def test_a_full_graph_for_any_mixture_serves_mixed_steps() -> None:
    mixed = Graph(id="FULL:8:mixed", kind="FULL", tokens=8, requests=8)
    table = default_table([mixed], 1)
    assert row_for(table.mixed, 3) == row_for(table.uniform, 3) == ("FULL:8:mixed",)


def test_a_graph_of_another_uniform_length_serves_no_decode() -> None:
    longer = Graph(id="FULL:8:u2", kind="FULL", tokens=8, requests=4, uniform=2)
    assert default_table([longer], 1) == Dispatch(uniform=(), mixed=())
    assert row_for(default_table([longer], 2).uniform, 4) == ("FULL:8:u2",)


@pytest.mark.parametrize(
    ("tokens", "limit"),
    [(1, PAD_FLOOR_TOKENS), (51, PAD_FLOOR_TOKENS), (52, 65), (100, 125), (512, 640)],
)
def test_pad_limit(tokens: int, limit: int) -> None:
    assert pad_limit(tokens) == limit
    assert pad_limit(tokens) >= tokens * min(PAD_RATIO, 1)


def test_a_far_larger_graph_is_not_used_unless_stock_would() -> None:
    lone = plan([512])
    assert row_for(default_table(lone, 1, plan()).uniform, 1) == ()
    assert row_for(default_table(lone, 1, plan()).uniform, 410) == ("FULL:512", "PIECEWISE:512")
    sparse = plan([1, 512])
    assert row_for(default_table(sparse, 1, sparse).uniform, 2) == ("FULL:512", "PIECEWISE:512")


def row(up_to: int, *graphs: str) -> DispatchRow:
    return DispatchRow(up_to=up_to, graphs=graphs)


def test_expand() -> None:
    known = {"a": 1, "b": 2}
    assert expand([], known, 8) == [()]
    assert expand([row(2, "a"), row(3), row(5, "b", "a")], known, 8) == [
        (), (1,), (1,), (), (2, 1), (2, 1),
    ]  # fmt: skip


def test_rows_far_beyond_the_largest_graph_make_no_longer_list() -> None:
    known = {"a": 1, "b": 2}
    rows = [row(2, "a"), row(TOKENS_MAX - 1, "b"), row(TOKENS_MAX, "a")]
    table = expand(rows, known, 4)
    assert table == [(), (1,), (1,), (2,), (2,)]
    assert table[3] is table[4], "one for all the steps of a row"
    assert expand(rows, known, 0) == [()]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([row(4, "a"), row(4, "a")], "ascending order, got upTo 4 after 4"),
        ([row(4, "a"), row(2, "a")], "ascending order, got upTo 2 after 4"),
        ([row(0, "a")], "ascending order, got upTo 0 after 0"),
        ([row(16, "a"), row(12, "a")], "ascending order, got upTo 12 after 16"),
        ([row(16, "a"), row(20, "x")], "expected captured graphs in the dispatch table, got 'x'"),
        ([row(4, "a", "x")], "expected captured graphs in the dispatch table, got 'x'"),
    ],
)
def test_expand_refuses(rows: list[DispatchRow], sentence: str) -> None:
    with pytest.raises(TableError, match=sentence):
        expand(rows, {"a": 1}, 8)
