"""What the GPU checks of speculative decoding make of what they saw; they themselves need a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import draft_checks
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"

SEQUENCES = {str(index): [index, 7, 9] for index in range(6)}


def seen() -> dict[str, dict[str, Any]]:
    """A run in which all is well: only the control accepts less."""
    plain = {"tokens": SEQUENCES, "drafted": 3000, "accepted": 2700}
    shapes = [{"steps": 90, "graphed": 60, "mismatches": []}]
    traffic = {"during": SEQUENCES, "steps": 80, "capturedInTraffic": 70, "errors": {}}
    ours = plain | traffic | {"shapes": shapes}
    parts = {
        "stock": plain,
        "again": plain | {"accepted": 2720},
        "ours": ours,
        "control": ours | {"accepted": 900, "dead": 40},
    }
    found: dict[str, dict[str, Any]] = json.loads(json.dumps(parts))  # nothing is shared
    return found


def test_equal_tokens_as_much_accepted_and_a_control_that_is_found_are_fine() -> None:
    told = draft_checks.verdict_tokens(seen())
    assert told["fine"] is True and told["controlFound"] is True
    assert told["differing"] == {"during": 0, "tokens": 0}
    low, high = told["acceptedBetween"]
    assert low < 0.9 < 2720 / 3000 < high
    json.dumps(told)


def test_a_control_that_ends_the_engine_is_found() -> None:
    parts = seen()
    parts["control"] = {"crashed": "device-side assert triggered"}
    told = draft_checks.verdict_tokens(parts)
    assert told["fine"] is True and told["controlCrashed"] == "device-side assert triggered"
    assert "control" not in told["accepted"]


@pytest.mark.parametrize(
    ("last", "fine"),
    [
        ("torch.AcceleratorError: CUDA error: device-side assert triggered", True),
        ("CUDA error (/src/flash_fwd.h:172): device-side assert triggered", True),
        ("Killed", False),
    ],
)
def test_only_an_error_of_cudas_is_a_fault_that_was_found(
    tmp_path: Path, last: str, fine: bool
) -> None:
    import checks

    name = "spec-eagle-8b.spec-tokens"
    for part, found in seen().items():
        if part != "control":
            (tmp_path / f"{name}.{part}.part").write_text(json.dumps(found | {"ranks": [{}]}))
    (tmp_path / f"{name}.control.log").write_text(f"a line\n{last}\nanother\n")
    told = checks.sum_up(tmp_path, name)
    assert told["fine"] is fine
    assert fine or told["why"] == "no result of control: see its log"


def tokens_differ(parts: dict[str, Any]) -> None:
    parts["ours"]["tokens"]["3"] = [3, 7, 8]


def tokens_differ_among_captures(parts: dict[str, Any]) -> None:
    parts["ours"]["during"]["3"] = [3, 7, 8]


def a_shape_differs(parts: dict[str, Any]) -> None:
    parts["ours"]["shapes"][0]["mismatches"] = ["16 after 13"]


def less_is_accepted(parts: dict[str, Any]) -> None:
    parts["ours"]["accepted"] = 2500


def more_is_accepted(parts: dict[str, Any]) -> None:
    parts["ours"]["accepted"] = 2900


def nothing_is_drafted(parts: dict[str, Any]) -> None:
    parts["ours"]["drafted"] = parts["ours"]["accepted"] = 0


def a_capture_fails(parts: dict[str, Any]) -> None:
    parts["ours"]["errors"] = {"FULL:8:u4": "out of memory"}


def nothing_is_captured_in_traffic(parts: dict[str, Any]) -> None:
    parts["ours"]["capturedInTraffic"] = 0


def a_dead_drafter_is_not_found(parts: dict[str, Any]) -> None:
    parts["control"]["accepted"] = 2700


@pytest.mark.parametrize(
    "spoil",
    [
        tokens_differ,
        tokens_differ_among_captures,
        a_shape_differs,
        less_is_accepted,
        more_is_accepted,
        nothing_is_drafted,
        a_capture_fails,
        nothing_is_captured_in_traffic,
        a_dead_drafter_is_not_found,
    ],
)
def test_each_fault_spoils_the_verdict(spoil: Any) -> None:
    parts = seen()
    spoil(parts)
    assert draft_checks.verdict_tokens(parts)["fine"] is False


@pytest.mark.parametrize(("accepted", "fine"), [(2700, True), (1200, False)])
def test_a_draft_that_is_to_agree_is_to_be_accepted(accepted: int, fine: bool) -> None:
    parts = seen()
    for part in parts.values():
        part |= {"agrees": True, "accepted": accepted}
    parts["control"]["accepted"] = 0
    assert draft_checks.verdict_tokens(parts)["fine"] is fine


@pytest.mark.parametrize(("dead", "accepted"), [(0, 2700), (40, 30)])
def test_a_control_that_can_not_tell_is_said_and_not_asked_for(dead: int, accepted: int) -> None:
    """A drafter without graphs of its own, and one that nothing is accepted of."""
    parts = seen()
    for part in parts.values():
        part["accepted"] = accepted
    parts["control"]["dead"] = dead
    told = draft_checks.verdict_tokens(parts)
    assert told["fine"] is True and told["controlTells"] is False


def steps(ours: float) -> dict[str, Any]:
    counts = [str(count) for count in draft_checks.REQUESTS]
    return {
        name: {"milliseconds": {count: [ms, ms, 50.0] for count in counts}}
        for name, ms in (("stock", 6.0), ("again", 6.1), ("ours", ours), ("ours-again", 6.1))
    }


def test_steps_within_a_hundredth_of_stocks_are_fine_and_others_not() -> None:
    assert draft_checks.verdict_steps(steps(6.12))["fine"] is True
    assert draft_checks.verdict_steps(steps(6.13))["fine"] is False
    none = steps(6.0)
    none["ours"]["milliseconds"]["16"] = []
    told = draft_checks.verdict_steps(none)
    assert told == {"fine": False, "why": "no decode step of 16 requests was timed"}


def worker(**managers: Any) -> Any:
    runner = SimpleNamespace(
        cudagraph_manager=managers.pop("target"), speculator=SimpleNamespace(**managers)
    )
    return SimpleNamespace(model_runner=runner)


def desc(mode: str, tokens: int) -> Any:
    return SimpleNamespace(cg_mode=SimpleNamespace(name=mode), num_tokens=tokens)


def test_shapes_of_a_drafter_are_noted_beside_its_targets() -> None:
    target, prefill = SimpleNamespace(), SimpleNamespace()
    target.dispatch = lambda answer: answer
    prefill.dispatch = lambda answer: answer
    rank = worker(target=target, prefill_cudagraph_manager=prefill)
    draft_checks.watch_shapes(rank)
    full = desc("FULL", 16)
    for ran, drafted in ((full, full), (desc("NONE", 13), desc("NONE", 13))):
        target.dispatch(ran)
        prefill.dispatch(drafted)
    assert draft_checks.shapes_seen(rank) == {"steps": 2, "graphed": 1, "mismatches": []}
    target.dispatch(desc("NONE", 13))
    prefill.dispatch(full)
    assert len(draft_checks.shapes_seen(rank)["mismatches"]) == 1


def test_the_control_kills_every_graph_of_a_drafter() -> None:
    prefill = SimpleNamespace(graphs={"a": object(), "b": object()})
    decode = SimpleNamespace(graphs={"c": object()})
    rank = worker(target=None, prefill_cudagraph_manager=prefill, decode_cudagraph_manager=decode)
    assert draft_checks.kill_drafter(rank) == 3
    assert prefill.graphs["a"].replay() is None and decode.graphs["c"].replay() is None
    assert draft_checks.kill_drafter(worker(target=None)) == 0


class Engine:
    """Stands in for ``LLM``: counters that grow by a pass, and one rank."""

    def __init__(self, rank: Any) -> None:
        self.rank = rank
        self.passes = 0

    def get_metrics(self) -> list[Any]:
        return [
            SimpleNamespace(name=name, value=self.passes * count)
            for name, count in zip(draft_checks.COUNTERS.values(), (300, 200), strict=True)
        ]

    def collective_rpc(self, call: Any) -> list[Any]:
        return [call(self.rank)]


@pytest.mark.parametrize("part", ["stock", "ours", "control"])
def test_a_part_counts_its_last_pass_alone(part: str) -> None:
    target = SimpleNamespace(dispatch=lambda answer: answer)
    prefill = SimpleNamespace(dispatch=lambda answer: answer, graphs={"a": object()})
    engine = Engine(worker(target=target, prefill_cudagraph_manager=prefill))
    calls: list[Any] = []

    def sequences(_: Any, capture_every: int = 0) -> Any:
        engine.passes += 1
        calls.append(capture_every)
        return SEQUENCES, {"steps": 5, "capturedInTraffic": capture_every, "errors": {}}

    told = draft_checks.run_tokens(engine, part, sequences, lambda _: calls.append("rest"))
    assert (told["drafted"], told["accepted"]) == (300, 200)
    assert calls == ([0] if part == "stock" else [1, "rest", 0])
    assert told.get("dead") == (1 if part == "control" else None)


def test_each_family_reads_shapes_that_there_are_and_drafts_three_tokens(tmp_path: Path) -> None:
    from model_shapes import SHAPES

    for family in draft_checks.FAMILIES.values():
        shapes = draft_checks.shapes_of(family)
        assert set(shapes) <= set(SHAPES)
        # A drafter's tokens are its target's.
        assert len({SHAPES[shape]["vocab_size"] for shape in shapes}) == 1
        options = draft_checks.options(family, tmp_path)
        assert options["speculative_config"]["num_speculative_tokens"] == draft_checks.DRAFTS
        json.dumps(options)
    assert draft_checks.options({"shape": "llama-3.1-8b"}, tmp_path) == {}


@pytest.mark.parametrize("check", ["dense-8b.spec-tokens", "spec-none.verify", "spec-ngram-8b.x"])
def test_a_check_that_there_is_not_is_refused_before_anything_starts(
    tmp_path: Path, check: str
) -> None:
    command = [sys.executable, str(BENCH / "checks.py"), str(tmp_path / "out"), check]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"got {check}" in done.stderr
    assert not (tmp_path / "out").exists()
