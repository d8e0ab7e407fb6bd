"""Faults that a good token check must find, and some that strike one rank in mid-capture."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from typing import Any


def inject(faults: str, rank: int) -> None:
    """Install faults on this rank, e.g. ``dead:FULL:24,corrupt:FULL:16@1``.

    Args:
        faults: comma-separated; ``@RANK`` at the end of one limits it to that rank.
        rank: which one this is.

    Raises:
        ValueError: an unknown fault.
    """
    for fault in faults.split(","):
        name, _, only = fault.partition("@")
        kind, _, graph = name.partition(":")
        if only and int(only) != rank:
            continue
        if kind == "dead":
            _after_capture(graph, _kill)
        elif kind == "corrupt":
            _after_capture(graph, _corrupt)
        elif kind == "skip-all-reduce":
            _around_capture(graph, _without_all_reduce)
        elif kind == "no-memory":
            _around_capture(graph, lambda: _once_capturing(_run_out_of_memory))
        elif kind == "killed":
            _around_capture(graph, lambda: _once_capturing(_die))
        else:
            raise ValueError(
                "expected LAZYGRAPH_TEST_FAULT to name dead, corrupt, skip-all-reduce, no-memory "
                f"or killed and a graph, got {fault!r}"
            )


def _after_capture(graph: str, break_it: Any) -> None:
    from lazygraph_vllm.rank.capture import Capturer
    from lazygraph_vllm.rank.dispatch import RankDispatch

    verify = Capturer._verify
    rebuild = RankDispatch.rebuild
    broken: set[str] = set()

    def break_once(state: Any) -> None:
        if graph in state.captured and graph not in broken:
            broken.add(graph)
            break_it(state, graph)

    @functools.wraps(verify)
    def patched_verify(self: Any, name: str) -> None:
        break_once(self._state)
        verify(self, name)

    @functools.wraps(rebuild)
    def patched_rebuild(self: Any) -> None:
        break_once(self._state)
        rebuild(self)

    Capturer._verify = patched_verify  # type: ignore[method-assign]
    RankDispatch.rebuild = patched_rebuild  # type: ignore[method-assign]


class _DeadGraph:
    """Replays nothing, so that its outputs are whatever an earlier step left there."""

    def replay(self) -> None:
        """Do nothing."""


def _kill(state: Any, name: str) -> None:
    """Make one graph, or one piece in the middle of it, do nothing when replayed."""
    desc = state.descs[name]
    if desc.cg_mode.name == "FULL":
        state.manager.graphs[desc] = _DeadGraph()
        return
    if state.adapter.is_breakable(state.manager):
        _kill_part(state.manager.breakable_cg_runner, desc)
        return
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    entries = [
        entry
        for wrapper in CUDAGraphWrapper._all_instances
        for key, entry in wrapper.concrete_cudagraph_entries.items()
        if key.num_tokens == desc.num_tokens
    ]
    entries[len(entries) // 2].cudagraph = _DeadGraph()


def _kill_part(runner: Any, desc: Any) -> None:
    """Make one CUDA graph in the middle of a breakable one do nothing; its calls go on."""
    from lazygraph_vllm.vllm.breakable import batch_of

    [entry] = [
        e for key, e in runner.entries.items() if batch_of(key).num_tokens == desc.num_tokens
    ]
    segments = entry.capture.segments
    graphs = [i for i, segment in enumerate(segments) if _replays_a_graph(segment)]
    segments[graphs[len(graphs) // 2]] = _DeadGraph().replay


def _replays_a_graph(segment: Any) -> bool:
    import torch

    return isinstance(getattr(segment, "__self__", None), torch.cuda.CUDAGraph)


class _CorruptGraph:
    """Replays the graph, then changes one row of its output."""

    def __init__(self, graph: Any, row: Any) -> None:
        self._graph = graph
        self._row = row

    def replay(self) -> None:
        """Replay, then corrupt."""
        self._graph.replay()
        self._row.add_(1.0)


def _corrupt(state: Any, name: str) -> None:
    """Corrupt one FULL graph: all its collectives still run, so other ranks don't wait for it."""
    desc = state.descs[name]
    # Of a pipeline's stage that is not the last one: a row of what it hands on.
    [output, *_] = state.adapter.output_buffers(state.manager)
    row = output[desc.num_tokens // 2]
    state.manager.graphs[desc] = _CorruptGraph(state.manager.graphs[desc], row)


def _around_capture(graph: str, context: Any) -> None:
    from lazygraph_vllm.rank.capture import Capturer
    from lazygraph_vllm.rank.descriptors import graph_id

    run_capture = Capturer.run

    @functools.wraps(run_capture)
    def patched_run(self: Any, *args: Any, **kwargs: Any) -> None:
        forward_factory = self._forward_factory

        def faulty(desc: Any, warmup: bool) -> Any:
            forward = forward_factory(desc, warmup)
            if graph_id(desc) != graph:
                return forward

            def run(mode: Any) -> None:
                with context():
                    forward(mode)

            return run

        self._forward_factory = faulty
        try:
            run_capture(self, *args, **kwargs)
        finally:
            self._forward_factory = forward_factory

    Capturer.run = patched_run  # type: ignore[method-assign]


@contextlib.contextmanager
def _without_all_reduce() -> Any:
    """What a warm-up inside the capture context does by design, frozen into the graph."""
    import torch
    from vllm.distributed.device_communicators.custom_all_reduce import CustomAllreduce

    original = CustomAllreduce.custom_all_reduce

    def skip(self: Any, input: Any) -> Any:
        if torch.cuda.is_current_stream_capturing():
            return input.clone()
        return original(self, input)

    CustomAllreduce.custom_all_reduce = skip
    try:
        yield
    finally:
        CustomAllreduce.custom_all_reduce = original


@contextlib.contextmanager
def _once_capturing(strike: Any) -> Any:
    """Strike after the forward of a capture, before it ends: this rank's collectives have run.

    Nothing happens in a warm-up run, where the other ranks would wait for what this one leaves out
    long before any of them captures.
    """
    import torch

    yield
    if torch.cuda.is_current_stream_capturing():
        strike()


def _run_out_of_memory() -> None:
    import torch

    raise torch.cuda.OutOfMemoryError("CUDA out of memory. A test has said so")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
