"""Carries out commands on EngineCore's main thread, between two steps.

A command that must not run now is answered, never dropped; one that was answered already is not
carried out again. Only captures and drops of a controller that another one has replaced meanwhile
are left out: command ids start anew with each, and the answer would be taken for another's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..protocol.messages import (
    Capture,
    Dispatch,
    Drop,
    Dropped,
    Freeze,
    Result,
    SetMode,
    Sleep,
    Wake,
)
from ..rank import calls as rank
from .alone import Alone
from .inbox import LOOK_AGAIN, Command
from .lockstep import Lockstep
from .ranks import ask
from .session import Session
from .sleep import Sleeper
from .state import EngineState

RESULTS_KEPT = 256


class Commands:
    """What each command does, and what was answered to the last ones."""

    def __init__(
        self,
        state: EngineState,
        session: Session,
        lockstep: Lockstep,
        alone: Alone,
        sleeper: Sleeper,
    ) -> None:
        self._state = state
        self._session = session
        self._lockstep = lockstep
        self._alone = alone
        self._sleeper = sleeper
        self._results: OrderedDict[tuple[int, int], Result | Dropped] = OrderedDict()
        self._has_table = False

    def run(self, engine: Any, command: Command) -> None:
        """Carry out one command."""
        state, message = self._state, command.message
        if isinstance(message, Capture):
            if command.local:
                self._capture_alone(engine, message)
            else:
                self._answer_once(engine, command, self._lockstep.capture)
        elif isinstance(message, Drop):
            self._answer_once(engine, command, self._lockstep.drop)
        elif isinstance(message, Sleep | Wake):
            self._sleep_or_wake(engine, message, command)
        elif isinstance(message, Dispatch):
            self._take_table(engine, message)
        elif message is LOOK_AGAIN:
            if state.idle:
                self._alone.fill()
        elif isinstance(message, Freeze):
            state.frozen = message.reason or "frozen"
        elif isinstance(message, SetMode):
            state.mode, state.frozen = message.mode, None
            if message.settling_seconds is not None:
                state.settling_at = time.monotonic() - message.settling_seconds
            self._session.update_hello(mode=state.mode)

    def _sleep_or_wake(self, engine: Any, message: Sleep | Wake, command: Command) -> None:
        if self._is_stale(command):
            return
        if isinstance(message, Sleep):
            self._sleeper.sleep(engine, message, command.incarnation)
        else:
            self._sleeper.wake(engine, message, command.incarnation)

    def _answer_once(
        self, engine: Any, command: Command, carry_out: Callable[[Any, Any], Result | Dropped]
    ) -> None:
        if self._is_stale(command):
            return
        message: Any = command.message
        key = (command.incarnation, message.command)
        if (earlier := self._results.get(key)) is not None:
            self._session.send(earlier)
            return
        answer = carry_out(engine, message)
        if answer.outcome != "deferred":
            self._results[key] = answer
            while len(self._results) > RESULTS_KEPT:
                self._results.popitem(last=False)
        if self._is_stale(command):
            self._session.tell_inventory()  # the new one's was made before this change
        else:
            self._session.send(answer)

    def _is_stale(self, command: Command) -> bool:
        return command.incarnation != self._session.incarnation

    def _capture_alone(self, engine: Any, message: Capture) -> None:
        """A capture of our own: nobody is told."""
        if not self._alone.taken():
            return  # a controller came back meanwhile: it decides
        result = self._lockstep.capture(engine, message, alone=True)
        self._alone.answered(result)
        if result.outcome == "captured" and self._has_table:
            # The table of the controller that is gone doesn't know this graph.
            self._has_table = False
            ask(engine, rank.set_table, (None,))
        if result.outcome != "deferred":
            self._alone.fill()  # deferred: the next idle edge asks again

    def _take_table(self, engine: Any, table: Dispatch) -> None:
        if self._state.unsupported:
            return
        answers = ask(engine, rank.set_table, (table,))
        if why := next((a for a in answers if a), None):
            self._session.problem("ERR_LAZYGRAPH_UNKNOWN_GRAPH", why)
        else:
            self._has_table = True
