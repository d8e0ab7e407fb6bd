"""``register`` in the processes of vLLM: twice, and before vLLM is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lazygraph_vllm
from lazygraph_vllm import plugin
from vllm_facts import WARMS_UP_SEPARATELY

pytestmark = pytest.mark.usefixtures("pristine")

PACKAGE = Path(lazygraph_vllm.__file__).parent

PATCHED = {
    "executor": (
        "__init__",
        "compile_or_warm_up_model" if WARMS_UP_SEPARATELY else "initialize_from_config",
    ),
    "core": (
        "run_busy_loop",
        "_handle_client_request",
        "_process_input_queue",
        "_process_engine_step",
    ),
}


def patched() -> dict[str, list[int]]:
    """Whether each hook is ours; ``functools.wraps`` leaves the original reachable, once."""
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.abstract import Executor

    return {
        "executor": [_layers(getattr(Executor, n)) for n in PATCHED["executor"]],
        "core": [_layers(getattr(EngineCoreProc, n)) for n in PATCHED["core"]],
    }


def _layers(function: Any) -> int:
    layers = 0
    while function is not None:
        code = getattr(function, "__code__", None)
        layers += code is not None and Path(code.co_filename).is_relative_to(PACKAGE)
        function = getattr(function, "__wrapped__", None)
    return layers


def test_registering_twice_patches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYGRAPH_MODE", "idle")
    before = patched()
    assert before == {"executor": [0, 0], "core": [0, 0, 0, 0]}
    plugin.register()
    plugin.register()
    assert patched() == {"executor": [1, 1], "core": [1, 1, 1, 1]}


EARLY = """
import json, logging, sys
from lazygraph_vllm import plugin
plugin.register()
plugin.register()
heavy = [m for m in ("vllm", "torch", "zmq") if m in sys.modules]
import threading
threads = threading.active_count()
from vllm.v1.executor.abstract import Executor
from vllm.v1.engine.core import EngineCoreProc
ours = lambda f: "lazygraph_vllm" in f.__code__.co_filename
print(json.dumps({
    "heavy": heavy,
    "threads": threads,
    "patched": [ours(Executor.__init__), ours(EngineCoreProc.run_busy_loop)],
    "once": not hasattr(Executor.__init__.__wrapped__, "lazygraph")
        and not ours(EngineCoreProc.run_busy_loop.__wrapped__),
    "spec": EngineCoreProc.__module__ == "vllm.v1.engine.core"
        and sys.modules["vllm.v1.engine.core"].__spec__.name == "vllm.v1.engine.core",
}))
"""


def test_before_vllm_is_imported() -> None:
    """A spawned rank registers before most modules exist: they are patched when they come."""
    source = str(PACKAGE.parent)
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        env={**os.environ, "LAZYGRAPH_MODE": "idle", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "heavy": [],
        "threads": 1,
        "patched": [True, True],
        "once": True,
        "spec": True,
    }
