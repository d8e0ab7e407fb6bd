"""bench/gpu/memory.py against stand-ins: what dies, what serves, and what is resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import memory_report
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench" / "gpu"

FAKE = f"{sys.executable} {Path(__file__).with_name('fake_serve.py')}"
STRANGER = f"{sys.executable} -c \"import sys; print('held', flush=True); sys.stdin.read()\""


def bench(out: Path, *pieces: str, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "MODEL": "tiny", "SERVE_ARGS": "", "VLLM_SERVE": f"{FAKE} serve", "LAZYGRAPH": FAKE,
        "REQUESTS": "6", "STEP_LEVELS": "1 3", "PROMPT_TOKENS": "5", "STRANGER": STRANGER,
        "FAKE_DIES": "0.985:wave,0.99:start",
    }  # fmt: skip
    return subprocess.run(
        ["bash", str(BENCH / "memory.sh"), str(out), *pieces],
        env={**os.environ, **settings, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def result(out: Path, piece: str) -> dict:
    return json.loads((out / f"{piece}.json").read_text())


def test_each_piece_says_what_happened_and_is_not_run_again(tmp_path: Path) -> None:
    pieces = ("reference", "stock-0.985", "stock-0.99", "none-0.99", "ours-0.985", "plan-0.995")
    done = bench(tmp_path, *pieces, "report")
    assert done.returncode == 0, done.stderr
    outcomes = {piece: result(tmp_path, piece)["outcome"] for piece in pieces}
    assert outcomes == {
        "reference": "served",
        "stock-0.985": "died in wave 1",
        "stock-0.99": "died before ready",
        "none-0.99": "served",
        "ours-0.985": "served",
        "plan-0.995": "served",
    }
    died = result(tmp_path, "stock-0.99")
    assert "OutOfMemoryError" in died["log"]["memory"][0] and died["exitCode"] == 1
    ours = result(tmp_path, "ours-0.985")
    assert (ours["graphsCaptured"], ours["graphBytes"]) == (4, 8 << 20)
    assert "--mode idle" in ours["log"]["ours"][0]
    assert "--reserve plan" in result(tmp_path, "plan-0.995")["log"]["ours"][0]
    rows = {r["piece"]: r for r in json.loads((tmp_path / "memory.json").read_text())["summary"]}
    assert rows["ours-0.985"]["tokensRight"] is True and rows["ours-0.985"]["compared"] == 24
    assert rows["ours-0.985"]["kvTokens"] == 913456
    assert rows["stock-0.99"]["tokensRight"] is None
    assert "ours-0.985" in done.stdout
    again = bench(tmp_path, "stock-0.99")
    assert "stock-0.99: done before" in again.stderr


def pieces(**differing: tuple[int, bool]) -> dict[str, dict]:
    """Two passes of a reference, and pieces of which so many of 100 sequences differ.

    The flag says whether they differ from the first token on.
    """
    right = [list(range(i, i + 8)) for i in range(100)]

    def changed(count: int, first: bool) -> list[list[int]]:
        wrong = [[-1, *ids[1:]] if first else [*ids[:-1], -1] for ids in right[:count]]
        return wrong + right[count:]

    found = {"reference": {"outcome": "served", "tokens": [right, changed(*differing["again"])]}}
    for name, how in differing.items():
        if name != "again":
            key = name.replace("_", "-")
            found[key] = {"outcome": "served", "tokens": [changed(*how)]}
    return found


@pytest.mark.parametrize(
    ("none", "ours", "right", "base", "allowed"),
    [
        (None, 7, True, "reference", 7),
        (None, 8, False, "reference", 7),
        ((1, False), 8, False, "reference", 7),
        ((10, False), 19, True, "none-0.985", 19),
        ((10, False), 20, False, "none-0.985", 19),
        # Differs in more first tokens than another batch or another kernel explains.
        ((10, True), 8, False, "reference", 7),
    ],
)
def test_tokens_may_differ_as_the_reference_and_an_engine_without_graphs_do(
    none: tuple[int, bool] | None, ours: int, right: bool, base: str, allowed: int
) -> None:
    more = {} if none is None else {"none_0.985": none}
    found = pieces(again=(2, False), **more, **{"ours_0.985": (ours, False)})
    rows = {row["piece"]: row for row in memory_report.summary(found)}
    row = rows["ours-0.985"]
    assert (row["tokensRight"], row["baseline"], row["sequencesAllowed"]) == (right, base, allowed)
    if none is not None:
        assert rows["none-0.985"]["tokensRight"] is not none[1]


def test_wrong_tokens_are_found(tmp_path: Path) -> None:
    bench(tmp_path, "reference", "none-0.985", "ours-0.985", "report", FAKE_WRONG="1")
    rows = json.loads((tmp_path / "memory.json").read_text())["summary"]
    ours = next(row for row in rows if row["piece"] == "ours-0.985")
    assert (ours["tokensRight"], ours["firstTokensDiffer"]) == (False, 24)


def test_a_stranger_comes_in_the_middle_of_the_fill_and_goes(tmp_path: Path) -> None:
    done = bench(tmp_path, "stranger")
    assert done.returncode == 0, done.stderr
    stranger = result(tmp_path, "stranger")
    assert (stranger["outcome"], stranger["strangerGot"]) == ("served", "held")
    steps = [entry["what"] for entry in stranger["timeline"] if entry["what"] != "fill"]
    assert steps == [
        "ready",
        "the stranger has its memory",
        "two waves served with the stranger there",
        "the stranger has gone",
        "settled again",
    ]


def test_the_bytes_of_each_graph_go_into_a_file_of_their_own(tmp_path: Path) -> None:
    done = bench(tmp_path, "graphs")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "graph-memory-tiny.json").read_text())
    assert document["what"] == "graph-memory"
    assert (document["layers"], document["ranks"], document["activationPeakBytes"]) == (2, 1, 7)
    assert document["graphs"][0] == {"kind": "FULL", "tokens": 8, "bytes": 2 << 20}
    assert len(document["graphs"]) == 4


def test_an_engine_that_never_gets_ready_is_ended_in_time(tmp_path: Path) -> None:
    sleeper = f'{sys.executable} -c "import time; time.sleep(600)"'
    bench(tmp_path, "none-0.985", VLLM_SERVE=sleeper, PIECE_SECONDS="1")
    never = result(tmp_path, "none-0.985")
    assert never["outcome"] == "died before ready"
    assert never["error"] == "the piece took more than 1 s"


@pytest.mark.parametrize("piece", ["stock", "ours-1.5"])
def test_an_unknown_piece_is_a_usage_error(tmp_path: Path, piece: str) -> None:
    done = bench(tmp_path, piece)
    assert done.returncode == 2 and f"unknown piece {piece}" in done.stderr
