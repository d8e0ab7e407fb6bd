"""A stand-in for a start of vLLM: some phases, of which compiling is done once for each cache.

It compiles for FAKE_COMPILE_SECONDS where VLLM_CACHE_ROOT has nothing of it, and then serves as
fake_serve.py does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import fake_serve
from lazygraph_vllm.timeline.recorder import Recorder


def serve() -> None:
    folder = os.environ.get("LAZYGRAPH_STARTUP_DIR")
    recorder = Recorder(folder) if folder else None
    if recorder is not None:
        recorder.imported()
    begin = time.monotonic()
    time.sleep(0.05)
    if recorder is not None:
        recorder.write("weights", begin, time.monotonic(), {"bytes": 1 << 20, "loader": "dummy"})
    begin = time.monotonic()
    compiled = Path(os.environ.get("VLLM_CACHE_ROOT", "/nonexistent")) / "compiled.py"
    if not compiled.exists():
        time.sleep(float(os.environ.get("FAKE_COMPILE_SECONDS", "0")))
        if "VLLM_CACHE_ROOT" in os.environ:
            compiled.parent.mkdir(parents=True, exist_ok=True)
            compiled.write_text("compiled\n")
    if recorder is not None:
        recorder.write("compile", begin, time.monotonic())
    fake_serve.serve()
