"""Counts steps by shape between two telemetry batches. Pure; on rank 0, for ``steps``."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ..protocol.messages import STEPS_PER_BATCH_MAX, StepCount

# Of one size in a batch: the policy takes a batch for no more measurements than that
# (``REPORT_WEIGHT_MAX``), and each costs a step two events.
TIMED_PER_BATCH_MAX = 8


class StepKey(NamedTuple):
    """What steps are counted by; the fields are ``StepCount``'s."""

    tokens: int
    requests: int
    uniform: int
    served: str
    loras: int = 0
    query_length: int | None = None
    microbatches: int = 1


class StepCounter:
    """Steps since the last ``take``, merged by shape, case and what served them."""

    def __init__(self) -> None:
        self._steps: dict[StepKey, list[float]] = {}
        # By tokens and requests, which are known before a step's graph is.
        self._timed: Counter[tuple[int, int]] = Counter()
        self.dropped = 0

    def add(self, key: StepKey, context_tokens: float) -> None:
        """Count one step; beyond the batch limit it is counted as dropped."""
        entry = self._steps.get(key)
        if entry is None:
            if len(self._steps) >= STEPS_PER_BATCH_MAX:
                self.dropped += 1
                return
            entry = self._steps[key] = [0, 0.0, 0, 0.0, 0.0]
        entry[0] += 1
        entry[3] += context_tokens

    def wants_time(self, tokens: int, requests: int) -> bool:
        """Whether the seconds of one more step of this size would tell anything."""
        return self._timed[tokens, requests] < TIMED_PER_BATCH_MAX

    def time(self, key: StepKey, seconds: float, context_tokens: float) -> None:
        """Add the measured seconds of a step that was counted, maybe in an earlier batch.

        Its context comes along: of two chunks of one prompt both are counted before the first one
        has ended, and each one's seconds belong to its own context.
        """
        entry = self._steps.get(key)
        if entry is None:
            if len(self._steps) >= STEPS_PER_BATCH_MAX:
                return
            entry = self._steps[key] = [0, 0.0, 0, 0.0, 0.0]
        entry[1] += seconds
        entry[2] += 1
        entry[4] += context_tokens
        self._timed[key.tokens, key.requests] += 1

    def take(self) -> tuple[StepCount, ...]:
        """Return the batch and start a new one."""
        steps, self._steps = self._steps, {}
        self._timed.clear()
        return tuple(
            StepCount(
                **key._asdict(),
                count=int(count),
                seconds=seconds,
                timed=int(timed),
                context_tokens=of_timed / timed if timed else of_counted / count,
            )
            for key, (count, seconds, timed, of_counted, of_timed) in steps.items()
        )
