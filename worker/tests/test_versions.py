"""Pairs of protocol versions over real sockets: the engine's side, against older and newer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_controller import FakeController
from fake_engine import GRAPHS, TOPS, Engine, FakeRank, make_config
from lazygraph_vllm.engine.agent import Agent
from lazygraph_vllm.protocol.messages import (
    Edge,
    Graph,
    Hello,
    Inventory,
    Problem,
    Ready,
    Refuse,
    Welcome,
)
from lazygraph_vllm.settings import Settings
from test_link import eventually

ADAPTED = [*GRAPHS, Graph(id="FULL:8:l2", kind="FULL", tokens=8, requests=8, uniform=1, loras=2)]


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[FakeController, Engine]]]:
    """An engine that has started against a controller of some versions."""
    started: list[tuple[FakeController, Engine]] = []

    def start(versions: tuple[int, int], graphs: list[Graph]) -> tuple[FakeController, Engine]:
        controller = FakeController(first=["FULL:2"], versions=versions)
        settings = Settings(
            mode="idle", endpoint=controller.endpoint, engine="e0", handshake_ms=60_000
        )
        engine = Engine(Agent(settings, make_config(), "0.26.0"), [FakeRank(0, list(graphs))])
        started.append((controller, engine))
        engine.agent.begin()
        # As with a real model: the hand-shake is over before the graphs are known.
        eventually(lambda: engine.wire.established.is_set() or engine.wire.refused is not None)
        rpc = engine.model_executor.collective_rpc
        engine.agent.before_capture(rpc)
        rpc("compile_or_warm_up_model")
        engine.agent.after_capture(rpc)
        engine.agent.attach(engine, "WAKEUP")
        return controller, engine

    yield start
    for controller, engine in started:
        engine.agent.detach()
        controller.close()


@pytest.mark.parametrize(("versions", "spoken"), [((1, 1), 1), ((1, 2), 2), ((2, 5), 2)])
def test_plain_graphs_are_served_by_any_controller_of_a_common_version(
    serve: Any, versions: tuple[int, int], spoken: int
) -> None:
    controller, engine = serve(versions, GRAPHS)
    assert controller.spoken == engine.wire.version == spoken
    assert engine.ranks[0].first == ["FULL:2"], "the controller's, and not the mode's"
    assert controller.wait_for(Ready).captured[0].graph == "FULL:2"
    assert controller.wait_for(Inventory).graphs == tuple(GRAPHS)


@pytest.mark.parametrize("versions", [(1, 2), (2, 2)])
def test_graphs_of_a_case_are_served_by_a_controller_that_knows_them(
    serve: Any, versions: tuple[int, int]
) -> None:
    controller, engine = serve(versions, ADAPTED)
    assert engine.ranks[0].first == ["FULL:2"]
    assert controller.wait_for(Inventory).graphs[-1].loras == 2


def test_a_controller_that_cannot_tell_its_graphs_apart_is_left(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "vllm.lazygraph"):
        controller, engine = serve((1, 1), ADAPTED)
    hellos = [m for m in controller.received if isinstance(m, Hello)]
    assert (hellos[0].version_min, hellos[-1].version_min) == (1, 2)
    assert not any(isinstance(m, Inventory) for m in controller.received)
    # It serves all the same, by its mode's own defaults.
    assert engine.ranks[0].first[:2] == TOPS and engine.captured()
    said = [r.getMessage() for r in caplog.records if r.name == "vllm.lazygraph"]
    assert said == [
        "lazygraph: the controller refused this engine: Expected engine e0 to speak protocol "
        "version 1, got version 2: upgrade lazygraph, the controller. "
        "[ERR_LAZYGRAPH_PROTOCOL_VERSION]; it serves without one"
    ]
    assert engine.wire.established.is_set() is False


def test_a_controller_of_the_future_refuses_and_the_engine_serves(serve: Any) -> None:
    controller, engine = serve((3, 4), GRAPHS)
    assert isinstance(engine.wire.refused, Refuse)
    assert engine.wire.refused.message.endswith("upgrade lazygraph-vllm, the plugin.")
    assert engine.ranks[0].first == TOPS


def test_a_welcome_in_a_version_that_was_not_offered_is_a_problem(serve: Any) -> None:
    controller, engine = serve((1, 2), ADAPTED)
    controller.wait_for(Ready)
    before = len(controller.received)
    controller.send(
        Welcome(version=1, incarnation=controller.incarnation, heartbeat_ms=1000, mode="idle")
    )
    problem = controller.wait_for(Problem, after=before)
    assert problem.message == "expected protocol 2 to 2 in welcome, got 1"
    engine.wire.send(Edge(state="idle", running=0, waiting=0))
    assert controller.wait_for(Edge, after=before), "the session goes on"
