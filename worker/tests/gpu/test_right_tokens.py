"""Right tokens on a real GPU: the scripts of bench/gpu, on a small shape, with their controls.

Needs vLLM 0.26.0, a GPU, and both plugins on the path (`pip install ./worker ./worker/testing`).
`scripts/gpu-tests.mjs` runs it; without a GPU it is skipped there with the reason. The published
runs (8B, and 70B over two GPUs) are the same scripts: docs/benchmarks.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
BENCH = Path(__file__).resolve().parents[3] / "bench" / "gpu"
SHAPE = "qwen3-0.6b"
TIMEOUT_SECONDS = 900


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / SHAPE
    run(str(BENCH / "random_model.py"), SHAPE, str(folder))
    return folder


def tokens(model: Path, out: Path, *options: str) -> dict[str, Any]:
    log = run(str(BENCH / "tokens.py"), str(model), str(out), *options)
    out.with_suffix(".log").write_text(log)
    return json.loads(out.read_text())


def test_exact_tokens_before_during_and_after_the_fill(model: Path, tmp_path: Path) -> None:
    stock, ours, control = (tmp_path / f"{n}.json" for n in ("stock", "ours", "control"))
    tokens(model, stock, "--config", "stock", "--invariant")
    report = tokens(model, ours, "--config", "lazygraph", "--invariant")
    assert report["graphsCaptured"] == report["graphsPlanned"] > 2
    tokens(model, control, "--config", "lazygraph", "--invariant", "--fault", "dead:FULL:24")
    files = ("--stock", str(stock), "--ours", str(ours), "--control", str(control))
    run(str(BENCH / "compare_tokens.py"), "--exact", *files)


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_graph_against_an_ungraphed_run(model: Path, tmp_path: Path, ranks: int) -> None:
    if torch.cuda.device_count() < ranks:
        pytest.skip(f"needs {ranks} GPUs, found {torch.cuda.device_count()}")
    faults = "corrupt:FULL:16@0" if ranks == 1 else "corrupt:FULL:16@1,skip-all-reduce:FULL:24"
    wrong = {"FULL:16"} if ranks == 1 else {"FULL:16", "FULL:24"}
    out = tmp_path / "verify.json"
    options = ("--config", "lazygraph", "--verify", "--no-trickle", "--tp", str(ranks))
    tokens(model, out, *options, "--fault", faults)
    report = json.loads(run(str(BENCH / "verify_report.py"), str(out.with_suffix(".log"))))
    assert {entry["graph"] for entry in report["excluded"]} == wrong
    assert report["graphs"] == 102 and report["checks"] == 102 * ranks
    assert {graph for graph, _ in report["beyondLimit"]} == wrong
