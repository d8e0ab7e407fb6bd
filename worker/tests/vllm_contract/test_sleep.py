"""Sleep and wake in vLLM's own engine loop: graphs survive, and none is captured while asleep."""

from __future__ import annotations

from typing import Any

import pytest

from builders import request, wrong_dispatches
from lazygraph_vllm.protocol.messages import (
    Capture,
    Edge,
    Hello,
    Inventory,
    Result,
    Sleep,
    Slept,
    Wake,
)
from vllm_facts import SLEEPS_BY_TAG

pytestmark = [
    pytest.mark.skipif(not SLEEPS_BY_TAG, reason="sleep mode runs as stock before vLLM 0.31"),
]

BOTH = ("kv_cache", "weights")


@pytest.fixture
def engine(serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    import builders

    make_config = builders.make_config

    def with_sleep_mode(**options: Any) -> Any:
        config = make_config(**options)
        config.model_config.enable_sleep_mode = True
        return config

    monkeypatch.setattr(builders, "make_config", with_sleep_mode)
    monkeypatch.setenv("LAZYGRAPH_ALLOW_UNTESTED", "1")
    engine = serving(mode="lazy")
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    return engine


def slept(controller: Any, message: Any) -> Slept:
    controller.send(message)
    return controller.wait_for(Slept, where=lambda s: s.command == message.command)


def captured(controller: Any, command: int, graph: str) -> Result:
    controller.send(Capture(command=command, graph=graph, when_idle=False))
    return controller.wait_for(Result, where=lambda r: r.command == command)


def told(controller: Any, tags: tuple[str, ...] | None) -> Inventory:
    return controller.wait_for(Inventory, where=lambda i: i.phase == "serving" and i.asleep == tags)


def vllms_own(engine: Any, method: str, *arguments: Any) -> None:
    """By vLLM's own utility call, as its HTTP server makes it; a command after it waits for it."""
    from vllm.v1.engine import EngineCoreRequestType

    utility = (EngineCoreRequestType.UTILITY, (0, 1, method, arguments))
    engine.core.input_queue.put_nowait(utility)


@pytest.mark.parametrize("level", [1, 2])
def test_graphs_survive_and_none_is_captured_meanwhile(
    engine: Any, controller: Any, level: int
) -> None:
    assert controller.wait_for(Hello).sleeps is True
    assert captured(controller, 1, "FULL:4").outcome == "captured"
    graphs = dict(engine.runner.cudagraph_manager.graphs)
    answer = slept(controller, Sleep(command=2, level=level))
    assert (answer.outcome, answer.asleep, answer.reason) == ("asleep", BOTH, None)
    assert engine.executor.is_sleeping and engine.core.is_scheduler_paused()
    assert told(controller, BOTH).captured
    refused = captured(controller, 3, "FULL:2")
    assert (refused.outcome, refused.reason) == ("deferred", "the engine sleeps")
    answer = slept(controller, Wake(command=4))
    assert (answer.outcome, answer.asleep) == ("awake", ())
    assert not engine.core.is_scheduler_paused()
    reloads = ["wake_up weights", "reload_weights", "wake_up kv_cache"]
    plain = ["wake_up kv_cache,weights"]
    assert [c for c in engine.wrapper.calls if "wake" in c or "reload" in c] == (
        reloads if level == 2 else plain
    )
    assert dict(engine.runner.cudagraph_manager.graphs) == graphs
    assert captured(controller, 5, "FULL:2").outcome == "captured"
    manager = engine.runner.cudagraph_manager
    assert wrong_dispatches(engine.runner, manager.dispatch) == []


def test_what_runs_ends_first_and_what_comes_meanwhile_is_served_after(
    engine: Any, controller: Any, gpu: Any
) -> None:
    engine.core.input_queue.put_nowait(request("long", steps=1_000_000))
    engine.scheduler.wait_for_steps(2)
    controller.send(Sleep(command=1, level=1))
    # Answered after it, so that the engine has paused by then.
    assert slept(controller, Wake(command=9)).outcome == "refused"
    engine.core.input_queue.put_nowait(request("late", steps=3))
    engine.scheduler.wait_for_steps(engine.scheduler.steps + 5)
    engine.scheduler.left["long"] = 1
    answer = controller.wait_for(Slept, where=lambda s: s.command == 1)
    assert answer.outcome == "asleep"
    steps = [e for e in gpu.events if e[0] == "step"]
    assert len(steps) > 5 and all("late" not in e[1] for e in steps)
    assert engine.scheduler.queued == {"late": 3}
    assert slept(controller, Wake(command=2)).outcome == "awake"
    controller.wait_for(Edge, where=lambda e: e.state == "idle" and not engine.scheduler.left)
    assert ("step end", ("late",)) in gpu.events


def test_a_second_sleep_while_the_first_waits_is_refused(engine: Any, controller: Any) -> None:
    engine.core.input_queue.put_nowait(request("long", steps=1_000_000))
    engine.scheduler.wait_for_steps(2)
    controller.send(Sleep(command=1, level=1))
    second = slept(controller, Sleep(command=2, level=1))
    assert second.outcome == "refused" and "under way" in (second.reason or "")
    early = slept(controller, Wake(command=3))
    assert early.outcome == "refused" and "under way" in (early.reason or "")
    engine.scheduler.left["long"] = 1
    assert controller.wait_for(Slept, where=lambda s: s.command == 1).outcome == "asleep"


def test_sleep_of_a_sleeper_and_wake_of_one_that_is_awake_are_refused(
    engine: Any, controller: Any
) -> None:
    awake = slept(controller, Wake(command=1))
    assert (awake.outcome, awake.reason) == ("refused", "the engine is awake")
    assert slept(controller, Sleep(command=2, level=2)).outcome == "asleep"
    again = slept(controller, Sleep(command=3, level=1))
    assert again.outcome == "refused" and "sleeps already" in (again.reason or "")
    assert slept(controller, Wake(command=4)).outcome == "awake"


def test_graphs_are_dropped_where_asked_for_and_come_back(
    engine: Any, controller: Any, gpu: Any
) -> None:
    assert captured(controller, 1, "PIECEWISE:4").outcome == "captured"
    held = gpu.pool_bytes
    assert held > 0
    answer = slept(controller, Sleep(command=2, level=1, drop_graphs=True))
    assert answer.outcome == "asleep"
    manager = engine.runner.cudagraph_manager
    assert not manager.graphs
    assert not any(p.concrete_cudagraph_entries for p in engine.runner.model.pieces)
    assert told(controller, BOTH).captured == ()
    assert slept(controller, Wake(command=3)).outcome == "awake"
    assert manager.dispatch(4, 4, 1, 0).cg_mode.name == "NONE"
    assert captured(controller, 4, "FULL:4").outcome == "captured"
    assert captured(controller, 5, "PIECEWISE:4").outcome == "captured"
    assert manager.dispatch(4, 4, 1, 0).num_tokens == 4
    assert wrong_dispatches(engine.runner, manager.dispatch) == []


def test_somebody_elses_sleep_is_noticed_tag_by_tag(engine: Any, controller: Any) -> None:
    vllms_own(engine, "sleep", 1, "abort")
    assert told(controller, BOTH)
    vllms_own(engine, "wake_up", ["weights"])
    assert told(controller, ("kv_cache",))
    refused = captured(controller, 1, "FULL:2")
    assert (refused.outcome, refused.reason) == ("deferred", "the engine sleeps")
    vllms_own(engine, "wake_up", ["kv_cache"])
    controller.wait_for(
        Inventory,
        where=lambda i: (
            i.asleep is None and controller.received.index(i) > controller.received.index(refused)
        ),
    )
    assert captured(controller, 2, "FULL:2").outcome == "captured"


def test_weights_that_somebody_else_woke_are_not_loaded_over(engine: Any, controller: Any) -> None:
    """A trainer that transfers weights wakes its engines tag by tag: the checkpoint's are older."""
    assert slept(controller, Sleep(command=1, level=2)).outcome == "asleep"
    vllms_own(engine, "wake_up", ["weights"])
    vllms_own(engine, "wake_up", ["kv_cache"])
    assert slept(controller, Sleep(command=2, level=1)).outcome == "asleep"
    assert slept(controller, Wake(command=3)).outcome == "awake"
    assert "reload_weights" not in engine.wrapper.calls


def test_weights_that_somebody_else_gave_up_are_loaded_again(engine: Any, controller: Any) -> None:
    vllms_own(engine, "sleep", 2, "abort")
    vllms_own(engine, "sleep", 1, "abort")  # vLLM leaves it at level 2
    assert slept(controller, Wake(command=1)).outcome == "awake"
    assert engine.wrapper.calls.count("reload_weights") == 1
    vllms_own(engine, "sleep", 1, "abort")
    assert slept(controller, Wake(command=2)).outcome == "awake"
    assert engine.wrapper.calls.count("reload_weights") == 1


@pytest.mark.parametrize("level", [1, 2])
def test_a_sleep_that_fails_leaves_an_engine_that_serves(
    engine: Any, controller: Any, level: int
) -> None:
    engine.wrapper.fails_to_sleep = True
    answer = slept(controller, Sleep(command=1, level=level))
    assert answer.outcome == "failed" and "Memory usage increased" in (answer.reason or "")
    assert not engine.core.is_scheduler_paused()
    assert not engine.wrapper.lacks and engine.wrapper.calls.count("reload_weights") == level - 1
    engine.core.input_queue.put_nowait(request("after", steps=3))
    engine.scheduler.wait_for_steps(3)
    assert engine.error is None


def test_a_sleep_that_fails_with_no_way_back_is_a_sleep(engine: Any, controller: Any) -> None:
    engine.wrapper.fails_to_sleep = engine.wrapper.fails_to_reload = True
    answer = slept(controller, Sleep(command=1, level=2))
    assert (answer.outcome, answer.asleep) == ("failed", ("kv_cache",))
    assert captured(controller, 2, "FULL:2").reason == "the engine sleeps"


def test_a_sleep_that_fails_on_one_of_several_ranks_ends_the_engine(engine: Any) -> None:
    engine.executor.lazygraph.state.ranks *= 2
    engine.wrapper.fails_to_sleep = True
    vllms_own(engine, "sleep", 1, "abort")
    engine.thread.join(10)
    assert "failed on one of several ranks" in str(engine.error)


def test_weights_that_cant_be_loaded_again_can_be_asked_for_again(
    engine: Any, controller: Any
) -> None:
    assert slept(controller, Sleep(command=1, level=2)).outcome == "asleep"
    engine.wrapper.fails_to_reload = True
    answer = slept(controller, Wake(command=2))
    assert answer.outcome == "failed" and "no such checkpoint" in (answer.reason or "")
    assert answer.asleep == ("kv_cache",) and engine.core.is_scheduler_paused()
    engine.wrapper.fails_to_reload = False
    assert slept(controller, Wake(command=3)).outcome == "awake"
    assert engine.wrapper.calls.count("reload_weights") == 2
    assert engine.wrapper.calls.count("wake_up weights") == 1


def test_a_repeated_command_is_answered_and_not_carried_out_again(
    engine: Any, controller: Any
) -> None:
    assert slept(controller, Sleep(command=1, level=1)).outcome == "asleep"
    controller.send(Sleep(command=1, level=1))
    controller.wait_for(
        Slept,
        where=lambda s: sum(isinstance(m, Slept) for m in controller.received) == 2,
    )
    assert engine.wrapper.calls.count("sleep 1") == 1
    assert slept(controller, Wake(command=2)).outcome == "awake"


def test_an_engine_without_sleep_mode_says_so(serving: Any, controller: Any) -> None:
    engine = serving(mode="lazy")
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    assert controller.wait_for(Hello).sleeps is None
    answer = slept(controller, Sleep(command=1, level=1))
    assert answer.outcome == "refused" and "--enable-sleep-mode" in (answer.reason or "")
    assert not engine.executor.is_sleeping


def test_ten_cycles_leave_the_same_graphs_and_no_memory_more(
    engine: Any, controller: Any, gpu: Any
) -> None:
    assert captured(controller, 1, "FULL:4").outcome == "captured"
    held, pools = gpu.pool_bytes, len(gpu.pools)
    command = 1
    for cycle in range(10):
        for message in (Sleep(command=command + 1, level=1 + cycle % 2), Wake(command=command + 2)):
            assert slept(controller, message).outcome in ("asleep", "awake")
        command += 2
        engine.core.input_queue.put_nowait(request(f"r{cycle}", steps=2))
        engine.scheduler.wait_for_steps(2 * (cycle + 1))
    assert (gpu.pool_bytes, len(gpu.pools)) == (held, pools)
    assert engine.error is None
