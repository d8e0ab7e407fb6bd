"""Rules that the controller has as well, in TypeScript: one file of cases holds both alike."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lazygraph_vllm.protocol.graph import covers
from lazygraph_vllm.protocol.messages import Graph, StepCount
from lazygraph_vllm.rules import forecast
from lazygraph_vllm.rules.dispatch import default_table, pad_limit

# What test/memory/rules.test.ts reads as well.
GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[2] / "test/golden/rules.json.gz").read_bytes())
)
DRAFTING: dict[str, Any] = GOLDEN["drafting"]
PLAN = msgspec.convert(GOLDEN["plan"], list[Graph])


def cases(rule: str) -> Any:
    return pytest.mark.parametrize("case", GOLDEN[rule], ids=[c["name"] for c in GOLDEN[rule]])


@cases("graphBytes")
def test_bytes_of_a_graph_before_any_was_captured(case: dict[str, Any]) -> None:
    size = forecast.typical_graph_bytes(
        case["kind"],
        case["layers"],
        case.get("latent", False),
        loras=case["loras"],
        draft_layers=case.get("draftLayers", 0),
    )
    assert size == case["bytes"]


@cases("allowance")
def test_what_serving_may_take_beyond_its_activation_peak(case: dict[str, Any]) -> None:
    assert forecast.allowance_bytes(case["activationPeakBytes"]) == case["bytes"]


@cases("padLimit")
def test_how_far_a_step_is_padded_where_no_costs_are_known(case: dict[str, Any]) -> None:
    assert pad_limit(case["tokens"]) == case["upTo"]


def test_the_least_that_memory_is_kept_for_is_the_controllers_first_tier() -> None:
    least = GOLDEN["firstTierTokens"]
    assert least == forecast.LEAST_TOKENS
    kept = forecast.reserved_graphs("least", PLAN)
    assert max(graph.tokens for graph in kept) == least


@cases("tables")
def test_who_serves_a_step_by_the_table_of_an_engine_that_nobody_tells(
    case: dict[str, Any],
) -> None:
    assert served_by(PLAN, 1, case) == [step["served"] for step in case["steps"]]


@pytest.mark.parametrize("case", DRAFTING["tables"], ids=[c["name"] for c in DRAFTING["tables"]])
def test_who_serves_a_step_of_an_engine_that_drafts(case: dict[str, Any]) -> None:
    plan = msgspec.convert(DRAFTING["plan"], list[Graph])
    found = served_by(plan, DRAFTING["decodeLength"], case)
    assert found == [step["served"] for step in case["steps"]]


def served_by(plan: list[Graph], decode_length: int, case: dict[str, Any]) -> list[str | None]:
    held = {g.id: g for g in plan if g.id in case["captured"]}
    table = default_table(held.values(), decode_length, plan)
    served: list[str | None] = []
    for step in case["steps"]:
        tokens, uniform = step["tokens"], step["uniform"]
        requests = tokens // uniform if uniform else 1
        rows = table.uniform if uniform == decode_length else table.mixed
        row = next((r.graphs for r in rows if r.up_to >= tokens), ())
        seen = StepCount(
            tokens=tokens, requests=requests, uniform=uniform, served="", count=1, seconds=0,
            timed=0, context_tokens=0,
        )  # fmt: skip
        served.append(next((g for g in row if covers(held[g], seen)), None))
    return served
