"""What the GPU checks of sleep mode make of what they saw; the checks themselves need a GPU."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import check_verdicts
import checks
import pytest
import sleep_checks

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


def reloaded() -> dict[str, dict[str, Any]]:
    """Every loader but one is here, and reads the same weights; the control reads none."""
    tokens = {"0": [1, 2], "1": [3, 4]}
    cycle = {"reloadSeconds": 1.23456, "firstTokenSeconds": 2.0, "same": 2}
    part: dict[str, Any] = {"tokens": tokens, "errors": [], "ranks": [{}]}
    part["cycles"] = [dict(cycle) for _ in range(2)]
    parts: dict[str, dict[str, Any]] = {name: copy.deepcopy(part) for name in sleep_checks.LOADERS}
    parts["runai_streamer"] = {"skipped": "no runai_model_streamer here"}
    return parts | {"control": {"tokens": tokens, "same": 1}}


def test_weights_read_again_by_each_loader_that_is_there_are_fine() -> None:
    told = check_verdicts.verdict("reload", reloaded())
    assert told["fine"] is True and told["exact"] is True
    assert told["skipped"] == {"runai_streamer": "no runai_model_streamer here"}
    seconds = {"reloadSeconds": [1.235, 1.235], "firstTokenSeconds": [2.0, 2.0]}
    assert told["loaders"] == dict.fromkeys(list(sleep_checks.LOADERS)[:-1], seconds)


@pytest.mark.parametrize("spoilt", ["same", "errors", "control"])
def test_other_weights_an_error_and_a_control_that_tells_nothing_are_not(spoilt: str) -> None:
    parts = reloaded()
    if spoilt == "same":
        parts["eager"]["cycles"][1]["same"] = 1
    elif spoilt == "errors":
        parts["prefetch"]["errors"] = ["RuntimeError"]
    else:
        parts["control"]["same"] = 2
    assert sleep_checks.verdict_reload(parts)["fine"] is False


def test_the_way_back_is_timed_step_by_step_and_in_vllms_order() -> None:
    calls: list[str] = []
    engine = SimpleNamespace(
        sleep=lambda level: calls.append(f"sleep {level}"),
        wake_up=lambda tags: calls.append(f"wake {tags[0]}"),
        collective_rpc=calls.append,
        generate=lambda *_, **__: calls.append("generate"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sleep_checks, "first_token", lambda engine: engine.generate())
        told = sleep_checks.reload_cycle(engine)
    assert calls == ["sleep 2", "wake weights", "reload_weights", "wake kv_cache", "generate"]
    first = told.pop("firstTokenSeconds")
    assert first == pytest.approx(sum(told.values())) and len(told) == 4


def test_a_check_that_was_cut_off_goes_on_with_the_parts_that_it_has_not(tmp_path: Path) -> None:
    for name in ("sleep-8b.sleep", "spec-same-3b.spec-steps"):
        for part in ("ours", "stock"):
            (tmp_path / f"{name}.{part}.part").write_text("{}")
    assert checks.parts_left(tmp_path, "sleep-8b.sleep") == ["offload", "control"]
    whole = checks.parts_left(tmp_path, "spec-same-3b.spec-steps")
    assert whole == ["stock", "ours", "ours-again", "again"], "they are compared in time"
