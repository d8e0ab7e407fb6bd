"""What the GPU checks of LoRA adapters make of what they saw, without a GPU."""

from __future__ import annotations

import copy
from typing import Any

import adapter_checks
import pytest
from random_adapters import linear_layers

ADAPTERS = 2


def passes() -> dict[str, dict[str, list[int]]]:
    sequences = {
        f"{prompt}/{adapter}": [prompt, adapter, 7]
        for prompt in range(adapter_checks.PROMPTS)
        for adapter in range(ADAPTERS + 1)
    }
    return {name: copy.deepcopy(sequences) for name in ("before", "during", "after")}


def seen() -> dict[str, dict[str, Any]]:
    """A run in which all is well: only the control differs."""
    parts: dict[str, dict[str, Any]] = {
        part: {"passes": passes(), "steps": 300, "capturedInTraffic": 120, "errors": []}
        for part in ("stock", "ours", "control")
    }
    parts["control"]["passes"]["during"]["3/1"] = [0, 0, 0]
    return parts


def test_equal_answers_and_a_control_that_is_found_are_fine() -> None:
    told = adapter_checks.verdict_tokens(seen(), ADAPTERS)
    assert told["fine"] is True
    whole = 3 * adapter_checks.PROMPTS
    assert told["sameByAdapter"] == {"0": whole, "1": whole, "2": whole}
    assert told["apartFromBase"] == 1.0
    assert told["controlDiffers"] == {"before": 0, "during": 1, "after": 0}


def ours_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["passes"]["after"]["5/2"] = [5, 2, 8]


def test_a_control_that_ends_the_engine_is_found() -> None:
    parts = seen()
    parts["control"] = {"crashed": "an illegal memory access was encountered"}
    told = adapter_checks.verdict_tokens(parts, ADAPTERS)
    assert told["fine"] is True and told["controlDiffers"] == {}


def control_is_not_found(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["passes"] = passes()


def adapters_answer_alike(parts: dict[str, dict[str, Any]]) -> None:
    for part in parts.values():
        for sequences in part["passes"].values():
            for name in sequences:
                sequences[name] = [int(name[0])]
    parts["control"]["passes"]["during"]["3/1"] = [0, 0, 0]


def too_few_captures(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["capturedInTraffic"] = adapter_checks.CAPTURES_MIN - 1


def a_capture_failed(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["errors"] = ["RuntimeError"]


@pytest.mark.parametrize(
    "spoil",
    [ours_differs, control_is_not_found, adapters_answer_alike, too_few_captures, a_capture_failed],
)
def test_each_of_these_is_not(spoil: Any) -> None:
    parts = seen()
    spoil(parts)
    assert adapter_checks.verdict_tokens(parts, ADAPTERS)["fine"] is False


def test_a_difference_is_booked_with_its_adapter() -> None:
    parts = seen()
    ours_differs(parts)
    told = adapter_checks.verdict_tokens(parts, ADAPTERS)
    assert told["differing"] == {"before": 0, "during": 0, "after": 1}
    assert told["sameByAdapter"]["2"] == 3 * adapter_checks.PROMPTS - 1


def test_only_graphs_of_the_traffics_case_are_earned() -> None:
    def told(*earned: str) -> bool:
        return bool(adapter_checks.verdict_lazy({"ours": {"earned": list(earned)}})["fine"])

    assert told("FULL:2:l5", "PIECEWISE:16:l5")
    assert not told("FULL:2:l5", "FULL:2")
    assert not told()


def test_layers_of_an_8b_have_its_sizes() -> None:
    from model_shapes import SHAPES

    layers = linear_layers(SHAPES["llama-3.1-8b"])
    assert layers["self_attn.k_proj"] == (4096, 1024)
    assert layers["mlp.down_proj"] == (14336, 4096)
    assert len(layers) == 7
