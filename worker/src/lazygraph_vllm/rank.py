"""What the engine calls on every rank, through vLLM's collective RPC.

Every function takes vLLM's ``WorkerWrapperBase`` first and returns plain data. They run on the
thread that runs the model, in the order the engine sends them, on all ranks alike: that order is
the lockstep our captures rely on.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from typing import Any
from unittest import mock

from . import memory
from .capture import (
    CaptureError,
    CaptureMemoryError,
    RankGraphs,
    describe_graph,
    unsupported_runner,
)
from .dispatch import TableError
from .guard import StartGuard
from .messages import Dispatch, RankMemory, StepCount
from .sizing import model_shape
from .telemetry import StepCounter

logger = logging.getLogger("vllm.lazygraph")

STEPS_IN_FLIGHT_MAX = 64


def _runner(wrapper: Any) -> Any:
    return wrapper.worker.model_runner


def _graphs(wrapper: Any) -> RankGraphs:
    return _runner(wrapper).lazygraph


# ------------------------------------------------------------------ start-up


def describe(wrapper: Any) -> dict[str, Any]:
    """What this rank could capture, or why not. Changes nothing, and never fails."""
    try:
        return _describe(wrapper)
    except Exception as error:
        logger.debug("lazygraph: can't read this vLLM's graphs", exc_info=True)
        return {"unsupported": f"can't read its graphs: {type(error).__name__}: {error}"}


def _describe(wrapper: Any) -> dict[str, Any]:
    runner = _runner(wrapper)
    if reason := unsupported_runner(runner):
        return {"unsupported": reason}
    manager = runner.cudagraph_manager
    graphs = [describe_graph(d) for descs in manager._capture_descs.values() for d in descs]
    graphs.sort(key=lambda g: (g.kind != "PIECEWISE", -g.tokens))
    config = runner.vllm_config
    return {
        "graphs": graphs,
        "decode_length": manager.decode_query_len,
        "cudagraph_mode": manager.cudagraph_mode.name,
        "layers": int(config.model_config.get_num_layers(config.parallel_config)),
        "shape": model_shape(config),
        "memory": rank_memory(wrapper),
    }


def prepare(
    wrapper: Any,
    first: list[str],
    verify: bool,
    tiers: tuple[tuple[str, ...], ...] = (),
    guard_margin_bytes: int | None = None,
) -> None:
    """Take over this rank's graphs; the coming start-up capture captures ``first`` only.

    Args:
        wrapper: vLLM's worker wrapper.
        first: what to capture before ready, in this order of pools.
        verify: check each graph against an ungraphed run.
        tiers: graphs that get a pool each; none: one pool for all, as in vLLM.
        guard_margin_bytes: memory is tight: check each graph of ``first``, and leave this much.
    """
    runner = _runner(wrapper)
    guard = None if guard_margin_bytes is None else _guard(wrapper, guard_margin_bytes)
    runner.lazygraph = graphs = RankGraphs(runner, first, verify, tiers, guard)
    runner.cudagraph_manager.lazygraph = graphs
    _patch_classes()
    _watch_steps(runner, graphs)
    capture_model = runner.capture_model

    @functools.wraps(capture_model)
    def capture_and_project() -> int:
        # vLLM keeps this number (start-up plan, --kv-cache-memory advice) as what graphs take.
        # It collects garbage first, 0.3 s of a start; after its warm-up it does so again anyway.
        with mock.patch("gc.collect", lambda *_: 0):
            size = capture_model()
        return size + graphs.projected_bytes()

    runner.capture_model = capture_and_project


def _guard(wrapper: Any, margin_bytes: int) -> StartGuard:
    runner = _runner(wrapper)
    return StartGuard(
        device=runner.device,
        shape=model_shape(runner.vllm_config),
        margin_bytes=margin_bytes,
        activation_bytes=lambda: _activation_missing(wrapper),
        everywhere=_everywhere,
    )


def _everywhere(fine: bool) -> bool:
    """Whether it is fine on all ranks; asked on all of them at the same point of their work."""
    import torch
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    if group.world_size == 1:
        return fine
    # On the CPU, outside CUDA: a capture context may be open around it.
    answer = torch.tensor([int(fine)])
    torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MIN, group=group.cpu_group)
    return bool(answer.item())


def finish_start(wrapper: Any) -> dict[str, Any]:
    """After start-up: real steps can't capture any more. Returns what was captured."""
    graphs = _graphs(wrapper)
    graphs.finish_start()
    _runner(wrapper).lazygraph_steps.forget()  # vLLM's own warm-up steps are no demand
    return {
        "captured": list(graphs.captured.values()),
        "mismatched": dict(graphs.mismatched),
        "refused": dict(graphs.refused),
        "seconds": graphs.capture_seconds,
        "hash": graphs.state_hash(),
        "epoch": graphs.epoch,
        "memory": rank_memory(wrapper),
    }


def _patch_classes() -> None:
    """Patch vLLM's classes once per process; managers without our attribute stay as they are."""
    import torch
    from vllm.distributed.parallel_state import GraphCaptureContext
    from vllm.v1.worker.gpu import async_utils, cudagraph_utils

    manager_class = cudagraph_utils.CudaGraphManager
    if getattr(manager_class.capture, "lazygraph", False):
        return
    capture, dispatch = manager_class.capture, manager_class.dispatch
    graph_capture = cudagraph_utils.graph_capture
    contexts: dict[Any, Any] = {}

    def persistent_graph_capture(device: Any) -> Any:
        # A new stream per session would cost a cuBLAS workspace each and keep the pool from
        # reusing its blocks: 2.4 GiB for 100 graphs of an 8B.
        if device not in contexts:
            contexts[device] = GraphCaptureContext(torch.cuda.Stream(device=device))
        return graph_capture(device, contexts[device])

    @functools.wraps(capture)
    def patched_capture(self: Any, create_forward_fn: Any, progress_bar_desc: str = "") -> None:
        graphs = getattr(self, "lazygraph", None)
        if graphs is None:
            capture(self, create_forward_fn, progress_bar_desc)
        else:
            graphs.capture_first(capture, create_forward_fn, progress_bar_desc)

    @functools.wraps(dispatch)
    def patched_dispatch(
        self: Any,
        num_reqs: int,
        num_tokens: int,
        uniform_token_count: int | None,
        num_active_loras: int,
    ) -> Any:
        graphs = getattr(self, "lazygraph", None)
        if graphs is None:
            return dispatch(self, num_reqs, num_tokens, uniform_token_count, num_active_loras)
        return graphs.dispatch(num_reqs, num_tokens, uniform_token_count, num_active_loras)

    patched_capture.lazygraph = True  # type: ignore[attr-defined]
    manager_class.capture = patched_capture
    manager_class.dispatch = patched_dispatch
    cudagraph_utils.graph_capture = persistent_graph_capture
    get_output = async_utils.AsyncOutput.get_output

    @functools.wraps(get_output)
    def locked_get_output(self: Any) -> Any:
        with memory.output_lock:
            return get_output(self)

    async_utils.AsyncOutput.get_output = locked_get_output


# ------------------------------------------------------------------ between steps


def preflight(
    wrapper: Any,
    graph: str,
    free_bytes_min: int,
    headroom_bytes_min: int = 0,
    reserve_bytes: int = 0,
    reclaim_bytes_min: int = 0,
) -> dict[str, Any]:
    """Whether this rank could capture ``graph`` now.

    Changes nothing but ``reserve_bytes``: those are held until the capture or ``give_back``, so
    that nobody else takes them while the other ranks look. Where there is too little, torch's cache
    is emptied if that helps. A rank does so for itself, whatever the others do: there is no
    collective in it, and where another rank has no room nothing but some cached blocks is lost.

    Args:
        wrapper: vLLM's worker wrapper.
        graph: its id.
        free_bytes_min: what the device must have free.
        headroom_bytes_min: what it must have free besides what serving still needs.
        reserve_bytes: what to hold.
        reclaim_bytes_min: what must be free or in torch's cache, besides the activation peak, for
            the cache to be emptied; 0: it stays.
    """
    graphs = _graphs(wrapper)
    reason, short, reclaimed = None, False, False
    if graph not in graphs.descs:
        reason = f"unknown graph {graph!r}"
    elif graph in graphs.failed:
        reason = f"failed before: {graphs.failed[graph]}"
    else:
        needs = (free_bytes_min, headroom_bytes_min, reserve_bytes)
        reason = _shortage(wrapper, *needs)
        reclaimed = reason is not None and _reclaim(wrapper, graph, reclaim_bytes_min)
        if reclaimed:
            reason = _shortage(wrapper, *needs)
        short = reason is not None
    answer = {"reason": reason, "hash": graphs.state_hash(), "has": graph in graphs.captured}
    if short:
        answer["short"] = True
    if short or reclaimed:
        # Another rank may have no room, and then no capture tells what came back here.
        answer["memory"] = rank_memory(wrapper)
    return answer


def _shortage(wrapper: Any, free_min: int, headroom_min: int, reserve_bytes: int) -> str | None:
    import torch

    free = torch.cuda.mem_get_info(_runner(wrapper).device)[0]
    if free < free_min:
        return f"headroom: {free >> 20} MiB free, {free_min >> 20} MiB needed"
    # What is held is read only where it decides: it takes a snapshot of every pool, in the stall.
    if headroom_min and free - _activation_peak(wrapper) < headroom_min:
        serving = _activation_missing(wrapper)
        if free - serving < headroom_min:
            return (
                f"headroom: {free >> 20} MiB free, {serving >> 20} MiB of them for serving, "
                f"{headroom_min >> 20} MiB needed"
            )
    if not _graphs(wrapper).reservation.take(reserve_bytes):
        return (
            f"headroom: {free >> 20} MiB free, but the device doesn't give "
            f"{reserve_bytes >> 20} MiB"
        )
    return None


def _reclaim(wrapper: Any, graph: str, bytes_min: int) -> bool:
    """Take back what torch's allocator keeps beyond what serving needs; False: it stays.

    Serving's first waves may have grown into memory that was kept for graphs not captured yet, and
    the allocator doesn't let go of it by itself.
    """
    import torch

    device, flush = _runner(wrapper).device, _graphs(wrapper).cache_flush
    if bytes_min <= 0 or not flush.is_due():
        return False
    _, unused = memory.pools_use(_pool_ids(_runner(wrapper)))
    cached = memory.cached_bytes(device, unused)
    free = torch.cuda.mem_get_info(device)[0]
    if cached == 0 or free + cached - _activation_peak(wrapper) < bytes_min:
        return False
    back = flush.run(device)
    logger.info("lazygraph: emptied torch's cache for %s: %d MiB came back", graph, back >> 20)
    return True


def give_back(wrapper: Any) -> None:
    """End a reservation that no capture follows."""
    _graphs(wrapper).reservation.give_back()


def capture(wrapper: Any, graph: str) -> dict[str, Any]:
    """Capture one graph. With several ranks a failure here can't be survived by the others."""
    graphs = _graphs(wrapper)
    try:
        captured = graphs.capture_one(graph)
    except CaptureError as error:
        short = isinstance(error, CaptureMemoryError)
        if short:
            logger.warning("lazygraph: capturing %s ran out of memory: %s", graph, error)
        else:
            logger.exception("lazygraph: capturing %s failed", graph)
        answer = {
            "error": str(error), "short": short, "hash": graphs.state_hash(), "epoch": graphs.epoch,
        }  # fmt: skip
        # After any other failure CUDA may not answer, and the reason must reach the engine.
        return answer | ({"memory": rank_memory(wrapper)} if short else {})
    return {
        "captured": captured,
        "mismatch": graphs.mismatched.get(graph),
        "hash": graphs.state_hash(),
        "epoch": graphs.epoch,
        "memory": rank_memory(wrapper),
    }


def drop(wrapper: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Drop graphs that are whole tiers, and give their memory back."""
    graphs = _graphs(wrapper)
    freed = graphs.drop(names)
    return {
        "freed": freed,
        "hash": graphs.state_hash(),
        "epoch": graphs.epoch,
        "memory": rank_memory(wrapper),
    }


def purge(wrapper: Any, names: dict[str, str]) -> int:
    """Forget graphs here, with the reason why they must not be tried again; the new epoch."""
    graphs = _graphs(wrapper)
    for graph, reason in names.items():
        graphs.purge(graph)
        graphs.failed[graph] = reason
    graphs.release_empty(names)
    graphs._rebuild()
    return graphs.epoch


def set_table(wrapper: Any, table: Dispatch | None) -> str | None:
    """Dispatch by this table from the next step on (``None``: our rule); returns why not."""
    try:
        _graphs(wrapper).set_table(table)
    except TableError as error:
        return str(error)
    return None


def _activation_peak(wrapper: Any) -> int:
    return int(getattr(wrapper.worker, "peak_activation_memory", 0))


def _pool_ids(runner: Any) -> list[Any]:
    graphs = getattr(runner, "lazygraph", None)
    return [runner.cudagraph_manager.pool] if graphs is None else graphs.pools.ids()


def _activation_missing(wrapper: Any) -> int:
    """What serving still needs of the device: the activation peak less what torch holds of it."""
    runner, peak = _runner(wrapper), _activation_peak(wrapper)
    _, unused = memory.pools_use(_pool_ids(runner))
    return peak - memory.activation_held_bytes(runner.device, unused, peak)


def rank_memory(wrapper: Any) -> RankMemory:
    """This rank's GPU and what the allocator and the graph pools hold of it."""
    import torch

    runner = _runner(wrapper)
    device = runner.device
    free, total = torch.cuda.mem_get_info(device)
    properties = torch.cuda.get_device_properties(device)
    in_pools, unused = memory.pools_use(_pool_ids(runner))
    cached = memory.cached_bytes(device, unused)
    peak = _activation_peak(wrapper)
    return RankMemory(
        rank=int(getattr(wrapper, "global_rank", 0)),
        gpu_uuid=f"GPU-{properties.uuid}",
        gpu_name=properties.name,
        total_bytes=total,
        free_bytes=free,
        reserved_bytes=torch.cuda.memory_reserved(device),
        pool_bytes=in_pools,
        activation_peak_bytes=peak,
        activation_held_bytes=min(peak, cached),
        cached_bytes=cached,
    )


# ------------------------------------------------------------------ telemetry


class StepWatch:
    """Counts and times real steps on one rank, without ever waiting for the GPU.

    A step's seconds are those between two CUDA events on the model's stream: before its inputs
    are prepared and after its tokens are sampled. Events are read when a later step starts, on
    the thread that owns the stream: reading them on another thread would end a capture.
    """

    def __init__(self) -> None:
        self.counter = StepCounter()
        self._in_flight: deque[tuple[tuple[int, int, int, str], float, Any, Any]] = deque()
        self._spare: list[Any] = []
        self._open: tuple[tuple[int, int, int, str], float, Any] | None = None

    def begin(self) -> Any:
        """Mark the start of a step; returns its event."""
        import torch

        self.harvest()
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def dispatched(self, key: tuple[int, int, int, str], event: Any, context: float) -> None:
        """Count the step whose graph is now known."""
        self.counter.add(*key, context)
        self._open = (key, context, event)

    def end(self) -> None:
        """Mark the end of the step that is open."""
        import torch

        if self._open is None:
            return
        (key, context, start), self._open = self._open, None
        if len(self._in_flight) >= STEPS_IN_FLIGHT_MAX:
            return
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        self._in_flight.append((key, context, start, event))

    def forget(self) -> None:
        """Drop every step so far, also those whose events were not read yet."""
        self._in_flight.clear()
        self.counter.take()

    def harvest(self) -> None:
        """Read the events of finished steps."""
        while self._in_flight and self._in_flight[0][3].query():
            key, context, start, end = self._in_flight.popleft()
            self.counter.time(key, start.elapsed_time(end) / 1000, context)
            self._spare += (start, end)


def _watch_steps(runner: Any, graphs: RankGraphs) -> None:
    watch = runner.lazygraph_steps = StepWatch()
    execute, sample = runner.execute_model, runner.sample_tokens

    @functools.wraps(execute)
    def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        scheduled = scheduler_output.num_scheduled_tokens
        if kwargs.get("dummy_run") or not scheduled:
            return execute(scheduler_output, *args, **kwargs)
        event = watch.begin()
        result = execute(scheduler_output, *args, **kwargs)
        requests, tokens = len(scheduled), scheduler_output.total_num_scheduled_tokens
        longest = max(scheduled.values())
        uniform = longest if longest * requests == tokens else 0
        computed = sum(scheduler_output.scheduled_cached_reqs.num_computed_tokens)
        key = (tokens, requests, uniform, graphs.last_served)
        watch.dispatched(key, event, (computed + tokens) / requests)
        return result

    @functools.wraps(sample)
    def sample_tokens(*args: Any, **kwargs: Any) -> Any:
        result = sample(*args, **kwargs)
        watch.end()
        return result

    runner.execute_model = execute_model
    runner.sample_tokens = sample_tokens


def drain_steps(wrapper: Any) -> tuple[tuple[StepCount, ...], int] | None:
    """Steps since the last call and how many could not be booked; rank 0 only."""
    if getattr(wrapper, "global_rank", 0) != 0:
        return None
    watch: StepWatch = _runner(wrapper).lazygraph_steps
    watch.harvest()
    return watch.counter.take(), watch.counter.dropped
