"""What the test plugin tells of a start, with stand-ins for vLLM and torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lazygraph_vllm_testing import timing
from lazygraph_vllm_testing.timing import StartTiming

# Sums of these are exact in binary.
PROFILE_SECONDS, CAPTURE_SECONDS = 0.5, 0.25
BEGAN = 100.0


class Clock:
    """Goes on only when something is said to take time."""

    now = BEGAN

    def monotonic(self) -> float:
        return self.now


class Manager:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def capture(self) -> None:
        self._clock.now += CAPTURE_SECONDS


class Runner:
    def __init__(self, device: Any, clock: Clock) -> None:
        self.cudagraph_manager = Manager(clock)
        self._device = device
        self._clock = clock

    def profile_cudagraph_memory(self) -> int:
        self._clock.now += PROFILE_SECONDS
        self.capture_model(profile_only=True)
        return 900

    def capture_model(self, *, profile_only: bool = False) -> int:
        self.cudagraph_manager.capture()
        if not profile_only:
            self._device["free"] -= 400
        return 400


class Worker:
    def __init__(self, device: Any, clock: Clock) -> None:
        self.model_runner = Runner(device, clock)
        self.cache_config = SimpleNamespace(num_gpu_blocks=None)

    def load_model(self) -> None: ...

    def determine_available_memory(self) -> int:
        return 5000 - self.model_runner.profile_cudagraph_memory()

    def compile_or_warm_up_model(self) -> str:
        self.cache_config.num_gpu_blocks = 7
        self.model_runner.capture_model()
        return "times"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    device = {"free": 1000}
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        synchronize=lambda: None,
        mem_get_info=lambda: (device["free"], 2000),
        memory_reserved=lambda: 123,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    vllm, version = ModuleType("vllm"), ModuleType("vllm.version")
    version.__version__ = "0.33.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.version", version)
    monkeypatch.delitem(sys.modules, "lazygraph_vllm.rank.capture", raising=False)
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return Worker(device, clock)


def start(worker: Worker) -> None:
    worker.load_model()
    assert worker.determine_available_memory() > 0
    assert worker.compile_or_warm_up_model() == "times"


def test_both_captures_are_timed_and_told_apart(worker: Worker, tmp_path: Path) -> None:
    StartTiming(worker, 1, str(tmp_path)).install(BEGAN)
    start(worker)
    [file] = tmp_path.iterdir()
    assert file.name.startswith("rank-1-")
    line = json.loads(file.read_text())
    # The throw-away capture is the profile's alone.
    assert line["profileSeconds"] == PROFILE_SECONDS + CAPTURE_SECONDS
    assert line["determineAvailableMemorySeconds"] == PROFILE_SECONDS + CAPTURE_SECONDS
    for name in ("captureSeconds", "captureModelSeconds", "compileOrWarmUpSeconds"):
        assert line[name] == CAPTURE_SECONDS, name
    assert (line["estimateBytes"], line["graphBytesTold"], line["freeLostBytes"]) == (900, 400, 400)
    assert (line["kvBlocks"], line["kvCacheBytes"], line["plugin"]) == (7, 4100, False)
    assert line["deviceBeganAt"] == BEGAN
    assert line["endedAt"] == BEGAN + PROFILE_SECONDS + 2 * CAPTURE_SECONDS


def test_what_a_plugin_put_in_the_profiles_place_is_what_counts(
    worker: Worker, tmp_path: Path
) -> None:
    StartTiming(worker, 0, str(tmp_path)).install(BEGAN)
    worker.model_runner.profile_cudagraph_memory = lambda: 11  # type: ignore[method-assign]
    start(worker)
    [file] = tmp_path.iterdir()
    line = json.loads(file.read_text())
    assert line["estimateBytes"] == 11
    assert line["profileSeconds"] == 0
    assert worker.model_runner.profile_cudagraph_memory() == 11


def test_a_start_without_a_profile_spends_nothing_on_it(worker: Worker, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    StartTiming(worker, 0, str(file)).install(BEGAN)
    worker.compile_or_warm_up_model()
    line = json.loads(file.read_text())
    assert (line["profileSeconds"], line["estimateBytes"]) == (0.0, 0)
    assert "capture_model" not in vars(worker.model_runner)
