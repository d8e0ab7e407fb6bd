"""An engine whose controller is lost, or that never had one: it fills by itself.

By what rule is ``local_fill``'s; here is when, and what was learned from the last time. In
EngineCore's process, on the main thread, but for ``on_tick``.
"""

from __future__ import annotations

import time
from collections import Counter

from ..protocol.graph import covers
from ..protocol.messages import Capture, Result, StepCount
from ..rules import local_fill
from .inbox import LOOK_AGAIN, Command, Inbox
from .session import Session
from .state import EngineState


class Alone:
    """Sends the engine captures of its own, one at a time, while it is idle and alone."""

    def __init__(self, state: EngineState, session: Session, inbox: Inbox) -> None:
        self._state = state
        self._session = session
        self._inbox = inbox
        self._misses: Counter[str] = Counter()
        self._given_up: set[str] = set()  # not tried again while alone; a controller may
        self._asked = False  # a capture of our own is queued

    def fill(self) -> None:
        """Without a controller: ask ourselves for the next graph while there is nothing to do."""
        state = self._state
        if state.asleep or self._asked or state.frozen is not None or not self._session.alone():
            return
        # Ordered, by a controller that may be gone before it could say so once more.
        if state.orders.frozen is not None or self._settling_is_over():
            return
        if state.graphs_max is not None and len(state.captured) >= state.graphs_max:
            return
        done = state.captured.keys() | state.gone.keys() | self._given_up | state.excluded
        done |= state.room.waiting_for_room()
        graph = local_fill.next_capture(state.mode, state.graphs, done, self._misses)
        if graph is not None:
            self._asked = True
            self._inbox.put(Command(Capture(command=0, graph=graph.id, when_idle=True), local=True))

    def _settling_is_over(self) -> bool:
        """The controller that keeps this time may be gone; its end is known here."""
        within, began = self._state.orders.settle_within_seconds, self._state.settling_at
        return within is not None and began is not None and time.monotonic() - began >= within

    def on_tick(self) -> None:
        """On the link's thread, about once a second: an idle engine can't see time pass itself."""
        if self._state.idle and not self._asked and self._inbox.is_open and self._session.alone():
            self._inbox.put(Command(LOOK_AGAIN, local=True))

    def taken(self) -> bool:
        """The capture asked for has come to its turn; ``False``: a controller came back."""
        self._asked = False
        return self._session.alone()

    def answered(self, result: Result) -> None:
        """Remember what became of it: what was refused isn't asked for again and again."""
        if result.refusal == "headroom":
            self._state.room.found_no_room(result.graph, result.reason)
        elif result.outcome in ("refused", "failed"):
            self._given_up.add(result.graph)

    def missed(self, step: StepCount) -> None:
        """Remember what traffic wanted, for the time without a controller."""
        fitting = [g for g in self._state.graphs if covers(g, step)]
        if fitting:
            wanted = min(fitting, key=lambda g: (g.tokens, g.kind != "FULL"))
            self._misses[wanted.id] += step.count
