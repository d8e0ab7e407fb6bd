"""The launcher with vLLM's modules: its imports, forks and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lazygraph_vllm

HERE = Path(__file__).resolve().parent
CLIENT = Path(lazygraph_vllm.__file__).parent / "launcher" / "client.py"
SECONDS_MAX = 300


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(HERE)])
    return {**os.environ, "PYTHONPATH": path, **more}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("launcher") / "socket"
    words = ["--socket", str(path), "--main", "launcher_probe:main"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lazygraph_vllm.launcher", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["listening"] == str(path)
    yield path
    process.terminate()
    assert process.wait(SECONDS_MAX) == 0


def start(path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "MODEL"]
    return subprocess.run(
        [sys.executable, "-I", str(CLIENT), str(path), "--no-spawn", "--", *command],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def test_ranks_come_by_fork_and_neither_plugins_nor_cuda_were_there_before(launcher: Path) -> None:
    done = start(launcher, VLLM_CACHE_ROOT="/nowhere/of-the-client")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert facts["argv"] == ["serve", "MODEL"]
    assert facts["method"] == "fork"
    pid, imported = facts["rank"]
    assert pid != facts["ownPid"]
    assert imported, "a rank by fork has vLLM imported"
    assert facts["rankEnded"] == 0
    assert facts["plugins"] is False
    assert facts["cuda"] is False
    # Looked up when asked for, so it is the client's.
    assert facts["root"] == "/nowhere/of-the-client"
    # What vLLM's import sets, a server has too, though its client hasn't.
    assert facts["inductorThreads"] == "1"


def test_servers_draw_their_own_numbers(launcher: Path) -> None:
    starts = [start(launcher) for _ in range(2)]
    first, second = (json.loads(done.stdout.splitlines()[-1])["draws"] for done in starts)
    assert all(a != b for a, b in zip(first, second, strict=True)), (first, second)


def test_variables_of_a_shell_may_differ_and_those_that_imports_keep_may_not(
    launcher: Path,
) -> None:
    shell = {"SHLVL": "9", "PWD": "/", "OLDPWD": "/", "TERM": "dumb", "SOME_SECRET": "x"}
    other_gpu = {"CUDA_VISIBLE_DEVICES": "1", "LAZYGRAPH_MODE": "lazy", "VLLM_PORT": "1234"}
    assert start(launcher, **shell, **other_gpu).returncode == 0
    for name in ("HF_HUB_OFFLINE", "VLLM_LOGGING_LEVEL", "OMP_NUM_THREADS"):
        done = start(launcher, **{name: "7"})
        assert done.returncode == 126
        assert f"Expected {name}=" in done.stderr
        assert done.stderr.endswith("[ERR_LAZYGRAPH_LAUNCHER_VARIABLE]\n")
