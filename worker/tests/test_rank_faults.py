"""bench/gpu/rank_faults.py with a stand-in for the server: what it finds right and wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rank_faults

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parents[1]
FAKE = f"{sys.executable} {TESTS / 'fake_ranks.py'}"
SECONDS_MAX = 120


def faults(out: Path, *own: str, **more: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, cases by name, stderr."""
    command = [sys.executable, str(ROOT / "bench" / "gpu" / "rank_faults.py"), str(out), *own]
    command += ["--end-within", "5", "--", *FAKE.split(), "serve", "MODEL"]
    done = subprocess.run(
        command,
        env={**os.environ, "LAZYGRAPH": FAKE, **more},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    cases = json.loads(out.read_text())["cases"] if out.exists() else []
    return done.returncode, {case["case"]: case for case in cases}, done.stderr


def test_a_server_that_ends_with_its_reason_holds_and_is_not_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    code, cases, stderr = faults(out, "--cases", "control,oom,killed")
    assert code == 0, (cases, stderr)
    assert cases["control"]["graph"] == "captured" and cases["control"]["ended"] is False
    assert cases["control"]["requests"]["answered"] > 0
    assert "failed on 1 of 2 ranks" in cases["oom"]["reason"]
    assert "died unexpectedly" in cases["killed"]["reason"]
    assert [case["left"] for case in cases.values()] == [0, 0, 0]
    again, same, _ = faults(out, "--cases", "control,oom,killed", LAZYGRAPH="/nowhere")
    assert (again, same) == (0, cases)


@pytest.mark.parametrize(
    ("case", "spoil", "what"),
    [
        ("killed", "FAKE_HANGS", {"left": 1}),
        ("killed", "FAKE_SILENT", {"reason": None}),
        ("control", "FAKE_REFUSES", {"graph": "refused"}),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, case: str, spoil: str, what: dict[str, Any]
) -> None:
    code, cases, _ = faults(tmp_path / "faults.json", "--cases", case, **{spoil: "1"})
    assert code == 1 and cases[case]["holds"] is False
    assert what.items() <= cases[case].items()


def test_a_stranger_takes_the_second_ranks_memory_but_for_a_little(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\n[ "$1 $4" = "--query-gpu=memory.free 7" ] && echo 9000\n')
    smi.chmod(0o755)
    taken = tmp_path / "taken"
    taker = tmp_path / "taker"
    taker.write_text(f'#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $1" | tee {taken}\nexec cat\n')
    taker.chmod(0o755)
    more = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STRANGER": str(taker)}
    words = ("--cases", "short", "--gpus", "3,7")
    code, cases, stderr = faults(tmp_path / "faults.json", *words, FAKE_REFUSES="1", **more)
    assert code == 0, (cases, stderr)
    assert (cases["short"]["refused"], cases["short"]["reason"]) == (1, "too little memory")
    gpu, count = taken.read_text().split()
    assert gpu == "7"
    assert int(count) == (9000 << 20) - (256 << 20)
    # Without one there is no such case, and nothing is said of ranks.
    none = {**more, "STRANGER": "echo failed: no context"}
    code, cases, stderr = faults(tmp_path / "again.json", *words, **none)
    assert (code, cases) == (1, {})
    assert "short: can't be run: expected a stranger with" in stderr


def test_requests_that_nobody_answers_are_found(tmp_path: Path) -> None:
    code, cases, _ = faults(tmp_path / "faults.json", "--cases", "control", FAKE_MUTE="1")
    assert code == 1
    assert cases["control"]["requests"] == {"answered": 0, "failed": 0, "unanswered": 2}


def test_a_case_that_the_time_does_not_hold_is_left(tmp_path: Path) -> None:
    code, cases, stderr = faults(
        tmp_path / "faults.json", "--cases", "control,oom", "--within", "10"
    )
    assert (code, cases) == (1, {})
    assert stderr == "left: control, oom\n"


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (("--gpus", "0"), "expected two GPUs or more in --gpus, got 0"),
        (("--cases", "melt"), "expected --cases of control, short, oom, killed, got melt"),
    ],
)
def test_bad_words_are_told(tmp_path: Path, own: tuple[str, ...], sentence: str) -> None:
    code, _, stderr = faults(tmp_path / "faults.json", *own)
    assert code == 2 and sentence in stderr


SERVED: dict[str, Any] = {
    **{"case": "short", "ready": True, "ended": False, "exitCode": None, "left": 0},
    **{"requests": {"answered": 9, "failed": 0, "unanswered": 0}, "refused": 2},
    **{"graph": "captured", "reason": "short by 9 MiB"},
}
ENDED = {**SERVED, "ended": True, "exitCode": 1}


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (SERVED, True),
        (ENDED, True),
        ({**SERVED, "refused": 0}, False),
        ({**SERVED, "reason": None}, False),
        ({**SERVED, "requests": {"answered": 9, "failed": 1, "unanswered": 0}}, False),
        ({**ENDED, "reason": None}, False),
        ({**ENDED, "left": 1}, False),
        ({**ENDED, "exitCode": 0}, True),
    ],
)
def test_a_rank_that_is_short_is_refused_graphs_or_ends_the_engine(
    change: dict[str, Any], held: bool
) -> None:
    assert rank_faults.holds(change) is held


@pytest.mark.parametrize("case", ["oom", "killed"])
def test_a_struck_engine_that_serves_on_does_not_hold(case: str) -> None:
    assert rank_faults.holds({**SERVED, "case": case}) is False
    assert rank_faults.holds({**ENDED, "case": case}) is True
