"""What the GPU checks of sleep mode make of what they saw; the checks themselves need a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "gpu"))

import sleep_checks  # noqa: E402

GIB = 1 << 30


def cycle(level: int, dropped: bool) -> dict[str, Any]:
    return {
        "level": level,
        "dropped": dropped,
        "asleepBytes": [(5 if dropped else 6) * GIB],
        "wakeSeconds": 0.5 * level,
        "firstTokenSeconds": 0.75 * level,
        "errors": [],
        "same": 2,
    }


def seen() -> dict[str, dict[str, Any]]:
    """A run in which all is well: only the control differs."""
    tokens = {"0": [1, 2], "1": [3, 4]}

    def part(name: str) -> dict[str, Any]:
        cycles = [
            cycle(level, name == "ours" and i % 2 == 1)
            for level in sleep_checks.LEVELS
            for i in range(sleep_checks.CYCLES[name])
        ]
        return {"tokens": dict(tokens), "cycles": cycles}

    return {
        "stock": part("stock"),
        "offload": part("offload"),
        "ours": part("ours"),
        "control": {"tokens": dict(tokens), "same": 0},
    }


def test_exact_tokens_without_growth_are_fine() -> None:
    told = sleep_checks.verdict(seen())
    assert told["fine"] is True and told["exact"] is True
    sorts = told["sorts"]
    assert {name: sort["cycles"] for name, sort in sorts.items()} == {
        "stock.1": 4,
        "offload.1": 4,
        "kept.1": 10,
        "dropped.1": 10,
        "stock.2": 4,
        "offload.2": 4,
        "kept.2": 10,
        "dropped.2": 10,
    }
    assert sorts["kept.1"]["asleepBytes"] == 6 * GIB
    assert sorts["dropped.2"]["asleepBytes"] == 5 * GIB
    assert sorts["stock.2"]["wakeSeconds"] == [1.0] * 4
    assert sorts["kept.1"]["firstTokenSeconds"] == [0.75] * 10


def a_cycle_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["cycles"][7]["same"] = 1


def stocks_cycle_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["stock"]["cycles"][3]["same"] = 1


def an_offloaded_cycle_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["offload"]["cycles"][1]["same"] = 1


def other_tokens_from_the_start(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["tokens"]["1"] = [3, 5]


def memory_grows(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["cycles"][-1]["asleepBytes"] = [7 * GIB]


def the_control_is_not_found(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["same"] = 2


def a_capture_failed(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["cycles"][2]["errors"] = ["RuntimeError"]


@pytest.mark.parametrize(
    "spoil",
    [
        a_cycle_differs,
        stocks_cycle_differs,
        an_offloaded_cycle_differs,
        other_tokens_from_the_start,
        memory_grows,
        the_control_is_not_found,
        a_capture_failed,
    ],
)
def test_each_of_these_is_not(spoil: Any) -> None:
    parts = seen()
    spoil(parts)
    assert sleep_checks.verdict(parts)["fine"] is False
