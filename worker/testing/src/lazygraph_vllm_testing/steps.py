"""Notes when each step of an engine begins, on one rank: stock's as well as ours.

A client's time per token also holds the API server's work, which at hundreds of streams is most
of it and differs by a fifth from run to run. What lies between the beginnings of two steps is the
engine's own.
"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any


class StepTimes:
    """One rank's steps, a line each: ``[seconds of CLOCK_MONOTONIC, requests]``.

    Requests are 0 unless the step decodes one token for each of them, so that what a reader takes
    for neighbours are neighbours.
    """

    def __init__(self, worker: Any, rank: int, folder: str) -> None:
        """Open the file.

        Args:
            worker: vLLM's worker of this rank.
            rank: which one this is.
            folder: gets ``steps-RANK-PID.jsonl``.
        """
        self._worker = worker
        path = Path(folder) / f"steps-{rank}-{os.getpid()}.jsonl"
        # Lines are written at once: the process ends without a chance to write what is left.
        self._file = path.open("a", buffering=1)

    def install(self) -> None:
        """Wrap the worker's ``execute_model``."""
        execute_model = self._worker.execute_model

        @functools.wraps(execute_model)
        def run(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            tokens = scheduler_output.total_num_scheduled_tokens
            requests = len(scheduler_output.num_scheduled_tokens)
            # New requests may be scheduled with a single token each; they decode nothing.
            decodes = tokens == requests and not scheduler_output.scheduled_new_reqs
            line = [time.monotonic(), requests if decodes else 0]
            self._file.write(json.dumps(line) + "\n")
            return execute_model(scheduler_output, *args, **kwargs)

        self._worker.execute_model = run
