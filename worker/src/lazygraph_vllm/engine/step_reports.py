"""What the controller is told about steps: demand in batches, and when the engine idles.

In EngineCore's process, on the main thread.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from ..protocol.messages import STEPS_PER_BATCH_MAX, Edge, StepCount, Telemetry
from ..rank import calls as rank
from .alone import Alone
from .ranks import answers_to, ask, ask_later
from .session import Session

TELEMETRY_SECONDS = 0.1


class StepReports:
    """Steps drained from rank 0, collected without blocking while the engine works.

    Attributes:
        due_at: when the next batch is to be reported, by the monotonic clock.
    """

    def __init__(self, session: Session, alone: Alone) -> None:
        self._session = session
        self._alone = alone
        self.due_at = 0.0
        self._pending: Future[Any] | None = None
        self._steps: list[StepCount] = []
        self._dropped = 0
        self._sequence = 0

    def edge(self, engine: Any, state: Any) -> None:
        """Tell that the engine has become idle, or busy."""
        running, waiting = engine.scheduler.get_request_counts()
        self._session.send(Edge(state=state, running=running, waiting=waiting))

    def report(self, engine: Any, wait: bool) -> None:
        """Tell what was asked for since the last time; ``wait`` for the ranks' answer or not."""
        self.due_at = time.monotonic() + TELEMETRY_SECONDS
        if wait:
            self._collect(ask(engine, rank.drain_steps))
        else:
            # The answer of last time is here by now: ranks answer in order, and steps came after.
            self._poll()
            if self._pending is None:
                self._pending = ask_later(engine, rank.drain_steps)
        steps = tuple(self._steps[:STEPS_PER_BATCH_MAX])
        del self._steps[: len(steps)]
        if not steps:
            return
        for step in steps:
            if step.served == "":
                self._alone.missed(step)
        running, waiting = engine.scheduler.get_request_counts()
        self._sequence += 1
        message = Telemetry(
            sequence=self._sequence,
            dropped=self._dropped + self._session.dropped,
            steps=steps,
            running=running,
            waiting=waiting,
        )
        self._session.send(message)

    def _poll(self) -> None:
        """Take in the answer that was asked for last time, if it is here."""
        if self._pending is not None and self._pending.done():
            pending, self._pending = self._pending, None
            self._collect(answers_to(rank.drain_steps, pending))

    def _collect(self, answers: Any) -> None:
        """Take in what the ranks answered; only rank 0 counts steps."""
        self._poll()
        for answer in answers or ():
            if answer is not None:
                self._steps.extend(answer[0])
                self._dropped = answer[1]
