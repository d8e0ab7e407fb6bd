"""Captures the first set on one rank, before ready, where vLLM would capture everything.

Which graphs these are the engine has said (``room.first_set``, or the controller); here is in
which order of pools, what is left out for want of memory, and what a failure means at a start.

On each rank, on the thread that runs the model, once, inside vLLM's ``capture_model``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..rules import local_fill
from . import memory
from .capture import Capturer
from .descriptors import graph_id
from .guard import RankFailedError, StartGuard, everywhere, tell_failure
from .pools import make_workspaces
from .state import RankState

logger = logging.getLogger("vllm.lazygraph")


@dataclass(frozen=True)
class First:
    """What is to be captured before ready.

    Attributes:
        graphs: ids, whatever they take.
        more: ids of what comes besides, in this order, as long as the budget lasts.
        budget_seconds: for all of it, as a controller has it: no more is begun from then on.
            ``None``: a share of what stock would spend, judged by the captures so far.
    """

    graphs: Sequence[str]
    more: Sequence[str] = ()
    budget_seconds: float | None = None


class FirstCapture:
    """The first set of one rank.

    Attributes:
        skipped: ids that the budget had no room for.
        warm_up_seconds: what went into runs without a capture.
    """

    def __init__(
        self,
        state: RankState,
        capturer: Capturer,
        first: First,
        *,
        tiered: bool,
        guard: StartGuard | None,
    ) -> None:
        """Nothing is captured before ``run``.

        Args:
            state: where what is captured, and what is refused, is booked.
            capturer: runs vLLM's capture.
            first: what to capture, in this order of pools.
            tiered: some graphs have pools of their own.
            guard: memory is tight: looks at each graph first.
        """
        self._state = state
        self._capturer = capturer
        self._first = [g for g in first.graphs if g in state.descs]
        more = dict.fromkeys(first.more)
        self._more = [g for g in more if g in state.descs and g not in self._first]
        self._budget_seconds = first.budget_seconds
        self._began = 0.0
        self.skipped: list[str] = []
        self.warm_up_seconds = 0.0
        self._tiered = tiered
        self._guard = guard

    def run(self, description: str) -> None:
        """Warm up and capture, one pool after the other; ``description`` is vLLM's.

        Raises:
            RankFailedError: another rank failed; so that none waits for it.
        """
        adapter = self._state.adapter
        try:
            self._run(description)
            # The last question, which a rank that failed after all others can answer.
            everywhere(adapter, True)
        except RankFailedError:
            raise
        except Exception:
            tell_failure(adapter)
            raise

    def _run(self, description: str) -> None:
        wanted = set(self._first)
        self._began = time.perf_counter()
        self._warm_up()
        self.warm_up_seconds = time.perf_counter() - self._began
        if self._tiered:
            make_workspaces(self._state.adapter, self._state.runner)
        home_of = self._state.pools.home
        for home in dict.fromkeys(home_of(graph) for graph in self._first):
            chosen = {
                mode: [d for d in descs if graph_id(d) in wanted and home_of(graph_id(d)) == home]
                for mode, descs in self._state.lists.items()
            }
            self._capture_pool(home, {m: d for m, d in chosen.items() if d}, description)
        for name in self._more:
            # Once it is used up, it is so for whatever comes after.
            if self.skipped or not everywhere(self._state.adapter, self._allows(name)):
                self.skipped.append(name)
                continue
            desc = self._state.descs[name]
            self._capture_pool(home_of(name), {desc.cg_mode: [desc]}, description)

    def _allows(self, name: str) -> bool:
        """Whether this rank's clock has room for one more; all ranks capture the same."""
        if self._budget_seconds is not None:
            return time.perf_counter() - self._began < self._budget_seconds
        state = self._state
        return local_fill.fits_budget(
            state.descs[name].cg_mode.name,
            state.graphs,
            self._timed(),
            twice=state.adapter.captures_twice,
            each_warm=state.adapter.is_breakable(state.manager),
        )

    def _timed(self) -> list[local_fill.TimedCapture]:
        """The captures so far: the first of each kind is cold, as if its warm-up came with it."""
        timed: list[local_fill.TimedCapture] = []
        seen: set[str] = set()
        for name, captured in self._state.captured.items():
            kind = self._state.descs[name].cg_mode.name
            before = 0.0 if timed else self.warm_up_seconds
            seconds = captured.ms / 1000 + before
            timed.append(local_fill.TimedCapture(kind, seconds, warm_up=kind not in seen))
            seen.add(kind)
        return timed

    def _warm_up(self) -> None:
        """Warm up; where memory is tight and the largest run doesn't fit, size the buffer only."""
        state = self._state
        top = max(state.descs.values(), key=lambda d: d.num_tokens)
        if self._guard is None or self._guard.can_run(top.num_tokens):
            self._capturer.warm_up()
            return
        logger.warning(
            "lazygraph: no room to warm up at %d tokens: the first graph of each kind warms up",
            top.num_tokens,
        )
        if state.adapter.only_a_run_sizes(state.runner):
            # What a drafter reads of layers, and what a stage hands on to the next.
            self._capturer.run_smallest()
        state.adapter.size_outputs(state.runner, top.num_tokens)

    def _capture_pool(self, home: int, descs: dict[Any, list[Any]], description: str) -> None:
        """Capture one pool's graphs; alone on its GPU, survive running out of it.

        vLLM's loop takes a graph when it comes to it, so a list that checks what it hands out is
        all the guard needs.
        """
        state = self._state
        while descs:
            lists: dict[Any, Any] = dict(descs)
            if self._guard is not None:
                lists = {mode: self._fitting(home, left) for mode, left in descs.items()}
            try:
                # One flush, after the warm-up, is enough where memory is plentiful: torch's own,
                # before every captured piece, is a third of what a PIECEWISE graph takes.
                self._capturer.run(lists, description, home, flush=self._guard is not None)
                return
            except Exception as error:
                name = self._capturer.in_capture
                if self._lost_for_good(error) or name is None:
                    raise
                self._capturer.clean_up(name, error)
                state.refused[name] = f"ran out of GPU memory while capturing {name}"
            done = state.captured.keys() | state.refused.keys()
            left = {m: [d for d in ds if graph_id(d) not in done] for m, ds in descs.items()}
            descs = {mode: some for mode, some in left.items() if some}

    def _lost_for_good(self, error: Exception) -> bool:
        """Whether this failure ends the start.

        Several ranks can't part ways in the middle of a capture. One can: torch's allocator frees
        nothing and breaks nothing when it finds no memory during a capture, the stream capture
        stays valid and is ended, and what was allocated goes back to its pool with the graph.
        """
        parallel = self._state.runner.vllm_config.parallel_config
        ranks = parallel.tensor_parallel_size * parallel.pipeline_parallel_size
        return ranks > 1 or not memory.is_out_of_memory(error)

    def _fitting(self, home: int, descs: Sequence[Any]) -> Iterator[Any]:
        """The graphs that fit, each looked at when its turn comes, on all ranks alike."""
        assert self._guard is not None
        state = self._state
        in_pool = [g for g in state.captured if state.pools.home(g) == home]
        there = [state.by_id[g] for g in in_pool]
        for desc in descs:
            graph = state.by_id[graph_id(desc)]
            if reason := self._guard.shortage(graph, there):
                state.refused[graph.id] = reason
                continue
            yield desc
            # vLLM comes back for the next one when this one is captured.
            there.append(graph)
