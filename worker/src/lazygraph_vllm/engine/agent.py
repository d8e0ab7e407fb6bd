"""What vLLM's EngineCore process calls of the plugin, in the order of an engine's life.

Commands arrive on the link's thread and run on EngineCore's main thread, between two steps, by
way of its own input queue. Everything else here happens on the main thread.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from ..protocol.messages import Ready
from ..rank import calls as rank
from ..settings import Settings
from ..vllm.allowed import config_reason
from ..vllm.choose import adapter_for
from .alone import Alone
from .commands import Commands
from .headroom import Headroom
from .inbox import Command, Inbox
from .lockstep import Lockstep
from .ranks import EndEngineError, SilentRankError
from .session import Session
from .sleep import Sleeper
from .startup import StartUp
from .state import EngineState
from .step_reports import StepReports

logger = logging.getLogger("vllm.lazygraph")


def _survived(hook: Callable[..., None]) -> Callable[..., None]:
    """VLLM's loop goes on whatever is raised in this one, but for what must end the engine."""

    @functools.wraps(hook)
    def guarded(self: Agent, *args: Any) -> None:
        try:
            hook(self, *args)
        except Exception as error:
            self._give_up(error)

    return guarded


class Agent:
    """One per EngineCore process: puts its parts together, and leaves to vLLM what it must."""

    def __init__(
        self, settings: Settings, config: Any, vllm_version: str, missing: str | None = None
    ) -> None:
        """Look at the configuration; nothing starts before ``begin``.

        Args:
            settings: what the environment asks for.
            config: vLLM's ``VllmConfig``.
            vllm_version: vLLM's version.
            missing: what this vLLM lacks of our hooks, as a sentence.
        """
        unsupported = config_reason(config, vllm_version, settings.allow_untested) or missing
        self.state = state = EngineState(
            mode=settings.mode,
            unsupported=unsupported,
            phase="stock" if unsupported else "loading",
            room=Headroom(settings),
            adapter=adapter.name if (adapter := adapter_for(vllm_version)) else None,
        )
        self._inbox = Inbox()
        self.session = Session(
            settings,
            config,
            vllm_version,
            state,
            self._inbox,
            on_tick=lambda: self._alone.on_tick(),  # the link's thread starts after all of this
        )
        self._alone = Alone(state, self.session, self._inbox)
        self._startup = StartUp(state, self.session, settings, vllm_version)
        self._steps = StepReports(self.session, self._alone)
        self._lockstep = Lockstep(state)
        self._sleeper = Sleeper(state, self.session)
        self._commands = Commands(state, self.session, self._lockstep, self._alone, self._sleeper)
        parallel = config.parallel_config
        self._several = unsupported is None and (
            parallel.tensor_parallel_size > 1 or parallel.pipeline_parallel_size > 1
        )
        self._verifies = settings.verify
        self._ready: Ready | None = None
        self._gave_up = False

    # -------------------------------------------------------------- start-up

    def begin(self) -> None:
        """Log where we stand and start connecting."""
        if self.state.unsupported:
            logger.warning("lazygraph: running as stock: %s", self.state.unsupported)
        try:
            self.session.connect()
        except Exception as error:
            # As one that no controller answers.
            logger.warning("lazygraph: can't connect to a controller", exc_info=error)

    def step_aside(self, reason: str) -> None:
        """Leave this engine to vLLM: nothing of it was changed yet, or all of it is undone."""
        logger.warning("lazygraph: running as stock: %s", reason)
        self._be_stock(reason)

    def _be_stock(self, reason: str) -> None:
        self.state.unsupported = reason
        self.state.phase = "stock"
        self.session.update_hello(phase="stock")
        self.session.tell_inventory()

    def before_sizing(self, rpc: Any) -> None:
        """Before vLLM sizes its KV cache: are the ranks what we know, and what to keep back?"""

        def known() -> str | None:
            reason = self._startup.identify(rpc)
            if reason is None:
                self.state.room.before_sizing(rpc)
            return reason

        self._prepared(rpc, known)

    def after_sizing(self, rpc: Any) -> None:
        """After it: did vLLM take what it was told?"""
        self._prepared(rpc, lambda: self.state.room.after_sizing(rpc))

    def before_capture(self, rpc: Any) -> None:
        """Between allocating the KV cache and capturing: hand-shake, then say what comes first."""

        def planned() -> str | None:
            reason = self._startup.take_plan(rpc)
            if reason is None:
                self._startup.prepare(rpc)
            return reason

        self._prepared(rpc, planned)

    def _prepared(self, rpc: Any, part: Callable[[], str | None]) -> None:
        """A part of the start, before anything is captured: a fault in it leaves all to vLLM."""
        if self.state.unsupported:
            return
        try:
            reason = part()
        except Exception as error:
            if self._several:
                raise  # whoever asks next would get other ranks' answers to this
            logger.debug("lazygraph: can't prepare this start", exc_info=True)
            rpc(rank.step_aside)
            self.state.graphs = []
            reason = f"can't prepare its graphs: {type(error).__name__}: {error}"
        if reason is not None:
            self.step_aside(reason)

    def after_capture(self, rpc: Any) -> None:
        """All ranks have captured the first set."""
        if self.state.unsupported:
            return
        try:
            self._ready = self._startup.finish(rpc)
        except Exception as error:
            if self._is_strict():
                raise
            self._give_up(error)
            return
        if self._ready is None:
            self.step_aside("vLLM captured its graphs without asking us")

    # -------------------------------------------------------------- serving

    def _is_strict(self) -> bool:
        """After an error ranks may differ, or a graph that failed its check may serve."""
        return self._verifies or len(self.state.ranks) > 1

    def _give_up(self, error: Exception) -> None:
        """Leave the engine to vLLM and to the graphs it has: no more of them, and none goes.

        Raises:
            EndEngineError: ranks may differ in their graphs, or one is silent.
        """
        ends = EndEngineError if self._is_strict() else SilentRankError
        if isinstance(error, ends):
            raise error
        if self._gave_up:
            logger.debug("lazygraph: another error after giving up", exc_info=error)
            return
        self._gave_up = True
        if isinstance(error, EndEngineError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # the other's words are of an engine that ends
        reason = f"gave up after {type(error).__name__}: {error}; the graphs it has go on serving"
        # Telling may be what has failed.
        with contextlib.suppress(Exception):
            self.session.problem("ERR_LAZYGRAPH_INTERNAL", reason, error)
        with contextlib.suppress(Exception):
            self._be_stock(self.state.unsupported or reason)

    @_survived
    def attach(self, engine: Any, wakeup: Any) -> None:
        """The busy loop starts: the engine serves from here on.

        Args:
            engine: vLLM's ``EngineCoreProc``.
            wakeup: the request type its input queue carries for us and ignores otherwise.
        """
        self._serve(engine)
        self._inbox.open(engine, wakeup)

    @_survived
    def _serve(self, engine: Any) -> None:
        state = self.state
        if not state.unsupported and self._ready is None:
            # Hooks that exist may still be hooks that nobody calls.
            self.step_aside("vLLM warmed up without calling our hooks")
        state.phase = "stock" if state.unsupported else "serving"
        self.session.update_hello(phase=state.phase, mode=state.mode)
        if self._ready is not None:
            state.settling_at = time.monotonic()
            self.session.send(self._ready)
        self._sleeper.attach(engine)
        if not state.unsupported:
            self._lockstep.attach(engine)

    @_survived
    def detach(self) -> None:
        """The busy loop ended."""
        self.state.phase = "stopping"
        self.session.close("the engine shut down")

    @_survived
    def on_idle(self, engine: Any) -> None:
        """The engine is about to wait for work."""
        state = self.state
        self._sleeper.look(engine)
        if state.unsupported:
            return
        if not state.idle:
            state.idle = True
            self._steps.report(engine, wait=True)
            self._steps.edge(engine, "idle")
        self._alone.fill()

    def on_work(self, engine: Any) -> None:
        """The loop stops waiting: the engine has work again, or shuts down."""
        try:  # and no wrapper: it is in the path of every step
            if self.state.idle and engine.has_work():
                self.state.idle = False
                self._steps.edge(engine, "busy")
        except Exception as error:
            self._give_up(error)

    @_survived
    def on_request(self, engine: Any) -> None:
        """Something else than a step was done: it may have put the engine to sleep, or woken it."""
        self._sleeper.look(engine)

    def after_step(self, engine: Any) -> None:
        """After every step: report demand from time to time, without waiting for anyone."""
        try:  # as above
            self._lockstep.captured_since_step = False
            if not self.state.unsupported and time.monotonic() >= self._steps.due_at:
                self._steps.report(engine, wait=False)
        except Exception as error:
            self._give_up(error)

    @_survived
    def execute(self, engine: Any, command: Command) -> None:
        """Run one command between two steps."""
        self._inbox.taken(command)
        self._commands.run(engine, command)
