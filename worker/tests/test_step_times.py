"""What the test plugin notes of an engine's steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lazygraph_vllm_testing.steps import StepTimes


class Worker:
    def __init__(self) -> None:
        self.ran: list[Any] = []

    def execute_model(self, scheduler_output: Any) -> int:
        self.ran.append(scheduler_output)
        return len(self.ran)


def output(tokens: dict[str, int], new: int = 0) -> Any:
    return SimpleNamespace(
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
        scheduled_new_reqs=[object()] * new,
    )


def test_only_steps_of_one_token_for_each_request_count_as_decoding(tmp_path: Path) -> None:
    worker = Worker()
    StepTimes(worker, 3, str(tmp_path)).install()
    began = time.monotonic()
    steps = [
        output({"a": 32, "b": 32}, new=2),
        output({"a": 1, "b": 1}),
        output({"a": 1, "b": 31}),
        output({"c": 1}, new=1),
        output({"a": 1}),
        output({}),
    ]
    # What the worker answers is what its caller gets.
    assert [worker.execute_model(step) for step in steps] == [1, 2, 3, 4, 5, 6]
    assert worker.ran == steps
    [file] = tmp_path.iterdir()
    assert file.name.startswith("steps-3-")
    # Read while the engine runs: nothing waits in a buffer.
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [requests for _, requests in lines] == [0, 2, 0, 0, 1, 0]
    times = [began, *(seconds for seconds, _ in lines), time.monotonic()]
    assert times == sorted(times)
