"""What the GPU checks of sleep mode make of what they saw; the checks themselves need a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "gpu"))

import sleep_checks  # noqa: E402

GIB = 1 << 30


def cycle(number: int, same: int, dropped: bool) -> dict[str, Any]:
    held = (5 if dropped else 6) * GIB
    return {"asleepBytes": [held], "dropped": dropped, "same": same, "wakeSeconds": 0.5 + number}


def seen() -> dict[str, dict[str, Any]]:
    """A run in which all is well: only the control differs."""
    tokens = {"0": [1, 2], "1": [3, 4]}

    def part(ours: bool) -> dict[str, Any]:
        cycles = [cycle(i, 2, ours and i % 2 == 1) for i in range(sleep_checks.CYCLES)]
        return {"tokens": dict(tokens), "cycles": cycles, "errors": []}

    control = {"tokens": dict(tokens), "cycles": [cycle(0, 0, False)], "errors": []}
    return {"stock": part(False), "ours": part(True), "control": control}


def test_exact_tokens_without_growth_are_fine() -> None:
    told = sleep_checks.verdict(seen())
    assert told["fine"] is True and told["exact"] is True
    assert told["asleepBytes"] == {"stock": [6 * GIB], "kept": [6 * GIB], "dropped": [5 * GIB]}


def a_cycle_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["cycles"][7]["same"] = 1


def stocks_cycle_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["stock"]["cycles"][3]["same"] = 1


def other_tokens_from_the_start(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["tokens"]["1"] = [3, 5]


def memory_grows(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["cycles"][-1]["asleepBytes"] = [7 * GIB]


def the_control_is_not_found(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["cycles"][0]["same"] = 2


def a_capture_failed(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["errors"] = ["RuntimeError"]


@pytest.mark.parametrize(
    "spoil",
    [
        a_cycle_differs,
        stocks_cycle_differs,
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
