"""Test-only vLLM plugin: never installed with the product.

| variable | does |
|---|---|
| `LAZYGRAPH_TEST_WEIGHTS=fan-in` | dummy weights at fan-in scale, seeded by name and rank |
| `LAZYGRAPH_TEST_TIMING=FILE` | one JSON line per start: vLLM's own capture time and bytes |
| `LAZYGRAPH_TEST_FAULT=dead:FULL:24` | after its capture, replaying FULL 24 does nothing |
| `LAZYGRAPH_TEST_FAULT=skip-all-reduce:FULL:24` | the all-reduces of that graph are left out |
| `LAZYGRAPH_TEST_FAULT=corrupt:FULL:24@1` | FULL 24 gives one wrong row; `@1`: on rank 1 only |

Several faults are separated by commas.

The faults are positive controls: a check that passes with one of them in place is no check.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from typing import Any


def register() -> None:
    """Install what the environment asks for, in the processes that run a model."""
    weights = os.environ.get("LAZYGRAPH_TEST_WEIGHTS")
    timing = os.environ.get("LAZYGRAPH_TEST_TIMING")
    fault = os.environ.get("LAZYGRAPH_TEST_FAULT")
    if not (weights or timing or fault):
        return
    # vLLM loads plugins in the process of each rank before it resolves the worker's class, so
    # wrapping the base class's constructor path here comes before any model exists.
    from vllm.v1.worker import worker_base

    original = worker_base.WorkerWrapperBase.init_device
    if getattr(original, "lazygraph_testing", False):
        return

    @functools.wraps(original)
    def init_device(self: Any) -> Any:
        result = original(self)
        rank = int(getattr(self, "global_rank", 0))
        if weights == "fan-in":
            _fan_in_weights(rank)
        if timing:
            _time_capture(self.worker.model_runner, timing, rank)
        if fault:
            from .faults import inject

            inject(fault, rank)
        return result

    init_device.lazygraph_testing = True  # type: ignore[attr-defined]
    worker_base.WorkerWrapperBase.init_device = init_device


def _fan_in_weights(rank: int) -> None:
    """Draw weights that make layers matter: norms 1, else uniform ±sqrt(3 / fan-in).

    vLLM's dummy weights (±0.001, norms included, equal on all ranks) hide faults: a model without
    layers answers nearly the same.
    """
    loader = importlib.import_module("vllm.model_executor.model_loader.dummy_loader")

    def load_weights(self: Any, model: Any, model_config: Any) -> None:
        import zlib

        import torch

        for name, parameter in model.named_parameters():
            data = parameter.data
            if not data.is_floating_point():
                continue
            if data.dim() < 2 or "norm" in name:
                data.fill_(1.0 if "norm" in name else 0.0)
                continue
            seed = zlib.crc32(f"{name}/{rank}".encode())
            generator = torch.Generator(device=data.device).manual_seed(seed)
            bound = (3.0 / data.shape[-1]) ** 0.5
            data.uniform_(-bound, bound, generator=generator)

    loader.DummyModelLoader.load_weights = load_weights


def _time_capture(runner: Any, path: str, rank: int) -> None:
    """Time ``capture_model`` exactly, and vLLM's manager inside it; vLLM logs whole seconds."""
    original = runner.capture_model
    inner: list[float] = []

    def timed_manager_capture(capture: Any) -> Any:
        @functools.wraps(capture)
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return capture(*args, **kwargs)
            finally:
                inner.append(time.perf_counter() - started)

        return run

    @functools.wraps(original)
    def capture_model() -> int:
        import torch

        manager = runner.cudagraph_manager
        manager.capture = timed_manager_capture(manager.capture)
        torch.cuda.synchronize()
        free_before = torch.cuda.mem_get_info()[0]
        started = time.perf_counter()
        try:
            size = original()
            torch.cuda.synchronize()
        finally:
            del manager.capture
        seconds = time.perf_counter() - started
        line = {
            "rank": rank,
            "captureModelSeconds": seconds,
            "captureSeconds": sum(inner),
            "freeLostBytes": free_before - torch.cuda.mem_get_info()[0],
            "reservedBytes": torch.cuda.memory_reserved(),
            "plugin": "lazygraph_vllm.capture" in sys.modules,
        }
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
        return size

    runner.capture_model = capture_model
