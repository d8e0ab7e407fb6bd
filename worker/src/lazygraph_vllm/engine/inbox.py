"""The way of commands from the link's thread to EngineCore's main thread.

They travel through EngineCore's own input queue, so that they run between two steps.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from ..protocol.messages import COMMANDS_WAITING_MAX, Resync, ToEngine

# To ourselves: look whether there is something to fill.
LOOK_AGAIN = Resync()


@dataclass(frozen=True)
class Command:
    """Travels through EngineCore's input queue; vLLM itself ignores it there.

    Attributes:
        message: what to do.
        local: we asked ourselves for it.
        incarnation: of the controller that asked; 0: of none.
    """

    message: ToEngine
    local: bool = False
    incarnation: int = 0


class Inbox:
    """Bounds the controller's commands that wait, and keeps those that come before the loop."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._wakeup: Any = None
        self._early: list[Command] = []
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def is_open(self) -> bool:
        """Whether the busy loop has started."""
        return self._engine is not None

    def accept(self, command: Command) -> bool:
        """Take a command of the controller in; ``False``: too many are waiting already."""
        with self._lock:
            full = self._waiting >= COMMANDS_WAITING_MAX
            self._waiting += not full
        if full:
            return False
        with self._lock:
            if self._engine is None:
                self._early.append(command)
                return True
        self.put(command)
        return True

    def put(self, command: Command) -> None:
        """Queue a command for the main thread; one of our own has no limit but its sender's."""
        self._engine.input_queue.put_nowait((self._wakeup, command))

    def taken(self, command: Command) -> None:
        """A command has come to its turn."""
        if not command.local:
            with self._lock:
                self._waiting -= 1

    def open(self, engine: Any, wakeup: Any) -> None:
        """The busy loop starts: hand over what came early.

        Args:
            engine: vLLM's ``EngineCoreProc``.
            wakeup: the request type its input queue carries for us and ignores otherwise.
        """
        with self._lock:
            self._wakeup = wakeup
            self._engine = engine
            early, self._early = self._early, []
            for command in early:  # before any that comes from now on
                self.put(command)
