"""Captures graphs on one rank: the only module that touches vLLM's graph internals.

Written against ``vllm/v1/worker/gpu/cudagraph_utils.py`` of vLLM 0.26. ``RankGraphs`` keeps the
closure that vLLM builds for its own capture at start; everything later is vLLM's own
``CudaGraphManager.capture`` run again with that closure and a list of one graph. So inputs are
dummies, slots are PAD (the KV cache is never written), all outputs are discarded, and a graph
serves only after the capture context is left and the device is synchronised.

Everything here runs on the thread that runs the model, between two steps.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import forecast, memory
from .dispatch import TableError, default_table, expand
from .guard import StartGuard
from .local_fill import top_graphs
from .messages import Captured, Dispatch, DispatchRow, Graph
from .pools import GraphPools, make_workspaces
from .support import (
    MANAGER_FIELDS,
    MANAGER_HOOKS,
    RUNNER_HOOKS,
    graph_mode_reason,
    missing_hook,
    missing_module_hook,
)

logger = logging.getLogger("vllm.lazygraph")

# Errors behind one another that are looked at.
CAUSES_MAX = 16


def graph_id(desc: Any) -> str:
    """The stable id of one of vLLM's ``BatchExecutionDescriptor``."""
    base = f"{desc.cg_mode.name}:{desc.num_tokens}"
    if desc.cg_mode.name == "PIECEWISE":
        return base if desc.num_reqs is None else f"{base}:r{desc.num_reqs}"
    if desc.uniform_token_count is None:
        return f"{base}:mixed"
    return base if desc.uniform_token_count == 1 else f"{base}:u{desc.uniform_token_count}"


def describe_graph(desc: Any) -> Graph:
    """The protocol's view of a descriptor."""
    return Graph(
        id=graph_id(desc),
        kind=desc.cg_mode.name,
        tokens=desc.num_tokens,
        requests=desc.num_reqs,
        uniform=desc.uniform_token_count,
    )


def unsupported_runner(runner: Any) -> str | None:
    """Why this runner's graphs can't be controlled; ``None`` if they can."""
    manager = getattr(runner, "cudagraph_manager", None)
    if manager is None:
        return "this vLLM's model runner has no cudagraph_manager"
    reason = (
        missing_hook(manager, MANAGER_HOOKS + MANAGER_FIELDS)
        or missing_hook(runner, RUNNER_HOOKS)
        or missing_module_hook()
    )
    if reason is None:
        reason = graph_mode_reason(manager.cudagraph_mode)
    if reason is None and manager.use_breakable_cg:
        reason = "not supported: breakable CUDA graphs"
    if reason is None and getattr(runner, "speculator", None) is not None:
        reason = "not supported: speculative decoding"
    if reason is None and not manager._capture_descs:
        reason = "vLLM has no graph to capture here"
    return reason


class CaptureError(RuntimeError):
    """A capture failed on this rank; what it left behind is purged."""


class CaptureMemoryError(CaptureError):
    """A capture ran out of memory: it may be tried again when there is more."""


class RankGraphs:
    """The graphs of one rank: planned, captured, and which serves which step."""

    def __init__(
        self,
        runner: Any,
        first: Sequence[str],
        verify: bool = False,
        tiers: Sequence[Sequence[str]] = (),
        guard: StartGuard | None = None,
    ) -> None:
        self.runner = runner
        self.manager = runner.cudagraph_manager
        self.pools = GraphPools(self.manager, tiers)
        self.guard = guard
        self.reservation = memory.Reservation()
        self.cache_flush = memory.CacheFlush()
        # Not captured before ready for want of memory, with the sentence why.
        self.refused: dict[str, str] = {}
        self.descs: dict[str, Any] = {
            graph_id(d): d for descs in self.manager._capture_descs.values() for d in descs
        }
        self.graphs = [describe_graph(d) for d in self.descs.values()]
        self.first = [g for g in first if g in self.descs]
        self.verify = verify
        self.captured: dict[str, Captured] = {}
        self.failed: dict[str, str] = {}
        self.epoch = 0
        self.capture_seconds = 0.0
        self.table: Dispatch | None = None
        self._all_descs = {mode: list(descs) for mode, descs in self.manager._capture_descs.items()}
        # Of the run under way: the graph it is at.
        self._in_capture: str | None = None
        self._tiered = any(tiers)
        self.verified: dict[str, float] = {}
        self.mismatched: dict[str, float] = {}
        # vLLM's own capture and the closure it gets; known from the first capture on.
        self._original: Any = None
        self._forward_factory: Any = None
        self._uniform: list[tuple[tuple[str, Any], ...]] = [()]
        self._mixed: list[tuple[tuple[str, Any], ...]] = [()]
        self._warm_kinds: set[str] = set()
        self.last_served = ""

    # -------------------------------------------------------------- start-up

    def capture_first(self, original: Any, forward_factory: Any, description: str) -> None:
        """Stands in for vLLM's capture of everything before ready: captures the first set only."""
        self._original = original
        self._forward_factory = forward_factory
        started = time.perf_counter()
        wanted = set(self.first)
        self._prime_guarded()
        if self._tiered:
            make_workspaces(self.runner)
        for home in dict.fromkeys(self.pools.home(graph) for graph in self.first):
            chosen = {
                mode: [d for d in descs if graph_id(d) in wanted and self._home(d) == home]
                for mode, descs in self._all_descs.items()
            }
            self._capture_pool(home, {m: d for m, d in chosen.items() if d}, description)
        self._rebuild()
        self.capture_seconds = time.perf_counter() - started

    def _home(self, desc: Any) -> int:
        return self.pools.home(graph_id(desc))

    def _capture_pool(self, home: int, descs: dict[Any, list[Any]], description: str) -> None:
        """Capture one pool's graphs before ready; alone on its GPU, survive running out of it.

        vLLM's loop takes a graph when it comes to it, so a list that checks what it hands out is
        all the guard needs.
        """
        while descs:
            lists: dict[Any, Any] = dict(descs)
            if self.guard is not None:
                lists = {mode: self._fitting(home, left) for mode, left in descs.items()}
            try:
                self._run(self._original, lists, description, home)
                return
            except Exception as error:
                name = self._in_capture
                if self._lost_for_good(error) or name is None:
                    raise
                self._clean_up(name, error)
                self.refused[name] = f"ran out of GPU memory while capturing {name}"
            done = self.captured.keys() | self.refused.keys()
            left = {m: [d for d in ds if graph_id(d) not in done] for m, ds in descs.items()}
            descs = {mode: some for mode, some in left.items() if some}

    def _lost_for_good(self, error: Exception) -> bool:
        """Whether this failure ends the start.

        Several ranks can't part ways in the middle of a capture. One can: torch's allocator frees
        nothing and breaks nothing when it finds no memory during a capture, the stream capture
        stays valid and is ended, and what was allocated goes back to its pool with the graph.
        """
        single = self.runner.vllm_config.parallel_config.tensor_parallel_size == 1
        return not (single and memory.is_out_of_memory(error))

    def _clean_up(self, name: str, error: BaseException) -> None:
        """Forget a capture that failed, and what its frames hold of it."""
        behind: BaseException | None = error
        for _ in range(CAUSES_MAX):
            if behind is None:
                break
            traceback.clear_frames(behind.__traceback__)
            behind = behind.__cause__ or behind.__context__
        self.purge(name)
        self.release_empty((name,))

    def release_empty(self, gone: Iterable[str]) -> None:
        """Give up the pools that lost their last graph: torch can't capture into them again."""
        held = {self.pools.home(graph) for graph in self.captured}
        for home in {self.pools.home(graph) for graph in gone} - held:
            self.pools.release(home)

    def _fitting(self, home: int, descs: Sequence[Any]) -> Iterator[Any]:
        """The graphs that fit, each looked at when its turn comes, on all ranks alike."""
        assert self.guard is not None
        there = [describe_graph(self.descs[g]) for g in self.captured if self.pools.home(g) == home]
        for desc in descs:
            graph = describe_graph(desc)
            if reason := self.guard.shortage(graph, there):
                self.refused[graph.id] = reason
                continue
            yield desc
            # vLLM comes back for the next one when this one is captured.
            there.append(graph)

    def _prime_guarded(self) -> None:
        """Prime; where memory is tight and the largest run doesn't fit, size the buffer only."""
        top = max(self.descs.values(), key=lambda d: d.num_tokens)
        if self.guard is None or self.guard.can_run(top.num_tokens):
            self._prime()
            return
        import torch

        logger.warning(
            "lazygraph: no room to warm up at %d tokens: the first graph of each kind warms up",
            top.num_tokens,
        )
        model = self.runner.vllm_config.model_config
        self.manager.hidden_states = torch.empty(
            (top.num_tokens, model.get_hidden_size()),
            dtype=model.dtype,
            device=self.runner.device,
        )

    def _prime(self) -> None:
        """Warm up once for both kinds, and size the graphs' output buffer.

        The first run of either kind sizes ``manager.hidden_states`` and every later one writes
        into it, so a smaller first graph would break each larger one: vLLM starts with the largest,
        and so does this run, whatever is captured first. One of a FULL graph also runs every kernel
        that a PIECEWISE graph of that size records, and attention besides: no capture after it
        needs a warm-up run of its own (on an H200 stock's 102 graphs took 1.9 s without them,
        3.0 s with, tokens alike).
        """
        tops: dict[str, Any] = {}
        for desc in self.descs.values():
            kind = desc.cg_mode.name
            if kind not in tops or desc.num_tokens > tops[kind].num_tokens:
                tops[kind] = desc
        order = sorted(tops.values(), key=lambda d: (-d.num_tokens, d.cg_mode.name))
        runs = [d for i, d in enumerate(order) if i == 0 or d.cg_mode.name == "FULL"]
        with self._capturing(flush=True):
            for desc in runs:
                self._forward_factory(desc, True)(type(desc.cg_mode).NONE)
        self._warm_kinds.update(tops)

    def finish_start(self) -> None:
        """Turn capturing off for real steps, and dispatch only what is captured."""
        from vllm.compilation import monitor

        monitor.set_cudagraph_capturing_enabled(False)
        self._rebuild()

    # -------------------------------------------------------------- one graph later

    def capture_one(self, graph: str) -> Captured:
        """Capture one graph between two steps.

        Raises:
            CaptureMemoryError: as below, and it may be tried again.
            CaptureError: the capture failed; nothing of it is left and nothing serves from it.
        """
        desc = self.descs[graph]
        home = self.pools.home(graph)
        self.reservation.give_back()
        try:
            self._run(self._original, {desc.cg_mode: [desc]}, "lazygraph", home, flush=False)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._clean_up(graph, error)
            if memory.is_out_of_memory(error):
                raise CaptureMemoryError(reason) from error
            self.failed[graph] = reason
            raise CaptureError(reason) from error
        finally:
            self._rebuild()
        return self.captured[graph]

    def drop(self, graphs: Sequence[str]) -> int:
        """Drop whole tiers between two steps; returns the device memory that came back.

        The order matters: no step that was issued may still use them, no later one may find them,
        and only then they go.
        """
        import torch

        with memory.output_lock:
            torch.cuda.synchronize()
            before = torch.cuda.mem_get_info(self.runner.device)[0]
            self._without(frozenset(graphs))
            for graph in graphs:
                del self.captured[graph]
                self.epoch += 1
            self._rebuild()
            for graph in graphs:
                self.purge(graph)
            self.release_empty(graphs)
            torch.cuda.synchronize()
            return max(0, torch.cuda.mem_get_info(self.runner.device)[0] - before)

    def _without(self, gone: frozenset[str]) -> None:
        """Take graphs out of the controller's table: what is left of it still holds."""
        if self.table is None:
            return

        def kept(rows: Sequence[DispatchRow]) -> tuple[DispatchRow, ...]:
            return tuple(
                DispatchRow(up_to=r.up_to, graphs=tuple(g for g in r.graphs if g not in gone))
                for r in rows
            )

        self.table = Dispatch(uniform=kept(self.table.uniform), mixed=kept(self.table.mixed))

    def _run(
        self, original: Any, descs: dict[Any, Any], what: str, home: int, flush: bool = True
    ) -> None:
        """Run vLLM's own capture over ``descs`` and book time and bytes per graph."""
        with self.pools.use(home) as pool:
            self._run_in_pool(original, descs, what, pool, flush)

    def _run_in_pool(
        self, original: Any, descs: dict[Any, Any], what: str, pool: Any, flush: bool
    ) -> None:
        import torch

        manager = self.manager
        meter = memory.GraphMeter(pool, self.runner.device)
        booked: list[tuple[str, float, int]] = []
        current: tuple[str, float] | None = None

        def close_current() -> None:
            nonlocal current
            if current is not None:
                # No synchronisation here: between two graphs of one go it would cost what the
                # skipped warm-up runs saved. A capture itself is synchronous host work.
                name, since = current
                ms = (time.perf_counter() - since) * 1000
                kind = self.descs[name].cg_mode.name
                typical = forecast.typical_graph_bytes(kind, self.layers())
                booked.append((name, ms, meter.growth_bytes(name, typical)))
                current = None

        def forward_factory(desc: Any, warmup: bool) -> Any:
            nonlocal current
            if warmup:
                close_current()
                current = (graph_id(desc), time.perf_counter())
                self._in_capture = current[0]
            forward = self._forward_factory(desc, warmup)
            # PIECEWISE asks once and then captures with the same closure; FULL asks again.
            kind = desc.cg_mode.name
            skip_warmup = kind in self._warm_kinds

            def run(mode: Any) -> None:
                if warmup and mode.name == "NONE" and skip_warmup:
                    return
                forward(mode)
                # Only a run that came back has warmed anything.
                self._warm_kinds.add(kind)

            return run

        manager._capture_descs = descs
        self._in_capture = None
        try:
            with self._capturing(flush):
                original(manager, forward_factory, what)
                torch.cuda.synchronize()
            close_current()
        finally:
            # What was finished before a failure is captured all the same.
            manager._capture_descs = self._all_descs
            meter.settle(booked)
            self._book(booked)

    def _book(self, booked: list[tuple[str, float, int]]) -> None:
        for name, ms, size in booked:
            self.captured[name] = Captured(graph=name, ms=ms, bytes=size)
            self.epoch += 1
            if self.verify:
                self._verify(name)

    @contextlib.contextmanager
    def _capturing(self, flush: bool) -> Iterator[None]:
        """Everything that must hold while a capture is under way, and must not outside it."""
        import torch
        from vllm.compilation import monitor
        from vllm.utils import jit_monitor

        gc_was_enabled = gc.isenabled()
        jit_mode = jit_monitor._mode
        with contextlib.ExitStack() as stack:
            stack.enter_context(memory.output_lock)
            # A collection in the middle of a stream capture can free CUDA objects and break it.
            # vLLM's own freeze would thaw the heap it froze after start, so only disable.
            gc.disable()
            stack.callback(gc.enable if gc_was_enabled else lambda: None)
            # A first-time Triton specialisation here is expected, not a fault of serving.
            jit_monitor._mode = "warn"
            stack.callback(setattr, jit_monitor, "_mode", jit_mode)
            monitor.set_cudagraph_capturing_enabled(True)
            stack.callback(monitor.set_cudagraph_capturing_enabled, False)
            stack.enter_context(_quiet_progress())
            if not flush:
                # torch empties the allocator's cache for every captured piece: that would take
                # from serving the blocks its next step wants.
                stack.enter_context(memory.no_cache_flush(torch))
            stack.enter_context(torch.inference_mode())
            torch.cuda.synchronize()
            yield

    def purge(self, graph: str) -> None:
        """Forget a graph: what a failed capture left behind, or one that failed its check."""
        from vllm.compilation.cuda_graph import CUDAGraphWrapper

        desc = self.descs[graph]
        if self.captured.pop(graph, None) is not None:
            self.epoch += 1
        self.manager.graphs.pop(desc, None)
        if desc.cg_mode.name != "PIECEWISE":
            return
        for wrapper in list(CUDAGraphWrapper._all_instances):
            for key in list(wrapper.concrete_cudagraph_entries):
                if key.num_tokens == desc.num_tokens:
                    del wrapper.concrete_cudagraph_entries[key]

    # -------------------------------------------------------------- dispatch

    def set_table(self, table: Dispatch | None) -> None:
        """Use the controller's table from the next step on; ``None`` goes back to our rule.

        Raises:
            TableError: it names a graph that isn't captured; the old table stays.
        """
        if table is not None:
            known = frozenset(self.captured)
            expand(table.uniform, known)
            expand(table.mixed, known)
        self.table = table
        self._rebuild()

    def _rebuild(self) -> None:
        """Recompute the look-up lists, and vLLM's own candidates, from what is captured."""
        known = frozenset(self.captured)
        table = self.table
        if table is None:
            captured = [g for g in self.graphs if g.id in known]
            table = default_table(captured, self.manager.decode_query_len, self.graphs)
        try:
            uniform, mixed = expand(table.uniform, known), expand(table.mixed, known)
        except TableError:
            # A graph the table names was purged meanwhile: fall back to the rule.
            self.table = None
            return self._rebuild()
        self._uniform = [tuple((g, self.descs[g]) for g in row) for row in uniform]
        self._mixed = [tuple((g, self.descs[g]) for g in row) for row in mixed]
        # Whoever reads vLLM's own table must not find a graph that isn't there either.
        self.manager._candidates = {
            key: found
            for key, descs in self._stock_candidates().items()
            if (found := [d for d in descs if graph_id(d) in known])
        }
        self.manager._graphs_captured = True

    def _stock_candidates(self) -> dict[Any, list[Any]]:
        if not hasattr(self, "_stock"):
            self._stock = dict(self.manager._candidates)
        return self._stock

    def dispatch(
        self, num_reqs: int, num_tokens: int, uniform_tokens: int | None, num_active_loras: int
    ) -> Any:
        """Stands in for ``CudaGraphManager.dispatch``: one look-up, captured graphs only."""
        is_decode = uniform_tokens == self.manager.decode_query_len
        rows = self._uniform if is_decode else self._mixed
        if 0 < num_tokens < len(rows):
            for name, desc in rows[num_tokens]:
                if (
                    desc.num_tokens >= num_tokens
                    and (desc.num_reqs is None or desc.num_reqs >= num_reqs)
                    and desc.uniform_token_count in (None, uniform_tokens)
                    and desc.num_active_loras == num_active_loras
                ):
                    self.last_served = name
                    return desc
        self.last_served = ""
        any_desc = next(iter(self.descs.values()))
        return type(any_desc)(
            cg_mode=type(any_desc.cg_mode).NONE,
            num_tokens=num_tokens,
            num_reqs=num_reqs,
            num_active_loras=num_active_loras,
        )

    # -------------------------------------------------------------- checks

    def state_hash(self) -> str:
        """Equal on all ranks exactly when they hold the same graphs at the same epoch."""
        text = f"{self.epoch}|{'|'.join(sorted(self.captured))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _verify(self, name: str) -> None:
        """Note a mismatch; the engine then purges the graph on all ranks at once."""
        from .verify import RELATIVE_LIMIT, relative_difference

        worst = relative_difference(self, self.descs[name])
        self.verified[name] = worst
        logger.info("lazygraph: verified %s: largest relative difference %.3g", name, worst)
        if not worst <= RELATIVE_LIMIT:  # also true for NaN
            self.mismatched[name] = worst

    def projected_bytes(self) -> int:
        """Bytes the graphs that are still missing will take, from the last ones of their kind."""
        sizes: dict[str, list[int]] = {}
        tops = {g.id for g in top_graphs(self.graphs)}
        for name, captured in self.captured.items():
            if name not in tops:
                sizes.setdefault(self.descs[name].cg_mode.name, []).append(captured.bytes)
        total = 0
        for name, desc in self.descs.items():
            if name not in self.captured:
                known = sizes.get(desc.cg_mode.name)
                fallback = forecast.typical_graph_bytes(desc.cg_mode.name, self.layers())
                total += int(sum(known) / len(known)) if known else fallback
        return total

    def layers(self) -> int:
        """Decoder layers of the model on this pipeline stage."""
        config = self.runner.vllm_config
        return int(config.model_config.get_num_layers(config.parallel_config))


@contextlib.contextmanager
def _quiet_progress() -> Iterator[None]:
    """One progress bar per call of vLLM's capture is noise with one graph per call."""
    from vllm.v1.worker.gpu import cudagraph_utils

    bar = cudagraph_utils.tqdm
    cudagraph_utils.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        cudagraph_utils.tqdm = bar
