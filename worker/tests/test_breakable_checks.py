"""What the GPU checks of breakable graphs start and make of what they saw, without a GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import check_verdicts
import checks
import pytest

from check_engine import CheckEngine, started

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"

SWITCH = "VLLM_USE_BREAKABLE_CUDAGRAPH"
FAMILIES = {f["name"]: f for f in json.loads((BENCH / "families.json").read_text())["families"]}
NAMES = ["FULL:512", "PIECEWISE:512", "FULL:8"]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    started.clear()
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(SWITCH, None)
    monkeypatch.setattr(checks, "make_engine", CheckEngine)
    monkeypatch.setattr(checks, "sequences", lambda *_, **__: ({}, {}))


@pytest.mark.parametrize("part", ["stock", "ours"])
@pytest.mark.parametrize(
    ("family", "kind", "switch"),
    [
        ("breakable-8b", "verify", "1"),
        ("breakable-8b", "tokens", "1"),
        ("dense-8b", "tokens", "0"),
        ("dense-8b", "verify", None),
    ],
)
def test_a_familys_environment_is_its_engines(
    family: str, kind: str, switch: str | None, part: str, tmp_path: Path
) -> None:
    folder = tmp_path / FAMILIES[family]["shape"]
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    checks.run_check(FAMILIES[family], kind, part, tmp_path)
    [engine] = started
    assert engine.env.get(SWITCH) == switch
    assert engine.env.get("VLLM_BATCH_INVARIANT") == ("1" if kind == "tokens" else None)


def rank(**more: Any) -> dict[str, Any]:
    return {
        "breakable": 1,
        "planned": NAMES,
        "captured": NAMES,
        "verified": dict.fromkeys(NAMES, 0.0),
        "mismatched": {},
        "failed": {},
        "hash": "same",
        **more,
    }


def seen(kind: str, *ranks: dict[str, Any]) -> dict[str, dict[str, Any]]:
    ours = {"ranks": list(ranks or (rank(),)), "asksBreakable": True}
    if kind != "tokens":
        return {"ours": ours}
    tokens = {"0": [1, 2], "1": [3, 4]}
    traffic = {"steps": 9, "capturedInTraffic": 5, "errors": {}}
    return {"stock": {"tokens": tokens}, "ours": ours | traffic | {"tokens": tokens}}


CONTROL = {"mismatched": {"FULL:512": "1.0", "PIECEWISE:512": "1.0"}}


@pytest.mark.parametrize(("kind", "more"), [("verify", {}), ("tokens", {}), ("control", CONTROL)])
def test_breakable_graphs_that_are_right_are_fine(kind: str, more: dict[str, Any]) -> None:
    assert check_verdicts.verdict(kind, seen(kind, rank(**more)))["fine"] is True
    two = seen(kind, rank(**more), rank(**more))
    assert check_verdicts.verdict(kind, two)["fine"] is True


@pytest.mark.parametrize(
    ("kind", "breakable"),
    [(kind, None) for kind in ("verify", "tokens", "control")] + [("verify", 0), ("tokens", 0)],
)
def test_a_run_with_other_graphs_shows_nothing(kind: str, breakable: int | None) -> None:
    other = rank(**(CONTROL if kind == "control" else {}), breakable=breakable)
    told = check_verdicts.verdict(kind, seen(kind, rank(), other))
    assert told == {"fine": False, "why": "expected breakable graphs on every rank, got none"}
    plain = seen(kind, other)
    plain["ours"]["asksBreakable"] = False
    assert check_verdicts.verdict(kind, plain)["fine"] is True


def test_a_control_may_hold_none_in_the_end_as_wrong_graphs_are_let_go() -> None:
    assert (
        check_verdicts.verdict("control", seen("control", rank(**CONTROL, breakable=0)))["fine"]
        is True
    )


@pytest.mark.parametrize("found", [["FULL:512"], ["PIECEWISE:512"], []])
def test_a_control_that_finds_one_kind_only_is_none(found: list[str]) -> None:
    parts = seen("control", rank(mismatched=dict.fromkeys(found, "1.0")))
    assert check_verdicts.verdict("control", parts)["fine"] is False


@pytest.mark.parametrize("kind", ["verify", "tokens", "control"])
def test_an_engine_that_ran_as_stock_shows_nothing(kind: str) -> None:
    told = check_verdicts.verdict(kind, seen(kind, {"stock": True}))
    assert told == {"fine": False, "why": "the engine ran as stock"}


def test_these_families_ask_for_them_and_no_other_does() -> None:
    asking = [name for name, family in FAMILIES.items() if checks.asks_breakable(family)]
    # Kimi-Linear by vLLM's own default as well, which is decided after the imports.
    kimi = ["kimi-linear-8l", "kimi-linear-4l", "kimi-linear-4l-cached"]
    assert asking == ["breakable-8b", *kimi]


def test_a_check_tells_why_its_engine_runs_as_stock_by_default() -> None:
    parts = seen("verify", rank(untested=None), rank(untested="not tried"))
    assert check_verdicts.untested(parts) == "not tried"
    assert check_verdicts.untested(seen("verify", rank(untested=None))) is None
