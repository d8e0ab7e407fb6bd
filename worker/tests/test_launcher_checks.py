"""bench/gpu/launcher_checks.py with a stand-in for the server: what it finds right and wrong."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parents[1]
SECONDS_MAX = 120


def check(
    tmp_path: Path,
    *own: str,
    checks: dict[str, str] | None = None,
    as_module: bool = False,
    **launcher_env: str,
) -> tuple[int, dict[str, Any]]:
    path = os.pathsep.join([str(ROOT / "worker" / "src"), str(TESTS), str(tmp_path / "site")])
    environment = {**os.environ, "PYTHONPATH": path, "LAZYGRAPH_DISABLE": "1"}
    script = tmp_path / "vllm"
    script.write_text(f"#!{sys.executable}\nimport fake_serve\nfake_serve.serve()\n")
    script.chmod(0o755)
    module = tmp_path / "site" / "vllm" / "entrypoints" / "cli" / "main.py"
    module.parent.mkdir(parents=True)
    module.write_text("import fake_serve\nfake_serve.serve()\n")
    vllm = [sys.executable, "-m", "vllm.entrypoints.cli.main"] if as_module else [str(script)]
    socket = tmp_path / "socket"
    words = ["--socket", str(socket), "--preload", "fake_serve", "--main", "fake_serve:serve"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "lazygraph_vllm.launcher", *words],
        env=environment | launcher_env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        command = [sys.executable, str(ROOT / "bench" / "gpu" / "launcher_checks.py")]
        command += ["--launcher-pid", str(launcher.pid), "--socket", str(socket), "--starts", "3"]
        command += ["--kill-after", "0.5", "--out", str(tmp_path / "checks.json"), *own]
        command += ["--", *vllm, "serve", "MODEL"]
        command += ["--gpu-memory-utilization", "0.9"]
        done = subprocess.run(
            command,
            env=environment | (checks or {}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    finally:
        launcher.kill()
        launcher.communicate(timeout=SECONDS_MAX)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    # What was kept as it came is what is told at the end.
    assert json.loads((tmp_path / "checks.json").read_text()) == result
    return done.returncode, result


def test_all_holds_for_a_server_that_is_as_it_should_be(tmp_path: Path) -> None:
    code, result = check(tmp_path)
    assert code == 0, result
    assert result["tokens"] == {"starts": 3, "wanted": 3, "equal": 3, "holds": True}
    assert result["growth"]["bytesMax"] == 2 * 4096 * 3
    assert [case["code"] for case in result["killed"]["cases"]] == [-9]
    assert result["orphan"]["holds"]
    assert len(result["readySeconds"]["forked"]) == 3


def test_a_server_is_killed_however_late_it_comes_and_its_gpu_is_asked_by_any_name(
    tmp_path: Path,
) -> None:
    asked = tmp_path / "asked"
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text(f'#!/bin/sh\necho "$1" >> {asked}\necho 7\n')
    driver.chmod(0o755)
    path = f"{driver.parent}{os.pathsep}{os.environ['PATH']}"
    own = ("--kill-after", "0", "0", "0", "--gpu", "GPU-1a")
    _, result = check(tmp_path, *own, checks={"PATH": path})
    assert [case["code"] for case in result["killed"]["cases"]] == [-9] * 3
    assert result["killed"]["holds"] and result["killed"]["cases"][0]["gpuBytesAfter"] == 7 << 20
    assert set(asked.read_text().split()) == {"--id=GPU-1a"}


def test_vllm_may_be_called_as_a_module(tmp_path: Path) -> None:
    code, result = check(tmp_path, as_module=True)
    assert code == 0, result
    assert result["tokens"]["equal"] == 3


def test_a_server_that_refuses_is_ended_before_the_next_one_starts(tmp_path: Path) -> None:
    code, result = check(tmp_path, checks={"FAKE_REFUSES_WHEN_SPAWNED": "1"})
    assert code == 1
    assert "404" in result["starts"]["error"]
    assert not [words for words in commands() if str(tmp_path).encode() in words]


def commands() -> list[bytes]:
    """Of all processes; one that ends meanwhile is none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def test_other_tokens_of_a_forked_server_are_found(tmp_path: Path) -> None:
    # Of the launcher alone, kept by an import: a positive control, no check without it.
    code, result = check(tmp_path, FAKE_WRONG_WHEN_FORKED="1")
    assert code == 1
    assert result["tokens"] == {"starts": 3, "wanted": 3, "equal": 0, "holds": False}
    assert not result["orphan"]["holds"]


def test_a_check_that_cannot_be_made_says_why_and_costs_none_of_the_others(tmp_path: Path) -> None:
    # The spawned server only: so there are no tokens to hold a forked one's against.
    code, result = check(tmp_path, checks={"FAKE_DIES_WHEN_SPAWNED": "1"})
    assert code == 1
    assert "expected a server, got an end by 1" in result["starts"]["error"]
    assert [case["code"] for case in result["killed"]["cases"]] == [-9]
    assert result["killed"]["holds"]
    assert "no tokens of a spawned server" in result["orphan"]["error"]


def test_what_there_is_no_time_for_is_left_out_and_told(tmp_path: Path) -> None:
    code, result = check(tmp_path, "--within", "0.01")
    assert code == 1
    assert "no time for a forked start" in result["starts"]["error"]
    assert result["killed"] == {"error": "RuntimeError: there was no time for it", "holds": False}
    assert result["orphan"] == {"error": "RuntimeError: there was no time for it", "holds": False}
