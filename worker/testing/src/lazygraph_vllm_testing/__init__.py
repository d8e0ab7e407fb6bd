"""Test-only vLLM plugin: never installed with the product.

| variable | does |
|---|---|
| `LAZYGRAPH_TEST_WEIGHTS=fan-in` | dummy weights at fan-in scale, seeded by name and rank |
| `LAZYGRAPH_TEST_WEIGHTS=echo` | the same, but layers add little: an EAGLE head then agrees |
| `LAZYGRAPH_TEST_TIMING=PATH` | a JSON line per rank, what graphs cost; file or folder |
| `LAZYGRAPH_TEST_STEPS=FOLDER` | a file per rank, when each step began and what it decoded |
| `LAZYGRAPH_TEST_FAULT=dead:FULL:24` | after its capture, replaying FULL 24 does nothing |
| `LAZYGRAPH_TEST_FAULT=skip-all-reduce:FULL:24` | the all-reduces of that graph are left out |
| `LAZYGRAPH_TEST_FAULT=corrupt:FULL:24@1` | FULL 24 gives one wrong row; `@1`: on rank 1 only |
| `LAZYGRAPH_TEST_FAULT=no-memory:FULL:24@1` | capturing FULL 24 runs out of memory on rank 1 |
| `LAZYGRAPH_TEST_FAULT=killed:FULL:24@1` | rank 1 is killed while it captures FULL 24 |

Several faults are separated by commas.

The faults are positive controls: a check that passes with one of them in place is no check.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any


def register() -> None:
    """Install what the environment asks for, in the processes that run a model."""
    weights = os.environ.get("LAZYGRAPH_TEST_WEIGHTS")
    timing = os.environ.get("LAZYGRAPH_TEST_TIMING")
    steps = os.environ.get("LAZYGRAPH_TEST_STEPS")
    fault = os.environ.get("LAZYGRAPH_TEST_FAULT")
    if not (weights or timing or steps or fault):
        return
    # vLLM loads plugins in the process of each rank before it resolves the worker's class, so
    # wrapping the base class's constructor path here comes before any model exists.
    from vllm.v1.worker import worker_base

    original = worker_base.WorkerWrapperBase.init_device
    if getattr(original, "lazygraph_testing", False):
        return

    @functools.wraps(original)
    def init_device(self: Any) -> Any:
        began = time.monotonic()
        result = original(self)
        rank = int(getattr(self, "global_rank", 0))
        if weights in ("fan-in", "echo"):
            from .weights import use_fan_in

            use_fan_in(rank, echo=weights == "echo")
        if timing:
            from .timing import StartTiming

            StartTiming(self.worker, rank, timing).install(began)
        if steps:
            from .steps import StepTimes

            StepTimes(self.worker, rank, steps).install()
        if fault:
            from .faults import inject

            inject(fault, rank)
        return result

    init_device.lazygraph_testing = True  # type: ignore[attr-defined]
    worker_base.WorkerWrapperBase.init_device = init_device
