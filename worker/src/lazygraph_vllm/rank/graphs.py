"""The graphs of one rank: what the engine may ask for, each in the order that keeps it right.

``RankGraphs`` puts a rank's parts together: what it holds (``rank_state``), what serves which step
(``rank_dispatch``), capturing (``capture``) and the start (``capture_first``).

On each rank, on the thread that runs the model: before ready, and then between two steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..protocol.messages import Captured
from ..vllm.adapter import Adapter
from . import memory
from .capture import Capturer
from .capture_first import First, FirstCapture
from .dispatch import RankDispatch
from .guard import StartGuard, tell_failure
from .state import RankState


class CaptureError(RuntimeError):
    """A capture failed on this rank; what it left behind is purged."""


class CaptureMemoryError(CaptureError):
    """A capture ran out of memory: it may be tried again when there is more."""


class RankGraphs:
    """One per rank.

    Attributes:
        state: what the rank holds.
        dispatch: which captured graph serves which step.
        capturer: runs vLLM's capture.
        reservation: memory that is held until the next capture begins.
        cache_flush: empties torch's cache, and seldom.
        capture_seconds: what everything before ready took.
        warm_up_seconds: of these, what went into runs without a capture.
        skipped: left out before ready because the budget was used.
        ran: vLLM's capture came to us.
    """

    def __init__(
        self,
        adapter: Adapter,
        runner: Any,
        first: First,
        verify: bool = False,
        tiers: Sequence[Sequence[str]] = (),
        guard: StartGuard | None = None,
    ) -> None:
        """Read what vLLM would capture; changes nothing. The arguments are ``rank.prepare``'s."""
        self.state = RankState(adapter, runner, tiers)
        self.dispatch = RankDispatch(self.state)
        self.capturer = Capturer(self.state, verify)
        self._first = FirstCapture(self.state, self.capturer, first, tiered=any(tiers), guard=guard)
        self.skipped: tuple[str, ...] = ()
        self.warm_up_seconds = 0.0
        self.reservation = memory.Reservation()
        self.cache_flush = memory.CacheFlush()
        self.capture_seconds = 0.0
        self.ran = False

    # -------------------------------------------------------------- start-up

    def capture_first(self, original: Any, forward_factory: Any, description: str) -> None:
        """Stands in for vLLM's capture of everything before ready: captures the first set only."""
        self.ran = True
        self.capturer.learn(original, forward_factory)
        started = time.perf_counter()
        self._first.run(description)
        self.dispatch.rebuild()
        self.capture_seconds = time.perf_counter() - started
        self.skipped = tuple(self._first.skipped)
        self.warm_up_seconds = self._first.warm_up_seconds

    def finish_start(self) -> None:
        """Turn capturing off for real steps, and dispatch only what is captured."""
        self.state.adapter.end_captures()
        self.dispatch.rebuild()

    # -------------------------------------------------------------- between steps

    def capture_one(self, graph: str) -> Captured:
        """Capture one graph between two steps; one that is there already is answered as it is.

        Raises:
            CaptureMemoryError: as below, and it may be tried again.
            CaptureError: the capture failed; nothing of it is left and nothing serves from it.
        """
        state = self.state
        desc = state.descs[graph]
        home = state.pools.home(graph)
        self.reservation.give_back()
        if graph in state.captured:
            return state.captured[graph]
        try:
            with state.adapter.between_steps(state.runner):
                self.capturer.run({desc.cg_mode: [desc]}, "lazygraph", home, flush=False)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if self.capturer.verify and graph not in state.captured:
                tell_failure(state.adapter)  # the others ask whether it can be checked
            self.capturer.clean_up(graph, error)
            if memory.is_out_of_memory(error):
                raise CaptureMemoryError(reason) from error
            state.failed[graph] = reason
            raise CaptureError(reason) from error
        finally:
            self.dispatch.rebuild()
        return state.captured[graph]

    def drop(self, graphs: Sequence[str]) -> int:
        """Drop whole tiers between two steps; returns the device memory that came back, in bytes.

        The order matters: no step that was issued may still use them, no later one may find them,
        and only then they go.
        """
        import torch

        state = self.state
        with memory.output_lock:
            torch.cuda.synchronize()
            before = torch.cuda.mem_get_info(state.runner.device)[0]
            self.dispatch.leave_out(frozenset(graphs))
            for graph in graphs:
                del state.captured[graph]
                state.epoch += 1
            self.dispatch.rebuild()
            for graph in graphs:
                state.purge(graph)
            state.release_empty(graphs)
            torch.cuda.synchronize()
            return max(0, torch.cuda.mem_get_info(state.runner.device)[0] - before)

    def drop_all(self) -> int:
        """Drop every graph between two steps; returns the device memory that came back, in bytes.

        vLLM's own pool gives its memory to the allocator's cache with its last graph, and that is
        emptied here: nothing that serves wants it now.
        """
        import torch

        before = torch.cuda.mem_get_info(self.state.runner.device)[0]
        self.drop(tuple(self.state.captured))
        torch.cuda.empty_cache()
        return max(0, torch.cuda.mem_get_info(self.state.runner.device)[0] - before)

    def purge(self, reasons: Mapping[str, str]) -> None:
        """Forget graphs for good, each with the reason why it must not be tried again."""
        state = self.state
        for graph, reason in reasons.items():
            state.purge(graph)
            state.failed[graph] = reason
        state.release_empty(reasons)
        self.dispatch.rebuild()
