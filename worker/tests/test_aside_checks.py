"""What the GPU check of captures beside ungraphed traffic makes of what it saw."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import check_prompts
import check_verdicts
import checks
import pytest

TOKENS = {"0": [1, 2], "1": [3, 4], "2": [5, 6]}
RANKS = [{"captured": ["FULL:8"]}]


def seen() -> dict[str, dict[str, Any]]:
    """A run in which captures change nothing, and those of the control do."""

    def part(tokens: dict[str, list[int]], captured: int = 0) -> dict[str, Any]:
        told = {"tokens": dict(tokens), "steps": 9, "capturedInTraffic": captured, "errors": {}}
        return told | {"ranks": RANKS, "states": 40, "touched": {}}

    return {
        "plain": part(TOKENS),
        "again": part(TOKENS),
        "ours": part(TOKENS, captured=7),
        "control": part(TOKENS | {"1": [9, 9]}, captured=7) | {"touched": {"PIECEWISE:8": 12}},
    }


def test_captures_that_change_nothing_are_fine() -> None:
    told = check_verdicts.verdict("aside", seen())
    assert told["fine"] is True
    assert (told["same"], told["sameAgain"], told["controlSame"]) == (3, 3, 2)
    assert (told["tokens"], told["capturedInTraffic"]) == (6, 7)


def test_a_control_that_ended_the_engine_was_found() -> None:
    parts = seen() | {"control": {"crashed": "an illegal memory access was encountered"}}
    assert check_verdicts.verdict("aside", parts)["fine"] is True


def a_sequence_changed(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["tokens"]["2"] = [5, 7]


def nothing_was_captured(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["capturedInTraffic"] = 0


def a_capture_failed(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["errors"] = {"FULL:8": "RuntimeError"}


def the_control_is_not_found(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["tokens"] = dict(TOKENS)


def a_state_was_touched(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["touched"] = {"PIECEWISE:16": 1}


def no_state_was_there_to_touch(parts: dict[str, dict[str, Any]]) -> None:
    parts["ours"]["states"] = 0


def the_control_touched_none(parts: dict[str, dict[str, Any]]) -> None:
    parts["control"]["touched"] = {}


@pytest.mark.parametrize(
    "spoil",
    [
        a_sequence_changed,
        nothing_was_captured,
        a_capture_failed,
        the_control_is_not_found,
        a_state_was_touched,
        no_state_was_there_to_touch,
        the_control_touched_none,
    ],
)
def test_each_of_these_is_not(spoil: Any) -> None:
    parts = seen()
    spoil(parts)
    assert check_verdicts.verdict("aside", parts)["fine"] is False


def test_both_kinds_are_captured_in_turns() -> None:
    planned = ["FULL:8", "FULL:4", "FULL:2", "PIECEWISE:8", "PIECEWISE:4"]
    state = {"planned": planned, "captured": ["FULL:8"]}
    engine = SimpleNamespace(collective_rpc=lambda _: [state])
    expected = ["PIECEWISE:8", "FULL:4", "PIECEWISE:4", "FULL:2"]
    assert checks.missing_graphs(engine) == expected


def test_a_control_that_hangs_is_ended_once_all_others_are_done() -> None:
    def child(seconds: float) -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(seconds)
            os._exit(0)
        return pid

    checks.wait_for({child(0.2): "ours", child(3600): "control"}, after_seconds=0.1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_one_by_one_each_engine_has_its_time_and_none_before_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def fork_engine(log: Path, *_: Any) -> int:
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        begun.append(log.name)
        pid = os.fork()
        if pid == 0:
            time.sleep(3600)
        return pid

    monkeypatch.setattr(checks, "fork_engine", fork_engine)
    monkeypatch.setitem(sys.modules, "torch", MagicMock(**{"cuda.is_initialized": lambda: False}))
    v1 = ("engine.core", "executor.multiproc_executor", "executor.uniproc_executor")
    names = [
        "vllm",
        *(f"vllm.v1.{n}" for n in (*v1, "worker.gpu.model_runner", "worker.gpu_worker")),
    ]
    for name in {n.rsplit(".", i)[0] for n in names for i in range(5)}:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    checks.run_group(tmp_path, tmp_path, {"a": {}}, ["a.verify", "a.tokens"], 0.1)
    assert begun == ["a.verify.ours.log", "a.tokens.stock.log", "a.tokens.ours.log"]


def test_a_difference_that_is_no_number_is_text() -> None:
    ranks = [{"verified": {"FULL:8": 0.25}}, {"verified": {"FULL:8": float("inf")}}]
    assert check_verdicts.worst_of(ranks) == "inf"
    assert check_verdicts.worst_of(ranks[:1]) == 0.25
    assert check_verdicts.worst_of([{"verified": {}}]) is None


def test_every_second_request_has_an_image_where_the_model_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_shapes import SHAPES

    (tmp_path / "config.json").write_text(json.dumps(SHAPES["qwen2.5-vl-7b"]))
    images = check_prompts.image_tokens(tmp_path)
    assert images == check_prompts.ImageTokens(151652, 151655, 151653)
    monkeypatch.setattr(check_prompts, "image", lambda index: f"image {index}")
    plain, pictured = check_prompts.prompt(3, images), check_prompts.prompt(4, images)
    assert plain == check_prompts.prompt(3)
    ids = check_prompts.prompt(4)["prompt_token_ids"]
    assert pictured["prompt_token_ids"] == [151652, 151655, 151653, *ids]
    assert pictured["multi_modal_data"] == {"image": "image 4"}
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["llama-3.1-8b"]))
    assert check_prompts.image_tokens(tmp_path) is None


# As vLLM chooses them for the models of these checks.
@pytest.mark.parametrize("size", [528, 544, 1920])
def test_prompts_that_begin_alike_hold_whole_blocks_and_some_pass_a_blocks_end(size: int) -> None:
    prompts = {i: check_prompts.prompt_of_prefix(i)["prompt_token_ids"] for i in range(96)}
    assert prompts[3] == check_prompts.prompt_of_prefix(3)["prompt_token_ids"]
    alike = [i for i in range(8, 96) if prompts[i][:size] == prompts[i - 8][:size]]
    whole = [i for i in alike if check_prompts.BEGINNING_TOKENS + 60 * (i % 8) >= size]
    assert len(whole) > 60
    assert len({tuple(ids) for ids in prompts.values()}) == 96
    tokens = {str(i): [0] * (24 + i % 60) for i in prompts}
    passed = checks.blocks_passed(tokens, check_prompts.prompt_of_prefix, size)
    assert 5 < passed < 96
    assert checks.blocks_passed(tokens, check_prompts.prompt_of_prefix, 10_000) == 0
    assert checks.blocks_passed({"0": [0] * 9}, lambda _: {"prompt_token_ids": [0] * 8}, 8) == 2


@pytest.mark.parametrize(("passed", "cached", "fine"), [(9, 9, True), (0, 9, False), (9, 0, False)])
def test_prefixes_that_are_cached_must_have_been_met(passed: int, cached: int, fine: bool) -> None:
    parts = seen()
    parts["ours"] |= {"blocksPassed": passed, "cachedTokens": cached}
    told = check_verdicts.verdict("aside", parts)
    assert told["fine"] is fine
    assert (told["blocksPassed"], told["cachedTokens"]) == (passed, cached)


def test_families_with_prefix_caching_say_so_to_vllm() -> None:
    families = json.loads((Path(checks.HERE) / "families.json").read_text())["families"]
    cached = [family for family in families if checks.caches_prefixes(family)]
    assert [family["name"] for family in cached] == [
        "hybrid-4l-cached",
        "kimi-linear-4l-cached",
        "hybrid-4l-flashinfer-cached",
        "mamba-4l-cached",
    ]
    for family in families:
        options = checks.engine_options(family, Path("models"))
        offloads = "kv_offloading_size" in options
        assert options["enable_prefix_caching"] is (family in cached or offloads)
