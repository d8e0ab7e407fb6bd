"""What the GPU checks of KV offloading make of what they saw; the checks themselves need a GPU."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import checks
import offload_checks
import pytest

from check_engine import CheckEngine, started

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"

FAMILIES = {f["name"]: f for f in json.loads((BENCH / "families.json").read_text())["families"]}
SEQUENCES = {str(index): [index, 7, 9] for index in range(offload_checks.PROMPTS)}


def copies(*loads: int) -> dict[str, dict[str, int]]:
    """What is counted at the end of each pass."""
    counts = {"loadedBlocks": 900, "stores": 60, "spoiled": 0}
    return {
        name: {"loads": total, **counts}
        for name, total in zip(offload_checks.PASSES, loads, strict=True)
    }


def seen() -> dict[str, dict[str, Any]]:
    """A run in which all is well: only the controls differ."""
    passes = dict.fromkeys(offload_checks.PASSES, SEQUENCES)
    traffic = {"steps": 400, "capturedInTraffic": 200, "amongCopies": 90, "errors": []}
    part = {"passes": passes, "copies": copies(0, 38, 77, 116), **traffic}
    parts = dict.fromkeys(("stock", "ours", "control", "writes"), part)
    found: dict[str, dict[str, Any]] = json.loads(json.dumps(parts))  # nothing is shared
    found["control"]["passes"]["during"]["3"] = [0, 0, 0]
    found["control"]["copies"]["after"]["spoiled"] = 70
    found["writes"]["passes"]["after"]["8"] = [0, 0, 0]
    return found


def test_equal_tokens_loads_and_controls_that_are_found_are_fine() -> None:
    told = offload_checks.verdict_tokens(seen())
    assert told["fine"] is True and told["void"] is None
    assert told["differing"] == {"cold": 0, "during": 0, "again": 0, "after": 0}
    assert told["loads"]["ours"] == {"cold": 0, "during": 38, "again": 39, "after": 39}
    assert told["controlDiffers"]["during"] == told["writesDiffers"]["after"] == 1
    assert told["stockLoadsAsItComputes"] is True
    json.dumps(told)


def test_a_control_that_ends_the_engine_is_found() -> None:
    parts = seen()
    parts["control"] = {"crashed": "an illegal memory access was encountered"}
    told = offload_checks.verdict_tokens(parts)
    assert told["fine"] is True and told["controlDiffers"] == {}


def ours_differs(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["passes"]["after"]["5"] = [5, 7, 8]


def a_sequence_is_missing(parts: dict[str, dict[str, Any]]) -> None:
    del parts["ours"]["passes"]["during"]["5"]


def a_capture_failed(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["errors"] = ["RuntimeError"]


def loads_are_not_missed(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["passes"] = copy.deepcopy(parts["stock"]["passes"])


def nothing_was_spoiled(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["copies"]["after"]["spoiled"] = 0


def writes_are_not_missed(parts: dict[str, dict[str, Any]]) -> None:
    parts["writes"]["passes"] = copy.deepcopy(parts["stock"]["passes"])


@pytest.mark.parametrize(
    "spoil",
    [
        ours_differs,
        a_sequence_is_missing,
        a_capture_failed,
        loads_are_not_missed,
        nothing_was_spoiled,
        writes_are_not_missed,
    ],
)
def test_each_of_these_is_not(spoil: Any) -> None:
    parts = seen()
    spoil(parts)
    told = offload_checks.verdict_tokens(parts)
    assert told["fine"] is False and told["void"] is None


def no_loads_in_ours(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["copies"] = copies(0, 38, 77, 79)


def no_loads_in_stock(parts: dict[str, dict[str, Any]]) -> None:
    parts["stock"]["copies"] = copies(0, 3, 60, 99)


def too_few_captures(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["capturedInTraffic"] = offload_checks.CAPTURES_MIN - 1


def nothing_under_way(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["amongCopies"] = offload_checks.UNDER_WAY_MIN - 1


def prompts_answer_alike(parts: dict[str, dict[str, Any]]) -> None:
    for part in parts.values():
        for name in offload_checks.PASSES:
            part["passes"][name]["1"] = part["passes"][name]["0"]


def stock_is_not_exact(parts: dict[str, dict[str, Any]]) -> None:
    parts["stock"]["passes"]["after"]["4"] = [4, 4, 4]


def stock_answered_less(parts: dict[str, dict[str, Any]]) -> None:
    for name in offload_checks.PASSES:
        del parts["stock"]["passes"][name]["0"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_loads_in_ours, "loads from the host in each later pass of ours, got {'after': 2}"),
        (no_loads_in_stock, "in each later pass of stock, got {'during': 3}"),
        (too_few_captures, "expected 100 captures in traffic, got 99"),
        (nothing_under_way, "expected 10 captures with copies under way, got 9"),
        (prompts_answer_alike, "prompts answer alike"),
        (stock_is_not_exact, "stock's passes differ"),
        (stock_answered_less, "expected 40 sequences of stock's, got 39"),
    ],
)
def test_these_say_nothing_whatever_the_tokens_are(spoil: Any, why: str) -> None:
    parts = seen()
    spoil(parts)
    told = offload_checks.verdict_tokens(parts)
    assert told["fine"] is False and why in told["void"]


def test_prompts_share_no_block_and_do_not_fit_the_gpus_cache() -> None:
    asked = offload_checks.prompts()
    assert len({tuple(tokens[:16]) for tokens in asked.values()}) == offload_checks.PROMPTS
    assert all(0 <= token < 128_256 for tokens in asked.values() for token in tokens)
    blocks = sum(len(tokens) // 16 for tokens in asked.values())
    of_cache = offload_checks.LIMITS["kv_cache_memory_bytes"] // (16 * 128 << 10)
    assert blocks > 1.5 * of_cache, "each comes again after all its blocks have gone"
    longest = -(-(max(map(len, asked.values())) + 56) // 16)
    assert longest * offload_checks.LIMITS["max_num_seqs"] < of_cache, "and nobody is preempted"
    held = int(checks.engine_arguments(FAMILIES["offload-8b"]["args"])["kv_offloading_size"]) << 30
    assert sum(-(-(len(t) + 56) // 16) for t in asked.values()) << 21 < held, (
        "the host has them all"
    )


@pytest.mark.parametrize("family", ["offload-8b", "offload-simple-8b"])
@pytest.mark.parametrize("part", ["stock", "ours", "control", "writes"])
def test_engines_are_batch_invariant_and_only_ours_have_a_mode(
    monkeypatch: pytest.MonkeyPatch, family: str, part: str
) -> None:
    started.clear()
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("LAZYGRAPH_MODE", None)
    monkeypatch.setattr(checks, "make_engine", CheckEngine)
    monkeypatch.setattr(offload_checks, "run_tokens", lambda _, part: {"part": part})
    told = checks.run_check(FAMILIES[family], "offload-tokens", part, Path("/nowhere"))
    [engine] = started
    assert told["part"] == part and engine.more == offload_checks.LIMITS
    assert engine.env["VLLM_BATCH_INVARIANT"] == "1"
    assert engine.env["VLLM_USE_BREAKABLE_CUDAGRAPH"] == "0"
    assert engine.env.get("LAZYGRAPH_MODE") == (None if part == "stock" else "lazy")
    simple = "1" if family == "offload-simple-8b" else None
    assert engine.env.get("VLLM_USE_SIMPLE_KV_OFFLOAD") == simple


def test_a_family_that_does_not_offload_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "checks.py"), str(tmp_path), "dense-8b.offload-tokens"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert told.returncode == 2
    assert "expected a family with --kv-offloading-size for offload-tokens" in told.stderr
