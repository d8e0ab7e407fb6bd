from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lazygraph_vllm.protocol.messages import Graph
from lazygraph_vllm.rules.local_fill import (
    LAZY_MISSES_MIN,
    TimedCapture,
    fill_order,
    first_ladder,
    first_more,
    first_set,
    first_set_share,
    fits_budget,
    next_capture,
    stock_seconds,
    top_graphs,
)
from test_dispatch import plan

# What src/schedule/first-ladder.ts and first-budget.ts are held to as well.
FIRST_SETS = Path(__file__).parents[2] / "test" / "golden" / "first-set.json.gz"
GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(gzip.decompress(FIRST_SETS.read_bytes()))
PLANS = {case["name"]: msgspec.convert(case["graphs"], list[Graph]) for case in GOLDEN["orders"]}


def ids(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", GOLDEN["orders"], ids=ids)
def test_orders_are_the_controllers(case: dict[str, Any]) -> None:
    planned = PLANS[case["name"]]
    assert [g.id for g in first_ladder(planned)] == case["ladder"]
    filled = fill_order(tuple(planned))
    assert [g.id for g in filled] == case["fill"]
    assert sorted(filled, key=lambda g: g.id) == sorted(planned, key=lambda g: g.id)


@pytest.mark.parametrize("case", GOLDEN["budgets"], ids=ids)
def test_budgets_are_the_controllers(case: dict[str, Any]) -> None:
    planned = PLANS[case["plan"]]
    captured = [TimedCapture(c["kind"], c["seconds"], c["warmUp"]) for c in case["captured"]]
    seconds = stock_seconds(planned, captured, twice=case["twice"])
    assert seconds == pytest.approx(case["stockSeconds"], abs=1e-6)
    for kind, fits in case["fits"].items():
        budget = case.get("budgetSeconds")
        found = fits_budget(kind, planned, captured, twice=case["twice"], budget_seconds=budget)
        assert found is fits


@pytest.mark.parametrize(("full", "piecewise"), [(0.02, 0.049), (0.057, 0.085), (0.001, 0.5)])
def test_the_first_set_stays_within_a_thirtieth_of_stock(full: float, piecewise: float) -> None:
    """Stock has a warm-up run before each capture, and captures 53 of 102 graphs twice."""
    warm_up = 1.6
    stock = warm_up * (53 * full + 102 * piecewise)
    captured = [
        TimedCapture("PIECEWISE", warm_up * piecewise, True),
        TimedCapture("FULL", warm_up * full, True),
    ]
    more = first_more("idle", plan())
    while len(captured) < 102 and fits_budget("FULL", plan(), captured, twice=True):
        captured.append(TimedCapture("FULL", full, False))
    assert 2 < len(captured) <= 2 + len(more)
    assert sum(c.seconds for c in captured) <= stock / 30


def test_graphs_of_adapters_make_the_first_set_no_larger() -> None:
    base = plan()
    both = [
        *base,
        *(msgspec.structs.replace(graph, id=f"{graph.id}:l5", loras=5) for graph in base),
    ]
    tops = [TimedCapture("PIECEWISE", 0.06, True), TimedCapture("FULL", 0.06, True)]

    def fitting(planned: list[Graph]) -> int:
        captured = list(tops)
        while len(captured) < 102 and fits_budget("FULL", planned, captured, twice=True):
            captured.append(TimedCapture("FULL", 0.03, False))
        return len(captured) - len(tops)

    assert fitting(both) == fitting(base) > 0
    assert first_set_share(both) == pytest.approx(1 / 60)


@pytest.mark.parametrize(("full", "piecewise"), [(0.04, 0.06), (0.02, 0.2)])
def test_it_does_so_where_each_capture_has_its_warm_up_in_it(full: float, piecewise: float) -> None:
    """Breakable graphs: ours take what stock's take, and the first one a compiler's seconds."""
    stock = 53 * full + 102 * piecewise
    captured = [
        TimedCapture("PIECEWISE", piecewise + 0.1, True),
        TimedCapture("FULL", full, True),
    ]
    tops = list(captured)
    while len(captured) < 102 and fits_budget("FULL", plan(), captured, twice=True, each_warm=True):
        captured.append(TimedCapture("FULL", full, False))
    assert len(captured) > 2 and sum(c.seconds for c in captured) <= stock / 30
    small = TimedCapture("FULL", full, False)
    warmed, not_warmed = (
        stock_seconds(plan(), [*tops, small], twice=True, each_warm=each) for each in (True, False)
    )
    assert warmed < not_warmed, "positive control: else stock's would be taken for dearer"


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


@pytest.mark.parametrize("case", [{"loras": 2}, {"query_length": 4}, {"microbatches": 2}])
def test_each_case_has_a_top(case: dict[str, int]) -> None:
    """A step with adapters, say, can't replay the largest graph without them."""
    plain = plan(max_requests=256)
    other = [msgspec.structs.replace(g, id=f"{g.id}:x", **case) for g in plain if g.tokens <= 64]
    tops = top_graphs([*plain, *other])
    assert [g.id for g in tops] == ["PIECEWISE:512", "PIECEWISE:64:x", "FULL:256", "FULL:64:x"]


@pytest.mark.parametrize("mode", ["lazy", "idle"])
def test_first_set(mode: str) -> None:
    assert first_set(mode, plan()) == top_graphs(plan())
    assert first_set("eager", plan()) == plan()


def test_beside_the_tops_comes_the_ladder_but_in_eager_mode_nothing_is_left() -> None:
    assert [g.id for g in first_more("lazy", plan())[:4]] == [
        "FULL:64",
        "FULL:8",
        "FULL:2",
        "FULL:24",
    ]
    assert first_more("eager", plan()) == []


def test_idle_fills_what_was_missed_then_small_decode_graphs_until_nothing_is_left() -> None:
    done: set[str] = {g.id for g in top_graphs(plan())}
    misses = {"PIECEWISE:96": 1, "FULL:40": 2}
    order = []
    while (graph := next_capture("idle", plan(), done, misses)) is not None:
        order.append(graph.id)
        done.add(graph.id)
    assert len(order) == 100
    assert order[:5] == ["FULL:40", "PIECEWISE:96", "FULL:64", "FULL:8", "FULL:2"]


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
