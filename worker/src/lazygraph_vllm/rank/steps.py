"""Counts and times the real steps of one rank.

In each rank's process, on the thread that runs the model: ``watch_steps`` wraps the runner's two
methods of a step, so what is here runs in every step and waits for nothing. The engine takes the
counts by ``rank.drain_steps``.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from typing import Any

from .dispatch import RankDispatch
from .telemetry import StepCounter, StepKey

logger = logging.getLogger("vllm.lazygraph")

STEPS_IN_FLIGHT_MAX = 64


class StepWatch:
    """Counts and times real steps on one rank, without ever waiting for the GPU.

    A step's seconds are those between two CUDA events on the model's stream: before its inputs
    are prepared and after its tokens are sampled, or its part of the model is run where another
    stage of a pipeline samples them. Events are read when a later step starts, on
    the thread that owns the stream: reading them on another thread would end a capture.

    Attributes:
        counter: what the engine takes.
        failure: why no step is counted any more; ``None``: they are.
    """

    def __init__(self) -> None:
        self.counter = StepCounter()
        self.failure: str | None = None
        self._in_flight: deque[tuple[StepKey, float, Any, Any]] = deque()
        self._spare: list[Any] = []
        self._open: tuple[StepKey, float, Any] | None = None

    def begin(self, tokens: int, requests: int) -> Any:
        """Mark the start of a step that is to be timed; returns its event, ``None`` for others."""
        self.harvest()
        return self._mark() if self.counter.wants_time(tokens, requests) else None

    def dispatched(self, key: StepKey, event: Any, context: float) -> None:
        """Count the step whose graph is now known; without an event it isn't timed."""
        self.counter.add(key, context)
        self._open = None if event is None else (key, context, event)

    def end(self) -> None:
        """Mark the end of the step that is open."""
        if self._open is None:
            return
        (key, context, start), self._open = self._open, None
        if len(self._in_flight) < STEPS_IN_FLIGHT_MAX:
            self._in_flight.append((key, context, start, self._mark()))
        else:
            self._spare.append(start)

    def _mark(self) -> Any:
        if not self._spare:
            import torch

            self._spare.append(torch.cuda.Event(enable_timing=True))
        event = self._spare.pop()
        event.record()
        return event

    def give_up(self, error: Exception) -> None:
        """Count no more steps, which go on: ``rank.drain_steps`` tells the engine."""
        logger.warning("lazygraph: can't count this rank's steps", exc_info=error)
        self.failure = f"counting steps: {type(error).__name__}: {error}"
        self._open = None

    def forget(self) -> None:
        """Drop every step so far, also those whose events were not read yet."""
        self._in_flight.clear()
        self.counter.take()

    def harvest(self) -> None:
        """Read the events of finished steps."""
        while self._in_flight and self._in_flight[0][3].query():
            key, context, start, end = self._in_flight.popleft()
            self.counter.time(key, start.elapsed_time(end) / 1000, context)
            self._spare += (start, end)


def watch_steps(runner: Any, dispatch: RankDispatch) -> None:
    """Count this runner's steps from now on, in ``runner.lazygraph_steps``."""
    watch = runner.lazygraph_steps = StepWatch()
    execute, sample = runner.execute_model, runner.sample_tokens

    @functools.wraps(execute)
    def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if watch.failure is not None or kwargs.get("dummy_run"):
            return execute(scheduler_output, *args, **kwargs)
        try:
            scheduled = scheduler_output.num_scheduled_tokens
            if scheduled:
                requests, tokens = len(scheduled), scheduler_output.total_num_scheduled_tokens
                event = watch.begin(tokens, requests)
        except Exception as error:
            watch.give_up(error)
            scheduled = None
        result = execute(scheduler_output, *args, **kwargs)
        if not scheduled:
            return result
        try:
            longest = 1 if tokens == requests else max(scheduled.values())
            uniform = longest if longest * requests == tokens else 0
            if dispatch.last_call.uniform is None and uniform == dispatch.decode_length:
                uniform = 0  # a prompt's last tokens, as many as a decode step's: no decode graph's
            computed = sum(scheduler_output.scheduled_cached_reqs.num_computed_tokens)
            call = dispatch.last_call
            key = StepKey(
                tokens,
                requests,
                uniform,
                dispatch.last_served,
                call.loras,
                call.query_length if dispatch.limits_queries else None,
                call.microbatches,
            )
            watch.dispatched(key, event, (computed + tokens) / requests)
        except Exception as error:
            watch.give_up(error)
        return result

    @functools.wraps(sample)
    def sample_tokens(*args: Any, **kwargs: Any) -> Any:
        result = sample(*args, **kwargs)
        try:
            watch.end()
        except Exception as error:
            watch.give_up(error)
        return result

    runner.execute_model = execute_model
    runner.sample_tokens = sample_tokens
