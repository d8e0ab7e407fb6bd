"""What fails of ours between two steps ends no engine: its steps and its graphs go on."""

from __future__ import annotations

import pkgutil
from typing import Any

import pytest

from builders import request, wrong_dispatches
from conftest import stop
from lazygraph_vllm.engine import step_reports
from lazygraph_vllm.protocol.messages import Capture, Inventory, Problem, Result, SetMode

# What raises, and at which call.
PLACES = {
    "engine.lockstep.Lockstep.attach": 1,
    "engine.alone.Alone.fill": 1,
    "engine.step_reports.StepReports.edge": 2,  # busy
    "engine.sleep.Sleeper.look": 2,  # after a request
    "engine.step_reports.ask_later": 1,
    "engine.commands.Commands.run": 1,
    "engine.headroom.Headroom.preflight_args": 1,
    "rank.calls.shortage": 1,
    "rank.graphs.RankGraphs.capture_one": 1,
    "rank.telemetry.StepCounter.take": 2,
    "rank.steps.StepWatch.begin": 1,
    "rank.steps.StepWatch.dispatched": 1,
    "rank.steps.StepWatch.end": 1,
}


def break_at(patch: pytest.MonkeyPatch, place: str, call: int, error: type) -> None:
    patch.setattr(step_reports, "TELEMETRY_SECONDS", 0)
    owner, _, name = f"lazygraph_vllm.{place}".rpartition(".")
    owned = pkgutil.resolve_name(owner)
    original, calls = getattr(owned, name), []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise error("a test")
        return original(*args, **kwargs)

    patch.setattr(owned, name, broken)


@pytest.mark.parametrize("place", PLACES)
def test_steps_go_on(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, place: str
) -> None:
    break_at(monkeypatch, place, PLACES[place], KeyError)
    engine = serving()
    controller.send(SetMode(mode="idle"))
    controller.send(Capture(command=1, graph="FULL:4", when_idle=False))
    engine.core.input_queue.put_nowait(request("first", steps=5))
    problem = controller.wait_for(Problem)
    assert problem.code == "ERR_LAZYGRAPH_INTERNAL" and "KeyError: 'a test'" in problem.message
    assert controller.wait_for(Inventory, where=lambda i: i.phase == "stock").captured
    held = set(engine.runner.lazygraph.state.captured)
    controller.send(Capture(command=2, graph="FULL:2", when_idle=False))
    refused = controller.wait_for(Result, where=lambda r: r.command == 2)
    assert refused.reason.startswith("running as stock: gave up after ")
    steps = engine.scheduler.steps
    engine.core.input_queue.put_nowait(request("second", steps=5))
    engine.scheduler.wait_for_steps(steps + 5)
    stop(engine)
    assert engine.error is None
    assert set(engine.runner.lazygraph.state.captured) == set(engine.agent.state.captured) == held
    assert engine.runner.lazygraph.dispatch.last_served in held
    assert wrong_dispatches(engine.runner, engine.runner.cudagraph_manager.dispatch) == []
    assert len([r for r in caplog.records if "gave up" in r.message and r.exc_info]) == 1


def test_a_start_that_cant_be_booked_serves_with_its_graphs(
    serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    break_at(monkeypatch, "engine.startup.slowest", 1, KeyError)
    engine = serving(connect=False)
    engine.core.input_queue.put_nowait(request("r", steps=5))
    engine.scheduler.wait_for_steps(5)
    stop(engine)
    assert engine.error is None and engine.agent.state.phase == "stopping"
    assert engine.runner.lazygraph.dispatch.last_served in engine.runner.lazygraph.state.captured
    assert ["gave up" in r.message for r in caplog.records if r.exc_info] == [True]


def test_the_loop_ends_as_ever(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, "engine.session.Session.close", 1, KeyError)
    engine = serving()
    stop(engine)
    assert engine.error is None


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["engine.alone.Alone.fill", "rank.steps.StepWatch.begin"])
def test_a_shutdown_is_not_held_up(
    serving: Any, monkeypatch: pytest.MonkeyPatch, place: str, error: type
) -> None:
    break_at(monkeypatch, place, 1, error)
    engine = serving(connect=False)
    engine.core.input_queue.put_nowait(request("r", steps=5))
    engine.thread.join(10)
    assert not engine.thread.is_alive()
