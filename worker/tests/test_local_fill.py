from __future__ import annotations

import pytest

from lazygraph_vllm.local_fill import LAZY_MISSES_MIN, first_set, next_capture, top_graphs
from lazygraph_vllm.messages import Graph
from test_dispatch import plan


def test_tops_are_the_largest_of_each_kind_in_stocks_order() -> None:
    assert [g.id for g in top_graphs(plan(max_requests=256))] == ["PIECEWISE:512", "FULL:256"]
    assert top_graphs([]) == []


def test_each_uniform_length_has_a_top() -> None:
    graphs = [
        Graph(id=f"FULL:{n}:u{u}", kind="FULL", tokens=n, requests=n // u, uniform=u)
        for u in (1, 3)
        for n in (3, 6)
    ]
    assert [g.id for g in top_graphs(graphs)] == ["FULL:6:u1", "FULL:6:u3"]


@pytest.mark.parametrize("mode", ["lazy", "idle"])
def test_first_set(mode: str) -> None:
    assert first_set(mode, plan()) == top_graphs(plan())
    assert first_set("eager", plan()) == plan()


def test_idle_fills_largest_first_until_nothing_is_left() -> None:
    done: set[str] = {g.id for g in top_graphs(plan())}
    order = []
    while (graph := next_capture("idle", plan(), done, {})) is not None:
        order.append(graph)
        done.add(graph.id)
    assert len(order) == 100
    assert [g.tokens for g in order] == sorted((g.tokens for g in order), reverse=True)
    assert [g.id for g in order[:2]] == ["PIECEWISE:496", "FULL:496"]


def test_lazy_fills_what_traffic_missed_often_enough() -> None:
    misses = {"FULL:8": LAZY_MISSES_MIN, "FULL:16": LAZY_MISSES_MIN + 1, "FULL:1": 1}
    first = next_capture("lazy", plan(), set(), misses)
    assert first is not None and first.id == "FULL:16"
    second = next_capture("lazy", plan(), {"FULL:16"}, misses)
    assert second is not None and second.id == "FULL:8"
    assert next_capture("lazy", plan(), {"FULL:16", "FULL:8"}, misses) is None
    assert next_capture("lazy", plan(), set(), {}) is None


def test_eager_has_nothing_to_fill() -> None:
    assert next_capture("eager", plan(), set(), {"FULL:8": 100}) is None
