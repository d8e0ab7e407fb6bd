"""Captures graphs on one rank, by vLLM's own capture: one of them, or a list in one go.

``Capturer`` keeps the closure that vLLM builds for its own capture at start; everything later is
vLLM's own ``CudaGraphManager.capture`` run again with that closure and a list of one graph. So
inputs are dummies, slots are PAD (the KV cache is never written), all outputs are discarded, and a
graph serves only after the capture context is left and the device is synchronised.

On each rank, on the thread that runs the model: before ready, and then between two steps.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
import traceback
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from ..protocol.messages import Captured
from ..rules.pairs import Draft
from . import memory
from .descriptors import graph_id
from .guard import everywhere
from .pools import DEFAULT
from .state import RankState

logger = logging.getLogger("vllm.lazygraph")

# Errors behind one another that are looked at.
CAUSES_MAX = 16


class Capturer:
    """One per rank.

    Attributes:
        verify: check each new graph against an ungraphed run.
        in_capture: the graph at which the last run was, or is.
    """

    def __init__(self, state: RankState, verify: bool) -> None:
        self.verify = verify
        self.in_capture: str | None = None
        self._state = state
        # vLLM's own capture and the closure it gets; known from the first capture on.
        self._original: Any = None
        self._forward_factory: Any = None
        self._warm_kinds: set[str] = set()
        # (kind, tokens, adapter case) of the runs that came back.
        self._ran: set[tuple[str, int, int]] = set()
        # The compiler's code that has run: see ``_code``.
        self._ran_code: set[tuple[int, int]] = set()
        self._breakable = state.adapter.is_breakable(state.manager)

    def learn(self, original: Any, forward_factory: Any) -> None:
        """Keep vLLM's own capture, and the closure that vLLM called it with."""
        self._original = original
        self._forward_factory = forward_factory

    def warm_up(self) -> None:
        """Warm up once for both kinds, and size the graphs' output buffer.

        The first run of either kind sizes the buffers of what comes out (hidden states, or what a
        stage hands on) and every later one writes into them, so a smaller first graph would break
        each larger one: vLLM starts with the largest, and so does this run, whatever is captured
        first. One of a FULL graph also runs every kernel that a PIECEWISE graph of that size
        records, and attention besides: no capture after it needs a warm-up run of its own (on an
        H200 stock's 102 graphs took 1.9 s without them, 3.0 s with, tokens alike). With adapters
        the largest case runs: its kernels are the others' and LoRA's besides. Where vLLM compiles
        ranges of sizes apart, one size of each runs.
        """
        tops: dict[str, Any] = {}
        for desc in self._state.descs.values():
            kind = desc.cg_mode.name
            size = (desc.num_tokens, desc.num_active_loras)
            if kind not in tops or size > (tops[kind].num_tokens, tops[kind].num_active_loras):
                tops[kind] = desc
        order = sorted(tops.values(), key=lambda d: (-d.num_tokens, d.cg_mode.name))
        import torch

        state = self._state
        known = state.adapter.workspaces()
        first = (d for i, d in enumerate(order) if i == 0 or d.cg_mode.name == "FULL")
        self._run_ungraphed(chain(first, self._of_other_ranges()))
        self._warm_kinds.update(tops)
        self._warm_drafts(state.pairs.warm_up_set() if state.pairs is not None else ())
        self._settle_workspaces(known)
        torch.cuda.empty_cache()  # the runs' activations: graphs have a pool of their own

    def _of_other_ranges(self) -> Iterator[Any]:
        """The largest graph of each range of sizes whose code hasn't run by then."""
        for desc in sorted(self._state.descs.values(), key=lambda d: -d.num_tokens):
            size, _ = code = self._code(desc)
            # Single sizes may be many: each runs before its capture, and not before ready.
            if size == 0 and code not in self._ran_code:
                yield desc

    def _code(self, desc: Any) -> tuple[int, int]:
        """Which of the compiler's code this graph records; without a compiler it is all one."""
        if self._breakable:
            return 0, 0
        state = self._state
        return state.adapter.compiled_code(state.runner.vllm_config, desc.num_tokens)

    def _note(self, desc: Any) -> None:
        """This graph's inputs have run."""
        self._ran.add(_sort(desc))
        self._ran_code.add(self._code(desc))

    def _settle_workspaces(self, known: tuple[int, int]) -> None:
        """Let kernels take all the scratch they will ever ask for, before the first graph.

        A workspace that grows later frees what graphs point to, or is refused by vLLM, which locks
        them after its capture. Stock runs every size before; here the largest runs have shown what
        they want, and the smallest do (buffers by splits can be larger there). If none of them
        asked for more than the profile run had reserved, no size between does: vLLM itself relies
        on that for every step beyond its largest graph. If one did, all sizes run once. A run has
        collectives in it: where one rank's has grown (of experts they may have different numbers),
        all of them run alike.

        Args:
            known: what there was before the largest runs.
        """
        state = self._state
        if everywhere(state.adapter, state.adapter.workspaces() == (0, 0)):
            return  # no kernel of this model has any
        smallest = [min(ds, key=lambda d: d.num_tokens) for ds in state.lists.values() if ds]
        self._run_ungraphed(smallest)
        if everywhere(state.adapter, state.adapter.workspaces() == known):
            return
        logger.info("lazygraph: a workspace grew: every size runs once before the first capture")
        seen = {id(desc) for desc in smallest}
        self._run_ungraphed(d for d in state.descs.values() if id(d) not in seen)
        if state.pairs is not None:
            self._warm_drafts(dict.fromkeys(chain.from_iterable(state.pairs.partners.values())))

    def run_smallest(self) -> None:
        """Run the smallest graph's inputs ungraphed, for what only a run can tell."""
        self._run_ungraphed([min(self._state.descs.values(), key=lambda d: d.num_tokens)])

    def _run_ungraphed(self, descs: Iterable[Any]) -> None:
        state = self._state
        with self._capturing(flush=True), state.adapter.warm_up_context(state.runner.device):
            for desc in descs:
                self._forward_factory(desc, True)(type(desc.cg_mode).NONE)
                self._note(desc)

    def _warm_drafts(self, drafts: Iterable[Draft]) -> None:
        """Run a drafter's graphs without capturing; each warms up once more for its capture."""
        state, chosen = self._state, list(drafts)
        if state.pairs is None or not chosen:
            return
        with self._capturing(flush=True), state.adapter.warm_up_context(state.runner.device):
            state.pairs.drafter.capture(chosen, only_warm=True)

    def _is_warm(self, desc: Any) -> bool:
        """Whether every kernel of this graph has run before.

        LoRA's are Triton's, tuned and compiled by the number of tokens: each size runs once before
        it is captured, of either kind. A first run inside a capture would compile there.

        Breakable graphs are of a model without a compiler: what of it compiles itself at a first
        call does so by size, and some of that can't inside a capture (torch's compiler asks for
        the state of random numbers). So each runs first, as in stock; one of a FULL graph has all
        that a PIECEWISE one of its size records.

        Of vLLM's compiler each range of sizes has kernels of its own, which are tuned at their
        first run: that waits for the device, which ends a capture.
        """
        kind, tokens, loras = _sort(desc)
        if kind not in self._warm_kinds or self._code(desc) not in self._ran_code:
            return False
        if self._breakable:
            return not self._ran.isdisjoint({(kind, tokens, loras), ("FULL", tokens, loras)})
        either = {("FULL", tokens, loras), ("PIECEWISE", tokens, loras)}
        return loras == 0 or not self._ran.isdisjoint(either)

    def run(self, descs: dict[Any, Any], what: str, home: int, flush: bool = True) -> None:
        """Run vLLM's own capture over ``descs`` and book time and bytes per graph.

        Args:
            descs: lists of descriptors by mode, as vLLM's manager keeps them.
            what: vLLM's words for a progress bar.
            home: the tier whose pool they are captured into; see ``GraphPools``.
            flush: torch empties the allocator's cache before each piece, as in stock.
        """
        with self._state.pools.use(home) as pool:
            if self._state.pairs is None:
                self._run_in_pool(descs, what, pool, flush)
                return
            # One by one: a graph counts with its drafter's, or not at all. In vLLM's order.
            for mode in sorted(descs, key=lambda mode: mode.name != "PIECEWISE"):
                for desc in descs[mode]:
                    self._run_in_pool({mode: [desc]}, what, pool, flush)

    def _run_in_pool(self, descs: dict[Any, Any], what: str, pool: Any, flush: bool) -> None:
        import torch

        state = self._state
        meter = memory.GraphMeter(pool, state.runner.device)
        booked: list[tuple[str, float, int]] = []
        current: tuple[str, float] | None = None

        def close_current() -> None:
            nonlocal current
            if current is not None:
                # No synchronisation here: between two graphs of one go it would cost what the
                # skipped warm-up runs saved. A capture itself is synchronous host work.
                name, since = current
                ms = (time.perf_counter() - since) * 1000
                typical = state.typical_bytes(state.descs[name])
                booked.append((name, ms, meter.growth_bytes(name, typical)))
                current = None

        def forward_factory(desc: Any, warmup: bool) -> Any:
            nonlocal current
            if warmup:
                close_current()
                current = (graph_id(desc), time.perf_counter())
                self.in_capture = current[0]
            kind = desc.cg_mode.name
            skip_warmup = self._is_warm(desc)
            if warmup and skip_warmup and (kind == "FULL" or self._breakable):
                return lambda mode: None  # vLLM asks again for the captured pass
            if not warmup and kind == "PIECEWISE" and flush:
                # torch does so where it begins a capture; of breakable ones vLLM begins each part.
                torch.cuda.empty_cache()
            # PIECEWISE asks once, and captures with the same closure, but for breakable graphs.
            forward = self._forward_factory(desc, warmup)

            def run(mode: Any) -> None:
                if warmup and mode.name == "NONE" and skip_warmup:
                    return
                forward(mode)
                # Only a run that came back has warmed anything.
                self._warm_kinds.add(kind)
                self._note(desc)

            return run

        state.manager._capture_descs = descs
        self.in_capture = None
        try:
            with self._capturing(flush):
                self._original(state.manager, forward_factory, what)
                torch.cuda.synchronize()
            close_current()
            booked = [self._with_drafts(each, meter, flush) for each in booked]
        except BaseException:
            if state.pairs is not None:
                booked = []  # Its drafter's graphs are missing.
            raise
        finally:
            # What was finished before a failure is captured all the same.
            state.manager._capture_descs = state.lists
            meter.settle(booked)
            self._book(booked)

    def _with_drafts(
        self, booked: tuple[str, float, int], meter: memory.GraphMeter, flush: bool
    ) -> tuple[str, float, int]:
        """Capture the drafter's graphs that go along, and count them in."""
        import torch

        state = self._state
        if state.pairs is None:
            return booked
        name, ms, size = booked
        began = time.perf_counter()
        shared = memory.pool_bytes(state.pools.shared())
        with self._capturing(flush):
            state.pairs.capture(name)
            torch.cuda.synchronize()
        if state.pools.home(name) != DEFAULT:
            size += memory.pool_bytes(state.pools.shared()) - shared
        size += meter.growth_bytes(name, state.typical_bytes(state.descs[name]))
        return name, ms + (time.perf_counter() - began) * 1000, size

    def _book(self, booked: list[tuple[str, float, int]]) -> None:
        for name, ms, size in booked:
            self._state.captured[name] = Captured(graph=name, ms=ms, bytes=size)
            self._state.epoch += 1
            # A check runs the model on all ranks at once: none may be missing.
            if self.verify and everywhere(self._state.adapter, True):
                self._verify(name)

    def _verify(self, name: str) -> None:
        """Note a mismatch; the engine then purges the graph on all ranks at once."""
        from .verify import RELATIVE_LIMIT, relative_difference

        state = self._state
        worst = relative_difference(state, self._forward_factory, state.descs[name])
        if worst is not None and state.pairs is not None:
            worst = state.pairs.worst_difference(name, worst)
        if worst is None:
            logger.warning("lazygraph: %s can't be verified: the ungraphed run is no number", name)
            return
        state.verified[name] = worst
        logger.info("lazygraph: verified %s: largest relative difference %.3g", name, worst)
        if not worst <= RELATIVE_LIMIT:  # also true for NaN
            state.mismatched[name] = worst

    def clean_up(self, name: str, error: BaseException) -> None:
        """Forget a capture that failed, and what its frames hold of it."""
        behind: BaseException | None = error
        for _ in range(CAUSES_MAX):
            if behind is None:
                break
            traceback.clear_frames(behind.__traceback__)
            behind = behind.__cause__ or behind.__context__
        self._state.purge(name)
        self._state.release_empty((name,))

    @contextlib.contextmanager
    def _capturing(self, flush: bool) -> Iterator[None]:
        """Everything that must hold while a capture is under way, and must not outside it."""
        import torch

        gc_was_enabled = gc.isenabled()
        with contextlib.ExitStack() as stack:
            stack.enter_context(memory.output_lock)
            # A collection in the middle of a stream capture can free CUDA objects and break it.
            # vLLM's own freeze would thaw the heap it froze after start, so only disable.
            gc.disable()
            stack.callback(gc.enable if gc_was_enabled else lambda: None)
            stack.enter_context(self._state.adapter.capturing(self._state.runner))
            if not flush:
                # torch empties the allocator's cache for every captured piece: that would take
                # from serving the blocks its next step wants.
                stack.enter_context(memory.no_cache_flush(torch))
            stack.enter_context(torch.inference_mode())
            torch.cuda.synchronize()
            yield


def _sort(desc: Any) -> tuple[str, int, int]:
    """What of a graph decides which kernels it has, and for which sizes they are compiled."""
    return desc.cg_mode.name, desc.num_tokens, desc.num_active_loras
