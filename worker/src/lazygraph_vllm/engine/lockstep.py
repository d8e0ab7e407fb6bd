"""Changes an engine's graphs between two steps, on all ranks alike.

Every rank is asked the same in the same order, and what they hold afterwards is compared. No step
would be right on ranks that hold different graphs: then the engine ends, with the reason.

In EngineCore's process, on the main thread.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import Any

from ..protocol.messages import (
    Capture,
    Captured,
    Drop,
    Dropped,
    Outcome,
    Refusal,
    Result,
)
from ..protocol.texts import shortened
from ..rank import calls as rank
from .inbox import Command
from .ranks import EndEngineError, ask, fatal, require_same
from .state import EngineState

logger = logging.getLogger("vllm.lazygraph")


class Lockstep:
    """Captures a graph or drops some, and books what came of it; says why where it may not.

    Attributes:
        captured_since_step: a capture was made since the last step.
    """

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self.captured_since_step = False
        self._checkpointed = False

    def attach(self, engine: Any) -> None:
        """Note from now on whether the ranks' communicators are given up for a checkpoint."""
        asked = engine.collective_rpc

        @functools.wraps(asked)
        def noted(method: Any, *args: Any, **options: Any) -> Any:
            # By a rank that fails, too: others may have given theirs up.
            self._checkpointed = self._checkpointed or method == "checkpoint_prepare"
            answers = asked(method, *args, **options)
            if method == "checkpoint_restore":
                self._checkpointed = False
            return answers

        engine.collective_rpc = noted

    # -------------------------------------------------------------- capture

    def capture(self, engine: Any, message: Capture, alone: bool = False) -> Result:
        """Capture one graph.

        Args:
            engine: vLLM's ``EngineCoreProc``.
            message: which graph, and under what conditions.
            alone: no controller has looked whether it fits.
        """
        state = self._state
        started = time.perf_counter()

        def result(
            outcome: Outcome,
            reason: str | None = None,
            ms: float = 0,
            size: int = 0,
            refusal: Refusal = "other",
        ) -> Result:
            return Result(
                command=message.command,
                graph=message.graph,
                outcome=outcome,
                reason=shortened(reason) if reason else None,
                refusal=refusal if outcome == "refused" else None,
                stall_ms=(time.perf_counter() - started) * 1000,
                ms=ms,
                bytes=size,
                ranks=state.ranks,
                epoch=state.epoch,
            )

        if message.graph in state.captured:
            done = state.captured[message.graph]
            return result("already", ms=done.ms, size=done.bytes)
        if reason := self._why_not(engine, message):
            return result("refused", reason)
        if reason := self._why_not_now(engine, message):
            return result("deferred", reason)
        _quiesce(engine)
        try:
            refused = self._preflight(engine, message, alone)
        except EndEngineError:
            raise
        except Exception:
            ask(engine, rank.give_back)  # some may hold what they reserved
            raise
        if refused:
            reason, why = refused
            if why == "later":
                return result("deferred", reason)
            return result("refused", reason, refusal="headroom" if why == "short" else "other")
        self.captured_since_step = True
        with fatal(f"capturing {message.graph}"):
            answers = ask(engine, rank.capture, (message.graph,))
            return self._book(engine, message.graph, answers, result)

    def _why_not(self, engine: Any, message: Capture) -> str | None:
        """A reason that won't go away by itself."""
        state = self._state
        if state.unsupported:
            return f"running as stock: {state.unsupported}"
        if message.graph not in {g.id for g in state.graphs}:
            return f"unknown graph {message.graph!r}"
        if message.graph in state.gone:
            return state.gone[message.graph]
        if state.frozen is not None:
            return f"frozen: {state.frozen}"
        if not engine.is_running():
            return "the engine is shutting down"
        return None

    def _why_not_now(self, engine: Any, message: Capture) -> str | None:
        """A reason that will go away."""
        if reason := self._why_not_touch(engine):
            return reason
        if engine.has_work() or _request_waits(engine):
            if message.when_idle:
                return "the engine is busy"
            if self.captured_since_step:
                return "requests wait for no more than one capture between two steps"
        return None

    def _preflight(self, engine: Any, message: Capture, alone: bool) -> tuple[str, str] | None:
        """Ask every rank before anything is captured; why not, and of which kind that is.

        ``short``: for want of memory; ``later``: it goes away by itself; else ``other``.

        With ``need_bytes`` each rank holds so much until its capture begins, and gives it back
        when another one can't.
        """
        state = self._state
        growth = state.room.growth_bytes(message.graph, state.graphs, state.captured)
        args = state.room.preflight_args(
            message.graph, message.need_bytes, growth, state.ranks, alone=alone
        )
        checks = ask(engine, rank.preflight, args)
        if len({c["hash"] for c in checks}) != 1:
            raise EndEngineError("lazygraph: the ranks hold different graphs; ending the engine")
        refused = next((c for c in checks if c["reason"]), None)
        if refused is None:
            return None
        # Fresh figures of those that have no room: they say what a controller has to wait for.
        state.ranks = tuple(
            c.get("memory", known) for c, known in zip(checks, state.ranks, strict=True)
        )
        if message.need_bytes is not None:
            ask(engine, rank.give_back)
        rank_number = f"rank {checks.index(refused)}: " if len(checks) > 1 else ""
        kind = next((kind for kind in ("short", "later") if refused.get(kind)), "other")
        return f"{rank_number}{refused['reason']}", kind

    def _book(self, engine: Any, graph: str, answers: list[dict[str, Any]], result: Any) -> Result:
        state = self._state
        # One that gave up because of another rank has no reason of its own.
        failed = [a for a in answers if "error" in a]
        errors = [a["error"] for a in failed if not a.get("another")] or [
            a["error"] for a in failed
        ]
        if errors and len(answers) > 1:
            # The other ranks wait in a collective for one that won't come, or hold a graph that
            # this one lacks. No step after this would be right.
            raise EndEngineError(
                f"lazygraph: capturing {graph} failed on {len(errors)} of {len(answers)} ranks "
                f"({errors[0]}); no rank can go on after that, ending the engine"
            )
        if errors:
            state.epoch = answers[0]["epoch"]
            if answers[0].get("short"):
                state.ranks = tuple(a["memory"] for a in answers)
                return result("refused", f"headroom: {errors[0]}", refusal="headroom")
            state.gone[graph] = errors[0]
            return result("failed", errors[0])
        state.epoch = answers[0]["epoch"]
        state.ranks = tuple(a["memory"] for a in answers)
        require_same(answers, f"capturing {graph}")
        mismatches = [a["mismatch"] for a in answers if a["mismatch"] is not None]
        if mismatches:
            worst = max(mismatches)
            reason = f"its replay differs from an ungraphed run by {worst:.3g}"
            purge(functools.partial(ask, engine), state, {graph: reason})
            return result("failed", reason)
        captured = next(iter(slowest([a["captured"]] for a in answers)))
        state.captured[graph] = captured
        return result("captured", ms=captured.ms, size=captured.bytes)

    # -------------------------------------------------------------- drop

    def drop(self, engine: Any, message: Drop) -> Dropped:
        """Drop the graphs of whole tiers, so that their pools give their memory back."""
        state = self._state

        def dropped(outcome: Any, reason: str | None = None, freed: int = 0) -> Dropped:
            return Dropped(
                command=message.command,
                outcome=outcome,
                graphs=message.graphs if outcome == "dropped" else (),
                freed_bytes=freed,
                reason=shortened(reason) if reason else None,
                ranks=state.ranks,
                epoch=state.epoch,
            )

        if reason := self._why_not_drop(engine, message):
            return dropped("refused", reason)
        if reason := self._why_not_touch(engine):
            return dropped("deferred", reason)
        _quiesce(engine)
        with fatal("dropping graphs"):
            answers = ask(engine, rank.drop, (message.graphs,))
            require_same(answers, "dropping graphs")
            for name in message.graphs:
                del state.captured[name]
            state.epoch = answers[0]["epoch"]
            state.ranks = tuple(a["memory"] for a in answers)
            freed = min(a["freed"] for a in answers)
        logger.info("lazygraph: dropped %d graphs, %d MiB", len(message.graphs), freed >> 20)
        return dropped("dropped", freed=freed)

    def _why_not_drop(self, engine: Any, message: Drop) -> str | None:
        state = self._state
        if state.unsupported:
            return f"running as stock: {state.unsupported}"
        if not engine.is_running():
            return "the engine is shutting down"
        return state.room.why_not_drop(message.graphs, state.captured)

    def _why_not_touch(self, engine: Any) -> str | None:
        """A reason that will go away, for whatever changes the graphs."""
        if engine.model_executor.is_sleeping:
            return "the engine sleeps"
        if self._checkpointed:
            return "the engine is prepared for a checkpoint"
        if engine.is_scheduler_paused():
            return "the scheduler is paused"
        return None


def _request_waits(engine: Any) -> bool:
    """Whether anything but commands of ours is queued behind this one."""
    return any(not isinstance(request, Command) for _, request in list(engine.input_queue.queue))


def _quiesce(engine: Any) -> None:
    """Wait for the steps in flight; the engine takes the same, finished, futures later.

    There are several with pipeline parallelism, where the first stage is done with a step long
    before the last one is. The last one's answers are what is waited for here, and the preflight
    that follows is answered by all: each rank's work comes in the engine's order, so that a capture
    begins on none of them before every earlier step is done on all.
    """
    for item in list(engine.batch_queue or ()):
        future = item[0]
        try:
            future.result()
        except Exception:
            return  # the engine meets the same error in its own step, and handles it there


def purge(rpc: Any, state: EngineState, reasons: dict[str, str]) -> None:
    """Take graphs that would serve wrong tokens out on all ranks, for good."""
    for name, reason in reasons.items():
        logger.error("lazygraph: graph %s will not serve: %s", name, reason)
        state.gone[name] = reason
        state.captured.pop(name, None)
    state.epoch = rpc(rank.purge, args=(reasons,))[0]


def slowest(per_rank: Any) -> list[Captured]:
    """Merge what ranks report of the same captures: the largest time and size of each."""
    merged: dict[str, Captured] = {}
    for captured in per_rank:
        for c in captured:
            seen = merged.get(c.graph)
            merged[c.graph] = (
                c
                if seen is None
                else Captured(graph=c.graph, ms=max(c.ms, seen.ms), bytes=max(c.bytes, seen.bytes))
            )
    return list(merged.values())
