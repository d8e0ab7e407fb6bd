"""The timeline's hooks on vLLM's own functions: each phase is found, and timed as vLLM calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from vllm.version import __version__

# In a process of its own: what is timed stays timed.
SCRIPT = """
import importlib, importlib.util, json, sys
from lazygraph_vllm import plugin
from lazygraph_vllm.timeline.phases import PHASES

late, early = PHASES[0::2], PHASES[1::2]
def load(phases):
    found = []
    for phase in phases:
        try:
            spec = importlib.util.find_spec(phase.module)
        except ModuleNotFoundError:
            continue
        if spec is not None:
            importlib.import_module(phase.module)
            found.append(phase)
    return found

found = load(early)
plugin.register()
plugin.register()
found += load(late)
timed = []
for phase in found:
    owner = sys.modules[phase.module]
    for name in phase.path.split("."):
        owner = getattr(owner, name, None)
    if owner is None:
        continue  # This version has none.
    layers = 0
    while owner is not None:
        layers += "timeline" in getattr(getattr(owner, "__code__", None), "co_filename", "")
        owner = getattr(owner, "__wrapped__", None)
    timed.append([phase.name, phase.path, layers])

from vllm.engine.arg_utils import EngineArgs
try:
    EngineArgs.create_engine_config(object())
except (AttributeError, RuntimeError):
    pass
print(json.dumps(timed))
"""


def test_every_phase_is_timed_once(tmp_path: Path) -> None:
    env = {**os.environ, "LAZYGRAPH_STARTUP_DIR": str(tmp_path)}
    for name in ("LAZYGRAPH_MODE", "LAZYGRAPH_ENDPOINT"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    timed = json.loads(done.stdout.splitlines()[-1])
    # What 0.33's api_server module has of its launcher's, too: nobody calls it by that name.
    assert {layers for _, _, layers in timed} == {1}, timed
    names = {name for name, _, _ in timed}
    assert names | {"JIT monitor"} == {
        "config",
        "engine client",
        "tokenizer",
        "engine core",
        "executor",
        "worker",
        "device",
        "distributed",
        "model runner",
        "weights",
        "memory and KV cache",
        "memory sizing",
        "profile run",
        "graph profiling",
        "compile",
        "Inductor",
        "load compiled",
        "KV cache",
        "warm-up",
        "kernel warm-up",
        "warm-up requests",
        "captures",
        "Inductor patterns",
        "JIT monitor",
        "garbage",
        "JIT",
        "API server",
    }
    assert ("JIT monitor" in names) == (not __version__.startswith("0.26."))
    [file] = tmp_path.glob("spans-*")
    spans = [json.loads(line) for line in file.read_text().splitlines()]
    assert [span["name"] for span in spans] == ["imports", "command line", "config"]
    assert all(span["begin"] <= span["end"] for span in spans)
    assert [span["end"] for span in spans[:2]] == [span["begin"] for span in spans[1:]]
