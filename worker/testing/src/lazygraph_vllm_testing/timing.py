"""Times a start's CUDA graphs on one rank: stock's and ours.

Wraps the worker's own methods, and the runner's at the moment they are called, so that whatever a
plugin put in their place is timed. Seconds are ``CLOCK_MONOTONIC``'s, which other
processes of this host share: a client can subtract them from its own.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class StartTiming:
    """One rank's start, from the initialised device to the end of warm-up and capture."""

    def __init__(self, worker: Any, rank: int, target: str) -> None:
        """Begin.

        Args:
            worker: vLLM's worker of this rank, with its device and model runner.
            rank: which one this is.
            target: a folder, which gets a file for each process, or a file to append to.
        """
        self._worker = worker
        self._runner = worker.model_runner
        self._target = Path(target)
        self._line: dict[str, Any] = {"rank": rank, "pid": os.getpid(), "profileSeconds": 0.0}

    def install(self, device_began: float) -> None:
        """Wrap the worker's methods of a start.

        Args:
            device_began: ``time.monotonic()`` before the device was initialised.
        """
        self._line["deviceBeganAt"] = device_began
        self._line["initDeviceSeconds"] = time.monotonic() - device_began
        worker = self._worker
        worker.load_model = self._timed(worker.load_model, "loadModelSeconds")
        worker.determine_available_memory = self._sizing(worker.determine_available_memory)
        worker.compile_or_warm_up_model = self._warm_up(worker.compile_or_warm_up_model)

    def _timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Add a call's seconds to a field of the line; the device's queue is emptied around it."""

        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            _synchronize()
            started = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                _synchronize()
                self._line[name] = self._line.get(name, 0.0) + time.monotonic() - started

        return run

    def _sizing(self, determine: Callable[..., Any]) -> Callable[..., Any]:
        """Time memory sizing, and the throw-away capture inside (from vLLM 0.29 on)."""
        timed = self._timed(determine, "determineAvailableMemorySeconds")

        @functools.wraps(determine)
        def run(*args: Any, **kwargs: Any) -> Any:
            profile = self._runner.profile_cudagraph_memory
            timed_profile = self._timed(profile, "profileSeconds")

            def profile_cudagraph_memory() -> int:
                estimate = int(timed_profile())
                self._line["estimateBytes"] = estimate
                return estimate

            with _replaced(self._runner, "profile_cudagraph_memory", profile_cudagraph_memory):
                available = timed(*args, **kwargs)
            self._line["kvCacheBytes"] = int(available)
            return available

        return run

    def _warm_up(self, warm_up: Callable[..., Any]) -> Callable[..., Any]:
        """Time warm-up and capture, then write the line."""
        timed = self._timed(warm_up, "compileOrWarmUpSeconds")

        @functools.wraps(warm_up)
        def run(*args: Any, **kwargs: Any) -> Any:
            capture = self._capture(self._runner.capture_model)
            with _replaced(self._runner, "capture_model", capture):
                result = timed(*args, **kwargs)
            self._write()
            return result

        return run

    def _capture(self, capture_model: Callable[..., int]) -> Callable[..., int]:
        """Time ``capture_model``, and vLLM's manager inside it: vLLM logs whole seconds."""
        timed = self._timed(capture_model, "captureModelSeconds")

        @functools.wraps(capture_model)
        def run(*args: Any, **kwargs: Any) -> int:
            import torch

            manager = self._runner.cudagraph_manager
            inside = self._timed(manager.capture, "captureSeconds")
            free_before = torch.cuda.mem_get_info()[0]
            with _replaced(manager, "capture", inside):
                size = timed(*args, **kwargs)
            self._line["freeLostBytes"] = free_before - torch.cuda.mem_get_info()[0]
            self._line["graphBytesTold"] = int(size)
            return size

        return run

    def _write(self) -> None:
        import torch
        from vllm.version import __version__

        line = self._line | {
            "vllm": __version__,
            "endedAt": time.monotonic(),
            "reservedBytes": torch.cuda.memory_reserved(),
            "kvBlocks": int(self._worker.cache_config.num_gpu_blocks or 0),
            "plugin": "lazygraph_vllm.rank.capture" in sys.modules,
        }
        for name in ("captureModelSeconds", "captureSeconds"):
            line.setdefault(name, 0.0)
        for name in ("freeLostBytes", "graphBytesTold", "estimateBytes"):
            line.setdefault(name, 0)
        path = self._target
        if path.is_dir():
            path = path / f"rank-{line['rank']}-{line['pid']}.jsonl"
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class _replaced:  # noqa: N801 - used as a function is
    """An attribute of one object, replaced for a block; what was set on the object comes back."""

    def __init__(self, owner: Any, name: str, value: Any) -> None:
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self) -> None:
        self._before = vars(self._owner).get(self._name)
        setattr(self._owner, self._name, self._value)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._before)


def _synchronize() -> None:
    import torch

    torch.cuda.synchronize()
