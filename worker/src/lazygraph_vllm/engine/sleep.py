"""Puts an engine to sleep and wakes it, by vLLM's own API; knows when somebody else did.

Asleep is an engine with a tag (weights, KV cache) whose memory is given back. Its graphs stay: they
record addresses, which sleep keeps. They lie outside what vLLM gives back, so that whoever wants
their memory too has them dropped, and they come back as any missing graph does.

In EngineCore's process, on the main thread, between two steps.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Any

from ..protocol.messages import Sleep, Slept, Wake
from ..protocol.texts import shortened
from ..rank import calls as rank
from .ranks import EndEngineError, ask, fatal, require_same
from .session import Session
from .state import EngineState

logger = logging.getLogger("vllm.lazygraph")

# Requests that run end first; new ones wait. Nothing is lost.
PAUSE = "wait"
ANSWERS_KEPT = 16
# What a sleep gives up, as vLLM's executor has it.
TAGS = frozenset({"weights", "kv_cache"})


class Sleeper:
    """One per engine."""

    def __init__(self, state: EngineState, session: Session) -> None:
        self._state = state
        self._session = session
        # Of a sleep of ours that waits for running requests.
        self._pending: tuple[int, int] | None = None
        # The weights were given up, and nobody has loaded them again: see ``attach``.
        self._weights_gone = False
        self._answers: OrderedDict[tuple[int, int], Slept] = OrderedDict()
        # What ended a sleep that waited, and is raised where the engine looks next.
        self._fatal: BaseException | None = None

    # -------------------------------------------------------------- whoever did it

    def attach(self, engine: Any) -> None:
        """Note from now on whether the weights are given up, and by whom they are answered for.

        Whoever wakes them by vLLM's own calls loads them, too, as reinforcement learning does: the
        checkpoint's, loaded by a later ``wake``, would take the place of newer ones.
        """
        if not self._session.sleeps:
            return
        executor = engine.model_executor
        sleep, wake_up = executor.sleep, executor.wake_up

        def noted_sleep(level: int = 1) -> Any:
            if "weights" not in _tags(engine):  # else vLLM leaves it at what it did
                self._weights_gone = self._weights_gone or level != 1
            try:
                return sleep(level)
            except Exception:
                # Some of it may be given up. A wake-up brings that back, and needs its tags.
                executor.sleeping_tags |= TAGS
                if len(self._state.ranks) > 1:
                    self._fatal = EndEngineError(
                        "lazygraph: a sleep failed on one of several ranks, and whoever asks them "
                        "next would get the others' answers to it; ending the engine"
                    )
                raise

        def noted_wake_up(tags: list[str] | None = None) -> Any:
            asleep = "weights" in _tags(engine)
            result = wake_up(tags)
            left = _tags(engine)
            if not left or (asleep and "weights" not in left):
                self._weights_gone = False
            return result

        executor.sleep, executor.wake_up = noted_sleep, noted_wake_up

    def look(self, engine: Any) -> None:
        """Note whether the engine sleeps, and tell the controller if that has changed."""
        ended, self._fatal = self._fatal, None
        if ended is not None:
            raise ended
        tags = _tags(engine)
        if tags == self._state.asleep:
            return
        self._state.asleep = tags
        if not self._state.unsupported:
            # What was free meanwhile was never a graph's to take.
            answers = ask(engine, rank.look)
            self._state.ranks = tuple(answers)
        what = f"sleeps: {', '.join(tags)}" if tags else "is awake"
        logger.info("lazygraph: the engine %s", what)
        self._session.tell_inventory()

    # -------------------------------------------------------------- by command

    def sleep(self, engine: Any, message: Sleep, incarnation: int) -> None:
        """Have the engine sleep, once what runs has ended; the answer comes then."""
        key = (incarnation, message.command)
        if key == self._pending or self._repeated(key):
            return
        if reason := self._why_not_sleep(engine, message):
            self._answer(key, engine, "refused", reason=reason)
            return
        began = time.perf_counter()
        self._pending = key

        def finish(error: BaseException | None) -> None:
            self._pending = None
            self._finish_sleep(engine, message, key, began, error)

        try:
            waiting = engine.sleep(message.level, PAUSE)
        except Exception as error:
            finish(error)
            return
        if waiting is None:
            finish(None)
        else:
            # At the end of the last request, by vLLM's own callback on this thread.
            waiting.add_done_callback(lambda done: self._later(finish, done.exception()))

    def _later(self, finish: Any, error: BaseException | None) -> None:
        try:
            finish(error)
        except Exception as fatal:
            self._fatal = fatal  # a future would swallow it

    def _finish_sleep(
        self,
        engine: Any,
        message: Sleep,
        key: tuple[int, int],
        began: float,
        error: BaseException | None,
    ) -> None:
        if error is not None:
            self.look(engine)
            reason = f"vLLM could not sleep: {type(error).__name__}: {error}"
            logger.error("lazygraph: %s", reason, exc_info=error)
            if not _tags(engine):
                engine.resume_scheduler()  # what was queued meanwhile is served
            else:
                reason = self._roused(engine, self._weights_gone) or reason
            self._answer(key, engine, "failed", reason=reason)
            return
        freed = self._drop_graphs(engine) if message.drop_graphs else 0
        self.look(engine)
        seconds = time.perf_counter() - began
        self._answer(key, engine, "asleep", seconds=seconds, freed=freed)

    def _drop_graphs(self, engine: Any) -> int:
        """Give the graphs' memory back as well; they are missing from then on, and no more."""
        state = self._state
        if state.unsupported or not state.captured:
            return 0
        with fatal("dropping all graphs"):
            answers = ask(engine, rank.drop_all)
            require_same(answers, "dropping graphs")
            logger.info("lazygraph: dropped all %d graphs for a sleep", len(state.captured))
            state.captured.clear()
            state.epoch = answers[0]["epoch"]
            return int(min(a["freed"] for a in answers))

    def wake(self, engine: Any, message: Wake, incarnation: int) -> None:
        """Wake the engine; weights that were given up are loaded again before it serves."""
        key = (incarnation, message.command)
        if self._repeated(key):
            return
        if reason := self._why_not_wake(engine):
            self._answer(key, engine, "refused", reason=reason)
            return
        began, reload = time.perf_counter(), message.reload_weights
        reload = self._weights_gone if reload is None else reload
        if reason := self._roused(engine, reload):
            self._answer(key, engine, "failed", reason=reason)
        else:
            self._answer(key, engine, "awake", seconds=time.perf_counter() - began)

    def _roused(self, engine: Any, reload: bool) -> str | None:
        """Wake it, maybe with its weights loaded again; why it couldn't be."""
        reason, gone = None, self._weights_gone
        try:
            if reload:
                if "weights" in _tags(engine):
                    engine.wake_up(["weights"])
                engine.model_executor.collective_rpc("reload_weights")
            if rest := _tags(engine):
                engine.wake_up(list(rest))
        except Exception as error:
            self._weights_gone = gone or reload
            reason = f"vLLM could not wake up: {type(error).__name__}: {error}"
            logger.exception("lazygraph: %s", reason)
        self.look(engine)
        return reason

    # -------------------------------------------------------------- why not

    def _why_not_sleep(self, engine: Any, message: Sleep) -> str | None:
        if reason := self._never(engine):
            return reason
        if self._pending is not None:
            return "a sleep is under way already: it waits for requests that run"
        if tags := _tags(engine):
            return f"the engine sleeps already ({', '.join(tags)}): wake it first"
        if engine.is_scheduler_paused():
            return "the scheduler is paused: resume it first"
        return None

    def _why_not_wake(self, engine: Any) -> str | None:
        if reason := self._never(engine):
            return reason
        if self._pending is not None:
            return "a sleep is under way: wait for its answer first"
        return None if _tags(engine) else "the engine is awake"

    def _never(self, engine: Any) -> str | None:
        if not self._session.sleeps:
            return "sleep mode is off: start vLLM with --enable-sleep-mode"
        if not engine.is_running():
            return "the engine is shutting down"
        return None

    # -------------------------------------------------------------- answers

    def _repeated(self, key: tuple[int, int]) -> bool:
        earlier = self._answers.get(key)
        if earlier is not None:
            self._session.send(earlier)
        return earlier is not None

    def _answer(
        self,
        key: tuple[int, int],
        engine: Any,
        outcome: Any,
        *,
        reason: str | None = None,
        seconds: float = 0.0,
        freed: int = 0,
    ) -> None:
        answer = Slept(
            command=key[1],
            outcome=outcome,
            asleep=_tags(engine),
            seconds=seconds,
            freed_bytes=freed,
            reason=shortened(reason) if reason else None,
            ranks=self._state.ranks,
            epoch=self._state.epoch,
        )
        self._answers[key] = answer
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        if key[0] == self._session.incarnation:
            self._session.send(answer)


def _tags(engine: Any) -> tuple[str, ...]:
    """What of the engine sleeps; nothing on a vLLM without tags, which sleeps without us."""
    return tuple(sorted(getattr(engine.model_executor, "sleeping_tags", ())))
