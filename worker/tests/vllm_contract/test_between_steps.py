"""Commands in vLLM's own engine loop: between steps, never inside one, one at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from builders import request
from lazygraph_vllm.protocol.messages import (
    Capture,
    Edge,
    Goodbye,
    Inventory,
    Ready,
    Result,
    Telemetry,
)
from lazygraph_vllm.rules.local_fill import fill_order
from vllm_facts import SLEEPS_BY_TAG

IN_FLIGHT = pytest.mark.parametrize("in_flight", [1, 2], ids=["sync", "async"])


def result_of(controller: Any, command: int) -> Result:
    return controller.wait_for(Result, where=lambda r: r.command == command)


def test_the_hand_shake_is_between_the_kv_cache_and_capturing(
    serving: Any, controller: Any, gpu: Any
) -> None:
    """The controller's first set arrives after the one RPC and before the other."""
    controller.first = ["FULL:2"]
    seen: list[tuple[str, int]] = []
    answer = controller.welcome

    def welcome() -> Any:
        seen.append(("welcome", gpu.count("begin")))
        return answer()

    controller.welcome = welcome
    engine = serving()
    inventory = controller.wait_for(Inventory, where=lambda i: i.phase == "capturing")
    assert inventory.captured == ()
    assert inventory.kv_cache_tokens == 1600
    assert seen[0] == ("welcome", 0)
    assert engine.wrapper.calls == ["initialize_from_config", "compile_or_warm_up_model"]
    ready = controller.wait_for(Ready)
    assert [c.graph for c in ready.captured] == ["FULL:2"]
    assert "collective_rpc" not in vars(engine.executor), "the wrapped RPC is for start-up only"


def test_describe_runs_after_the_kv_cache_and_before_the_capture(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builders import Wrapper
    from lazygraph_vllm.rank import calls as rank

    calls: list[str] = []
    for name in ("describe", "prepare", "finish_start"):
        original = getattr(rank, name)

        def noting(wrapper: Any, *args: Any, original: Any = original, name: str = name) -> Any:
            calls.append(name)
            return original(wrapper, *args)

        monkeypatch.setattr(rank, name, noting)
    for name in ("initialize_from_config", "compile_or_warm_up_model"):
        method = getattr(Wrapper, name)

        def noting_method(self: Any, *args: Any, method: Any = method, name: str = name) -> Any:
            calls.append(name)
            return method(self, *args)

        monkeypatch.setattr(Wrapper, name, noting_method)
    serving()
    assert calls == [
        "initialize_from_config",
        "describe",
        "prepare",
        "compile_or_warm_up_model",
        "finish_start",
    ]


@IN_FLIGHT
def test_an_idle_engine_captures_at_once(serving: Any, controller: Any, in_flight: int) -> None:
    engine = serving(in_flight=in_flight)
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    controller.send(Capture(command=1, graph="FULL:4", when_idle=True))
    result = result_of(controller, 1)
    assert (result.outcome, result.reason) == ("captured", None)
    assert result.stall_ms >= result.ms > 0
    assert engine.runner.cudagraph_manager.dispatch(4, 4, 1, 0).num_tokens == 4


@IN_FLIGHT
def test_a_busy_engine_captures_between_steps_and_goes_on(
    serving: Any, controller: Any, gpu: Any, in_flight: int
) -> None:
    engine = serving(in_flight=in_flight)
    engine.core.input_queue.put_nowait(request("long", steps=1_000_000))
    engine.scheduler.wait_for_steps(3)
    at = len(gpu.events)
    for command, graph in enumerate(["FULL:4", "PIECEWISE:4", "FULL:2"], 1):
        controller.send(Capture(command=command, graph=graph, when_idle=False))
        assert result_of(controller, command).outcome == "captured"
        engine.scheduler.wait_for_steps(engine.scheduler.steps + 2)
    controller.send(Capture(command=9, graph="FULL:1", when_idle=True))
    assert (result_of(controller, 9).outcome, result_of(controller, 9).reason) == (
        "deferred",
        "the engine is busy",
    )
    assert_no_capture_inside_a_step(gpu.events[at:], engine.runner, in_flight)


def assert_no_capture_inside_a_step(events: list[Any], runner: Any, in_flight: int) -> None:
    """A step's work on the GPU is submitted between its schedule and its last record."""
    open_step = False
    captures = steps = 0
    for event in events:
        if event[0] == "step":
            open_step, steps = True, steps + 1
        elif event[0] == ("step end" if in_flight == 1 else "replay"):
            open_step = False
        elif event[0] == "begin":
            captures += 1
            assert not open_step, "a capture between a step's schedule and its forward pass"
    assert captures == 2 + len(runner.model.pieces)
    assert steps > 5


def test_the_step_check_finds_a_capture_inside_a_step() -> None:
    """Positive control of the check above."""
    from types import SimpleNamespace

    events = [("step", ()), ("begin",), ("end",), ("replay",)]
    runner = SimpleNamespace(model=SimpleNamespace(pieces=[]))
    with pytest.raises(AssertionError, match="schedule"):
        assert_no_capture_inside_a_step(events, runner, 2)


class Gate:
    """Holds captures until the test opens it."""

    def __init__(self, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        self.entered = threading.Event()
        self.open = threading.Event()
        graph = torch.cuda.CUDAGraph
        begin = graph.capture_begin

        def gated(this: Any, *args: Any, **kwargs: Any) -> None:
            self.entered.set()
            assert self.open.wait(60)
            begin(this, *args, **kwargs)

        monkeypatch.setattr(graph, "capture_begin", gated)


@pytest.mark.parametrize("when_idle", [True, False])
def test_a_request_waits_for_one_capture_at_most(
    serving: Any, controller: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch, when_idle: bool
) -> None:
    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    gate = Gate(gpu, monkeypatch)
    controller.send(Capture(command=1, graph="FULL:4", when_idle=when_idle))
    assert gate.entered.wait(60)
    at = len(gpu.events)
    # Behind the capture under way: two more commands, then a request, straight into the queue.
    for command, graph in ((2, "FULL:2"), (3, "FULL:1")):
        engine.agent.session.receive(Capture(command=command, graph=graph, when_idle=when_idle))
    engine.core.input_queue.put_nowait(request("waiting", steps=2))
    gate.open.set()
    assert [result_of(controller, c).outcome for c in (1, 2, 3)] == [
        "captured",
        "deferred",
        "deferred",
    ]
    engine.scheduler.wait_for_steps(2)
    before_first_step = gpu.events[at : [e[0] for e in gpu.events].index("step", at)]
    assert [e[0] for e in before_first_step].count("begin") == 1


def test_nobody_waiting_a_burst_of_commands_is_done_at_once(serving: Any, controller: Any) -> None:
    serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    for command, graph in enumerate(["FULL:4", "FULL:2", "PIECEWISE:1"], 1):
        controller.send(Capture(command=command, graph=graph, when_idle=True))
    assert [result_of(controller, c).outcome for c in (1, 2, 3)] == ["captured"] * 3


def test_a_request_ahead_of_the_command_defers_it(serving: Any, controller: Any) -> None:
    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    engine.core.input_queue.put_nowait(request("first", steps=1_000_000))
    controller.wait_for(Edge, where=lambda e: e.state == "busy")
    controller.send(Capture(command=1, graph="FULL:4", when_idle=True))
    assert result_of(controller, 1).reason == "the engine is busy"


def test_edges_and_demand_reach_the_controller(serving: Any, controller: Any) -> None:
    engine = serving(in_flight=1)
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    engine.core.input_queue.put_nowait(request("r", steps=5))
    busy = controller.wait_for(Edge, where=lambda e: e.state == "busy")
    after = controller.received.index(busy)
    controller.wait_for(Edge, where=lambda e: e.state == "idle", after=after)
    batches = [controller.wait_for(Telemetry)]
    while sum(s.count for b in batches for s in b.steps) < 5:
        last = batches[-1].sequence
        batches.append(controller.wait_for(Telemetry, where=lambda t, n=last: t.sequence == n + 1))
    assert {(s.tokens, s.requests, s.uniform, s.served) for b in batches for s in b.steps} == {
        (1, 1, 1, "FULL:8")
    }
    assert sum(s.count for b in batches for s in b.steps) == 5


def sleep(executor: Any, asleep: bool) -> None:
    if SLEEPS_BY_TAG:
        executor.sleeping_tags = {"weights"} if asleep else set()
    else:
        executor.is_sleeping = asleep


def test_a_sleeping_or_paused_engine_defers(serving: Any, controller: Any) -> None:
    from vllm.v1.core.sched.interface import PauseState

    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    sleep(engine.executor, True)
    controller.send(Capture(command=1, graph="FULL:4", when_idle=False))
    assert result_of(controller, 1).reason == "the engine sleeps"
    sleep(engine.executor, False)
    engine.scheduler.pause_state = PauseState.PAUSED_ALL
    controller.send(Capture(command=2, graph="FULL:4", when_idle=False))
    assert result_of(controller, 2).reason == "the scheduler is paused"
    engine.scheduler.pause_state = PauseState.UNPAUSED
    controller.send(Capture(command=3, graph="FULL:4", when_idle=False))
    assert result_of(controller, 3).outcome == "captured"


def test_an_engine_prepared_for_a_checkpoint_defers(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.engine import EngineCoreRequestType

    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    for command, (method, expected) in enumerate(
        [("checkpoint_prepare", "deferred"), ("checkpoint_restore", "captured")], 1
    ):
        # What vLLM before 0.33 has not, so that the order counts and not what it does.
        monkeypatch.setattr(type(engine.wrapper), method, lambda _: None, raising=False)
        utility = (EngineCoreRequestType.UTILITY, (0, 1, "collective_rpc", (method,)))
        engine.core.input_queue.put_nowait(utility)
        controller.send(Capture(command=command, graph="FULL:4", when_idle=False))
        assert result_of(controller, command).outcome == expected


def test_alone_it_fills_while_idle_and_stops_for_requests(serving: Any) -> None:
    engine = serving(connect=False)
    graphs = engine.runner.lazygraph.state.captured
    wait_until(lambda: len(graphs) == 9)
    sizes = [g for g in graphs if g not in ("PIECEWISE:16", "FULL:8")]
    assert sizes == [g.id for g in fill_order(tuple(engine.agent.state.graphs)) if g.id in sizes]
    assert len(sizes) == 7 and set(sizes[:3]) == {"FULL:4", "FULL:2", "FULL:1"}
    engine.core.input_queue.put_nowait(request("r", steps=3))
    engine.scheduler.wait_for_steps(3)


def test_alone_and_asleep_it_fills_after_the_wake_up(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake-up is a client's request that leaves the engine without work, in vLLM's loop."""
    from vllm.v1.engine import EngineCoreRequestType

    from lazygraph_vllm.engine.lockstep import Lockstep

    asked = threading.Event()
    why_not_now = Lockstep._why_not_now

    def noting(self: Any, core: Any, message: Any) -> str | None:
        reason = why_not_now(self, core, message) if awake.is_set() else "the engine sleeps"
        asked.set()
        return reason

    awake = threading.Event()
    monkeypatch.setattr(Lockstep, "_why_not_now", noting)
    engine = serving(connect=False)
    assert asked.wait(60)
    assert len(engine.runner.lazygraph.state.captured) == 2
    awake.set()
    engine.core.input_queue.put_nowait((EngineCoreRequestType.ABORT, ["nobody"]))
    wait_until(lambda: len(engine.runner.lazygraph.state.captured) == 9)


def wait_until(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        threading.Event().wait(0.005)


def test_the_end_is_said_and_the_loop_ends(serving: Any, controller: Any) -> None:
    from conftest import stop

    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    stop(engine)
    assert engine.error is None
    assert controller.wait_for(Goodbye).reason == "the engine shut down"


def test_an_exception_of_two_ranks_ends_the_loop_with_a_reason(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygraph_vllm.rank import calls as rank

    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    rpc = engine.executor.collective_rpc

    def two_ranks(method: Any, *args: Any, **kwargs: Any) -> Any:
        answers = rpc(method, *args, **kwargs)
        if method is rank.capture:
            return [*answers, {"error": "RuntimeError: out of memory", "hash": "", "epoch": 1}]
        return answers

    monkeypatch.setattr(engine.executor, "collective_rpc", two_ranks)
    engine.agent.state.ranks *= 2
    controller.send(Capture(command=1, graph="FULL:4", when_idle=True))
    engine.thread.join(10)
    assert "failed on 1 of 2 ranks (RuntimeError: out of memory)" in str(engine.error)
