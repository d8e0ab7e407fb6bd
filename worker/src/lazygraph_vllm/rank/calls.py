"""What the engine calls on every rank, through vLLM's collective RPC.

Every function takes vLLM's ``WorkerWrapperBase`` first and returns plain data. They run on the
thread that runs the model, in the order the engine sends them, on all ranks alike: the lockstep
our captures rely on. Other processes get them by name, so each stays in this file
(``sizing`` has those for the KV cache's size).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..protocol.messages import Dispatch, RankMemory, StepCount
from ..rules.dispatch import TableError
from ..vllm.choose import current
from ..vllm.options import chosen
from ..vllm.rank_hooks import let_go, take_over
from .capture_first import First
from .descriptors import unsupported
from .graphs import CaptureError, CaptureMemoryError, RankGraphs
from .guard import RankFailedError, StartGuard, everywhere
from .memory_answers import activation_missing, rank_memory, reclaim, shortage
from .pairs import described, pairs_of
from .sizing import model_shape
from .steps import StepWatch, watch_steps

logger = logging.getLogger("vllm.lazygraph")


@dataclass(frozen=True)
class Failure:
    """The answer of a rank that could not answer, in a call that changes nothing."""

    reason: str


def _answers(call: Callable[..., Any]) -> Callable[..., Any]:
    """Answer with a ``Failure`` instead of raising, so that the engine gets every rank's answer.

    After a call that changes graphs the ranks may differ: it is left to raise.
    """

    @functools.wraps(call)
    def answer(*args: Any) -> Any:
        try:
            return call(*args)
        except Exception as error:
            logger.exception("lazygraph: %s failed on this rank", call.__name__)
            return Failure(f"{call.__name__}: {type(error).__name__}: {error}")

    return answer


def _runner(wrapper: Any) -> Any:
    return wrapper.worker.model_runner


def _graphs(wrapper: Any) -> RankGraphs:
    return _runner(wrapper).lazygraph


# ------------------------------------------------------------------ start-up


def identify(wrapper: Any) -> dict[str, Any]:
    """This rank's GPU, what is new of its model, and what its vLLM lacks. Changes nothing.

    Never fails: what can't be read leaves the engine to vLLM.
    """
    try:
        import torch

        runner = _runner(wrapper)
        name = torch.cuda.get_device_properties(runner.device).name
        return {"gpu": name, "chosen": chosen(runner), "missing": current().missing()}
    except Exception as error:
        logger.debug("lazygraph: can't look at this rank", exc_info=True)
        return {"gpu": "", "missing": f"can't read it: {type(error).__name__}: {error}"}


def describe(wrapper: Any) -> dict[str, Any]:
    """What this rank could capture, or why not. Changes nothing, and never fails."""
    try:
        return _describe(wrapper)
    except Exception as error:
        logger.debug("lazygraph: can't read this vLLM's graphs", exc_info=True)
        return {"unsupported": f"can't read its graphs: {type(error).__name__}: {error}"}


def _describe(wrapper: Any) -> dict[str, Any]:
    runner = _runner(wrapper)
    adapter = current()
    if reason := adapter.unsupported_runner(runner):
        return {"unsupported": reason}
    manager = runner.cudagraph_manager
    descs = [d for descs in adapter.planned(manager).values() for d in descs]
    if reason := unsupported(descs):
        return {"unsupported": reason}
    pairs = pairs_of(adapter, runner, descs)
    if pairs is not None and (reason := unsupported(pairs.descs())):
        return {"unsupported": reason}
    graphs = described(descs, pairs)
    graphs.sort(key=lambda g: (g.kind != "PIECEWISE", -g.tokens))
    config = runner.vllm_config
    return {
        "graphs": graphs,
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
    more: tuple[str, ...] = (),
    budget_seconds: float | None = None,
) -> None:
    """Take over this rank's graphs; the coming start-up capture captures ``first`` and no others.

    Args:
        wrapper: vLLM's worker wrapper.
        first: what to capture before ready, in this order of pools.
        verify: check each graph against an ungraphed run.
        tiers: graphs that get a pool each; none: one pool for all, as in vLLM.
        guard_margin_bytes: memory is tight: check each graph of ``first``, and leave this much.
        more: what to capture besides, in this order, as long as the budget lasts.
        budget_seconds: for all captures before ready; ``None``: a share of what stock would spend.
    """
    runner = _runner(wrapper)
    guard = None if guard_margin_bytes is None else _guard(wrapper, guard_margin_bytes)
    adapter = current()
    runner.lazygraph = graphs = RankGraphs(
        adapter, runner, First(first, more, budget_seconds), verify, tiers, guard
    )
    take_over(adapter, runner, graphs)
    if _counts_steps(wrapper):
        watch_steps(runner, graphs.dispatch)


def _guard(wrapper: Any, margin_bytes: int) -> StartGuard:
    runner = _runner(wrapper)
    return StartGuard(
        device=runner.device,
        shape=model_shape(runner.vllm_config),
        margin_bytes=margin_bytes,
        activation_bytes=lambda: activation_missing(wrapper),
        everywhere=functools.partial(everywhere, current()),
    )


def step_aside(wrapper: Any) -> None:
    """Leave this rank to vLLM: what ``prepare`` changed is as it was."""
    let_go(_runner(wrapper))


def finish_start(wrapper: Any) -> dict[str, Any]:
    """After start-up: real steps can't capture any more. Returns what was captured.

    ``missed`` instead, where vLLM has captured past our hooks: nothing here is ours then.
    """
    graphs = _graphs(wrapper)
    if not graphs.ran:
        return {"missed": "vLLM captured its graphs without asking us"}
    graphs.finish_start()
    state = graphs.state
    if _counts_steps(wrapper):
        _runner(wrapper).lazygraph_steps.forget()  # vLLM's own warm-up steps are no demand
    return {
        "captured": list(state.captured.values()),
        "mismatched": dict(state.mismatched),
        "refused": dict(state.refused),
        "seconds": graphs.capture_seconds,
        "warm_up_seconds": graphs.warm_up_seconds,
        "skipped": graphs.skipped,
        "hash": state.hash(),
        "epoch": state.epoch,
        "memory": rank_memory(wrapper),
    }


# ------------------------------------------------------------------ between steps


@_answers
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
    state = _graphs(wrapper).state
    reason, short, reclaimed, later = None, False, False, False
    if graph not in state.descs:
        reason = f"unknown graph {graph!r}"
    elif graph in state.failed:
        reason = f"failed before: {state.failed[graph]}"
    elif (why := state.adapter.why_never(state.runner)) is not None:
        reason = why
    elif (why := state.adapter.why_not_now(wrapper.worker, state.absent_weights)) is not None:
        reason, later = why, True
    else:
        needs = (free_bytes_min, headroom_bytes_min, reserve_bytes)
        reason = shortage(wrapper, *needs)
        reclaimed = reason is not None and reclaim(wrapper, graph, reclaim_bytes_min)
        if reclaimed:
            reason = shortage(wrapper, *needs)
        short = reason is not None
    answer: dict[str, Any] = {
        "reason": reason,
        "hash": state.hash(),
    }
    if short:
        answer["short"] = True
    if later:
        answer["later"] = True
    if short or reclaimed:
        # Another rank may have no room, and then no capture tells what came back here.
        answer["memory"] = rank_memory(wrapper)
    return answer


@_answers
def give_back(wrapper: Any) -> None:
    """End a reservation that no capture follows."""
    _graphs(wrapper).reservation.give_back()


def capture(wrapper: Any, graph: str) -> dict[str, Any]:
    """Capture one graph. With several ranks a failure here can't be survived by the others."""
    graphs = _graphs(wrapper)
    state = graphs.state
    try:
        captured = graphs.capture_one(graph)
    except CaptureError as error:
        short = isinstance(error, CaptureMemoryError)
        if short:
            logger.warning("lazygraph: capturing %s ran out of memory: %s", graph, error)
        else:
            logger.exception("lazygraph: capturing %s failed", graph)
        answer = {
            "error": str(error), "short": short, "hash": state.hash(), "epoch": state.epoch,
            "another": isinstance(error.__cause__, RankFailedError),
        }  # fmt: skip
        # After any other failure CUDA may not answer, and the reason must reach the engine.
        return answer | ({"memory": rank_memory(wrapper)} if short else {})
    return {
        "captured": captured,
        "mismatch": state.mismatched.get(graph),
        "hash": state.hash(),
        "epoch": state.epoch,
        "memory": rank_memory(wrapper),
    }


def drop(wrapper: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Drop graphs that are whole tiers, and give their memory back."""
    graphs = _graphs(wrapper)
    freed = graphs.drop(names)
    return {
        "freed": freed,
        "hash": graphs.state.hash(),
        "epoch": graphs.state.epoch,
        "memory": rank_memory(wrapper),
    }


def drop_all(wrapper: Any) -> dict[str, Any]:
    """Drop all graphs, whatever pools they are in, and give their memory back."""
    graphs = _graphs(wrapper)
    freed = graphs.drop_all()
    return {"freed": freed, "hash": graphs.state.hash(), "epoch": graphs.state.epoch}


@_answers
def look(wrapper: Any) -> RankMemory:
    """This rank's memory now. Changes nothing."""
    return rank_memory(wrapper)


def purge(wrapper: Any, names: dict[str, str]) -> int:
    """Forget graphs here, with the reason why they must not be tried again; the new epoch."""
    graphs = _graphs(wrapper)
    graphs.purge(names)
    return graphs.state.epoch


def set_table(wrapper: Any, table: Dispatch | None) -> str | None:
    """Dispatch by this table from the next step on (``None``: our rule); returns why not."""
    try:
        _graphs(wrapper).dispatch.set_table(table)
    except TableError as error:
        return str(error)
    return None


# ------------------------------------------------------------------ telemetry


def _counts_steps(wrapper: Any) -> bool:
    return bool(getattr(wrapper, "global_rank", 0) == 0)


@_answers
def drain_steps(wrapper: Any) -> tuple[tuple[StepCount, ...], int] | Failure | None:
    """Steps since the last call and how many could not be booked; rank 0 only."""
    if not _counts_steps(wrapper):
        return None
    watch: StepWatch = _runner(wrapper).lazygraph_steps
    if watch.failure is not None:
        return Failure(watch.failure)
    watch.harvest()
    return watch.counter.take(), watch.counter.dropped
