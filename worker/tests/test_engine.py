"""The engine's side of a session: commands between steps, and what it does alone."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fake_controller import FakeController
from fake_engine import GRAPHS, SHAPE, TOPS, Engine, FakeRank, Wire, make_config, make_engine
from lazygraph_vllm.engine import commands as commands_module
from lazygraph_vllm.engine import lockstep
from lazygraph_vllm.engine import session as session_module
from lazygraph_vllm.engine.agent import Agent
from lazygraph_vllm.engine.inbox import LOOK_AGAIN, Command
from lazygraph_vllm.engine.ranks import EndEngineError
from lazygraph_vllm.protocol.messages import (
    COMMANDS_WAITING_MAX,
    Capture,
    Dispatch,
    DispatchRow,
    Drop,
    Dropped,
    Edge,
    Freeze,
    Goodbye,
    Hello,
    Inventory,
    Orders,
    Problem,
    Ready,
    Refuse,
    Result,
    Resync,
    SetMode,
    Start,
    StepCount,
    Telemetry,
    Welcome,
    encode,
)
from lazygraph_vllm.rank.calls import Failure
from lazygraph_vllm.rules import forecast
from lazygraph_vllm.settings import Settings


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "Link", Wire)


def capture(engine: Engine, graph: str, command: int = 1, when_idle: bool = False) -> Result:
    engine.wire.receive(Capture(command=command, graph=graph, when_idle=when_idle))
    engine.turn()
    return engine.wire.last(Result)


def steps(engine: Engine, *shapes: tuple[int, int, int, str], count: int = 1) -> None:
    """Real steps on rank 0, reported as after the next step."""
    engine.ranks[0].steps += [
        StepCount(
            tokens=t, requests=r, uniform=u, served=s, count=count, seconds=0, timed=0,
            context_tokens=0,
        )
        for t, r, u, s in shapes
    ]  # fmt: skip
    engine.work = True
    for _ in range(2):
        engine.agent._steps.due_at = 0
        engine.agent.after_step(engine)  # asks, then collects
    engine.work = False


# ------------------------------------------------------------------ start


def test_the_controllers_first_set_is_captured() -> None:
    engine = make_engine()
    wait = engine.agent.session._start_given.wait

    def answer(timeout: float | None) -> bool:
        inventory = engine.wire.last(Inventory)
        assert (inventory.phase, inventory.graphs) == ("capturing", tuple(GRAPHS))
        engine.wire.receive(Start(graphs=("FULL:4", "PIECEWISE:2")))
        return wait(timeout)

    engine.agent.session._start_given.wait = answer  # type: ignore[method-assign]
    engine.start()
    assert engine.ranks[0].first == ["FULL:4", "PIECEWISE:2"]
    ready = engine.wire.last(Ready)
    assert [c.graph for c in ready.captured] == ["FULL:4", "PIECEWISE:2"]
    assert ready.capture_seconds == 0.5
    assert engine.model_executor.calls[:4] == [
        "describe", "prepare", "compile_or_warm_up_model", "finish_start",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "first"), [("lazy", TOPS), ("idle", TOPS), ("eager", [g.id for g in GRAPHS])]
)
def test_without_an_answer_the_mode_decides_what_comes_first(mode: str, first: list[str]) -> None:
    engine = make_engine(mode)
    engine.start()
    assert engine.ranks[0].first == first


def test_an_unknown_graph_in_start_is_left_out_and_said() -> None:
    engine = make_engine()
    engine.agent.session._start_given.wait = lambda _: (  # type: ignore[method-assign]
        engine.wire.receive(Start(graphs=("FULL:9", "FULL:4"))) or True
    )
    engine.start()
    assert engine.ranks[0].first == ["FULL:4"]
    problem = engine.wire.last(Problem)
    assert problem.code == "ERR_LAZYGRAPH_UNKNOWN_GRAPH" and "FULL:9" in problem.message


def test_the_mode_of_the_welcome_counts_from_before_the_first_capture() -> None:
    engine = make_engine("idle")
    welcome = Welcome(version=1, incarnation=1, heartbeat_ms=100, mode="eager")
    engine.agent.session._start_given.wait = lambda _: (  # type: ignore[method-assign]
        engine.wire.receive(welcome) or False
    )
    engine.start()
    assert engine.ranks[0].first == [g.id for g in GRAPHS]
    assert engine.wire.hello["mode"] == "eager"


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_an_unreachable_controller_costs_the_bounded_wait_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float
) -> None:
    """A real link to nobody: the wait is asked for once, with the limit, and start goes on."""
    monkeypatch.undo()
    settings = Settings(
        mode="lazy", endpoint=f"ipc://{tmp_path}/nobody", handshake_ms=int(seconds * 1000)
    )
    agent = Agent(settings, make_config(), "0.26.0")
    waited: list[float | None] = []
    wait = agent.session._start_given.wait
    agent.session._start_given.wait = lambda t: waited.append(t) or wait(t)  # type: ignore[method-assign]
    engine = Engine(agent, [FakeRank(0, list(GRAPHS))])
    engine.start()
    assert waited == [seconds]
    assert engine.ranks[0].first == TOPS
    agent.detach()


def test_the_whole_start_over_a_real_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    controller = FakeController(mode="lazy", first=["FULL:2"])
    try:
        settings = Settings(
            mode="idle", endpoint=controller.endpoint, engine="e0", handshake_ms=60_000
        )
        agent = Agent(settings, make_config(), "0.26.0")
        engine = Engine(agent, [FakeRank(i, list(GRAPHS)) for i in range(2)]).start()
        hello = controller.wait_for(Hello)
        assert (hello.engine, hello.model, hello.tensor_parallel) == ("e0", "tiny", 2)
        assert engine.ranks[1].first == ["FULL:2"]
        ready = controller.wait_for(Ready)
        assert (ready.capture_seconds, len(ready.ranks)) == (1.5, 2), "the slowest rank's"
        assert ready.captured[0].ms == 2.0 and ready.captured[0].bytes == 10
        assert agent.state.mode == "lazy"
        controller.send(Capture(command=1, graph="FULL:4", when_idle=True))
        _, command = engine.input_queue.get(timeout=60)
        agent.execute(engine, command)
        assert controller.wait_for(Result).outcome == "captured"
        agent.detach()
        assert controller.wait_for(Goodbye)
    finally:
        controller.close()


def test_ranks_with_different_plans_run_as_stock() -> None:
    engine = make_engine(ranks=2)
    engine.ranks[1].graphs = engine.ranks[1].graphs[1:]
    engine.start()
    assert engine.agent.state.unsupported == "the ranks would capture different graphs"
    assert engine.model_executor.calls == ["describe"]
    assert engine.wire.last(Inventory).phase == "stock"


@pytest.mark.parametrize("most", [0, 1])
def test_the_stage_with_most_layers_decides_what_fits(most: int) -> None:
    """Whichever it is: all of them capture the same."""
    engine = make_engine(ranks=2)
    engine.ranks[most].layers = 5
    engine.start()
    assert engine.wire.last(Inventory).layers == 5
    [graph, *_] = GRAPHS
    own = forecast.need_bytes(graph, (), dataclasses.replace(SHAPE, layers=5))
    assert engine.agent.state.room.growth_bytes(graph.id, GRAPHS, ()) == own
    assert own > forecast.need_bytes(graph, (), SHAPE), "positive control"


def test_a_rank_that_is_not_supported_makes_the_engine_stock() -> None:
    engine = make_engine(ranks=2)
    engine.ranks[1].unsupported = "not supported: speculative decoding"
    engine.start()
    assert engine.wire.last(Inventory).unsupported == "not supported: speculative decoding"
    assert capture(engine, "FULL:4").reason == (
        "running as stock: not supported: speculative decoding"
    )


def test_alone_the_ladder_comes_beside_the_tops_as_far_as_stocks_seconds_go() -> None:
    engine = make_engine("idle", endpoint=None, ranks=2).start()
    assert [(r.first, r.budget_seconds) for r in engine.ranks] == [(TOPS, None)] * 2
    assert [g for g in engine.ranks[0].more if g not in TOPS] == ["FULL:4", "FULL:2", "FULL:1"]
    eager = make_engine("eager", endpoint=None).start()
    assert eager.ranks[0].more == ()


def test_a_controllers_budget_is_for_what_it_wants_besides() -> None:
    start = Start(graphs=("PIECEWISE:8", "FULL:8"), more=("FULL:2", "PIECEWISE:2"), budget_ms=250)
    engine = started_with(make_engine("idle"), start)
    [rank] = engine.ranks
    assert (rank.first, rank.more) == (["PIECEWISE:8", "FULL:8"], ("FULL:2", "PIECEWISE:2"))
    assert rank.budget_seconds == 0.25
    ready = engine.wire.last(Ready)
    assert (ready.warm_up_seconds, ready.skipped) == (0.125, None)
    without = started_with(make_engine("idle"), Start(graphs=("FULL:2",), more=("FULL:1",)))
    assert (without.ranks[0].more, without.ranks[0].budget_seconds) == (("FULL:1",), None)
    none = started_with(make_engine("idle"), Start(graphs=("FULL:2", "FULL:8")))
    assert (none.ranks[0].first, none.ranks[0].more) == (["FULL:2", "FULL:8"], ())


def test_what_a_rank_lacks_is_found_before_anything_is_changed() -> None:
    engine = make_engine(ranks=2)
    engine.ranks[1].missing = "this vLLM lacks cudagraph_utils.tqdm"
    engine.start(sizing=True)
    assert engine.agent.state.unsupported == "this vLLM lacks cudagraph_utils.tqdm"
    assert engine.model_executor.calls == ["identify", "determine_available_memory"]
    assert engine.wire.last(Inventory).phase == "stock"


@pytest.mark.parametrize("choice", ["run", "stock"])
def test_a_gpu_that_was_not_tried(choice: Any, caplog: Any) -> None:
    settings = Settings(mode="idle", endpoint="ipc://x", other_gpus=choice)
    ranks = [FakeRank(0, list(GRAPHS))]
    ranks[0].gpu = "NVIDIA GB10"
    engine = Engine(Agent(settings, make_config(), "0.26.0"), ranks).start(sizing=True)
    assert (engine.agent.state.unsupported is not None) == (choice == "stock")
    told = [r.getMessage() for r in caplog.records if "NVIDIA GB10" in r.getMessage()]
    assert len(told) == 1 and "LAZYGRAPH_OTHER_GPUS=stock" in told[0]


def test_captures_past_our_hooks_leave_the_engine_to_vllm(caplog: Any) -> None:
    engine = make_engine(ranks=2)
    for rank in engine.ranks:
        rank.missed = "vLLM captured its graphs without asking us"
    engine.start()
    assert [rank.aside for rank in engine.ranks] == [True, True]
    assert engine.agent.state.phase == "stock"
    assert "running as stock: vLLM captured its graphs without asking us" in caplog.text
    engine.turn()
    assert capture(engine, "FULL:4").outcome == "refused"


def test_a_warm_up_that_never_came_to_us_leaves_the_engine_to_vllm(caplog: Any) -> None:
    """The hooks exist, and nobody calls them: the engine serves, and we touch nothing."""
    engine = make_engine(ranks=2)
    engine.agent.begin()
    engine.agent.attach(engine, None)
    assert engine.agent.state.phase == "stock"
    assert caplog.text.count("running as stock: vLLM warmed up without calling our hooks") == 1
    engine.agent.on_idle(engine)
    engine.agent.after_step(engine)
    assert engine.model_executor.calls == []


def test_ranks_that_disagree_after_start_end_the_engine() -> None:
    engine = make_engine(ranks=2)
    engine.ranks[1].forked = "x"
    with pytest.raises(RuntimeError, match="ranks hold different graphs after start"):
        engine.start()


def test_a_graph_that_failed_its_check_at_start_is_dropped_everywhere() -> None:
    engine = make_engine(ranks=2)
    engine.ranks[1].mismatch = {TOPS[0]: 0.5}
    engine.start()
    assert [c.graph for c in engine.wire.last(Ready).captured] == TOPS[1:]
    assert engine.ranks[0].captured.keys() == engine.ranks[1].captured.keys() == {TOPS[1]}
    assert engine.wire.last(Ready).epoch == engine.ranks[0].epoch
    assert "its replay differs" in capture(engine, TOPS[0]).reason


# ------------------------------------------------------------------ captures


def test_a_capture_is_booked_with_the_slowest_and_largest_rank() -> None:
    engine = make_engine(ranks=2).start()
    result = capture(engine, "FULL:4", command=3)
    assert (result.command, result.graph, result.outcome) == (3, "FULL:4", "captured")
    assert (result.ms, result.bytes, result.reason) == (2.0, 10, None)
    assert result.stall_ms > 0
    assert result.epoch == engine.ranks[0].epoch == 3
    assert [r.rank for r in result.ranks] == [0, 1]
    assert capture(engine, "FULL:4", command=4).outcome == "already"


def test_a_repeated_command_is_answered_and_not_executed_again() -> None:
    engine = make_engine().start()
    first = capture(engine, "FULL:4", command=3)
    calls = engine.model_executor.calls.count("capture")
    assert capture(engine, "FULL:4", command=3) is first
    assert engine.model_executor.calls.count("capture") == calls
    engine.wire.incarnation = 2  # another controller counts from one again
    assert capture(engine, "FULL:2", command=3).graph == "FULL:2"


def replace_controller(engine: Engine) -> None:
    """Another controller welcomes the engine, and counts its commands from one again."""
    engine.wire.incarnation += 1
    incarnation = engine.wire.incarnation
    engine.wire.receive(
        Welcome(version=1, incarnation=incarnation, heartbeat_ms=100, mode=engine.agent.state.mode)
    )


@pytest.mark.parametrize("early", [False, True], ids=["serving", "before the loop starts"])
def test_captures_and_drops_of_a_replaced_controller_are_not_carried_out(early: bool) -> None:
    engine = make_engine()
    if not early:
        engine.start()
    engine.wire.receive(Capture(command=1, graph="FULL:4", when_idle=False))
    engine.wire.receive(Drop(command=2, graphs=tuple(TOPS)))
    engine.wire.receive(Freeze(reason="enough"))
    replace_controller(engine)
    if early:
        engine.start()
    engine.turn()
    assert not any(isinstance(m, (Result, Dropped)) for m in engine.wire.sent)
    assert engine.captured() == TOPS
    assert engine.agent.state.frozen == "enough", "what has no id holds, as it would if it had run"
    assert engine.agent._inbox._waiting == 0
    engine.wire.receive(SetMode(mode="lazy"))
    result = capture(engine, "FULL:1", command=1)
    assert (result.command, result.graph, result.outcome) == (1, "FULL:1", "captured")


def test_the_answer_to_a_controller_replaced_during_the_capture_is_no_answer_to_the_new() -> None:
    engine = make_engine().start()
    take = engine.ranks[0].take

    def take_long(name: str) -> Any:
        replace_controller(engine)
        engine.ranks[0].take = take  # type: ignore[method-assign]
        return take(name)

    engine.ranks[0].take = take_long  # type: ignore[method-assign]
    engine.wire.receive(Capture(command=1, graph="FULL:4", when_idle=False))
    engine.turn()
    assert not any(isinstance(m, Result) for m in engine.wire.sent)
    inventory = engine.wire.sent[-1]
    assert isinstance(inventory, Inventory) and "FULL:4" in {c.graph for c in inventory.captured}
    result = capture(engine, "FULL:1", command=1)
    assert (result.command, result.graph, result.outcome) == (1, "FULL:1", "captured")


def test_the_answers_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "RESULTS_KEPT", 2)
    engine = make_engine().start()
    for command in range(5):
        capture(engine, "FULL:4", command=command)
    assert [key[1] for key in engine.agent._commands._results] == [3, 4]


def test_busy_defers_only_what_waits_for_idle() -> None:
    engine = make_engine().start()
    engine.work = True
    assert capture(engine, "FULL:4", 1, when_idle=True).outcome == "deferred"
    assert engine.wire.last(Result).reason == "the engine is busy"
    assert capture(engine, "FULL:4", 2, when_idle=False).outcome == "captured"


def test_a_deferred_command_may_be_sent_again() -> None:
    engine = make_engine().start()
    engine.work = True
    assert capture(engine, "FULL:4", 1, when_idle=True).outcome == "deferred"
    engine.work = False
    assert capture(engine, "FULL:4", 1, when_idle=True).outcome == "captured"


def test_while_requests_run_one_capture_between_two_steps() -> None:
    engine = make_engine().start()
    engine.work = True
    for command, graph in enumerate(("FULL:4", "FULL:2"), 1):
        engine.wire.receive(Capture(command=command, graph=graph, when_idle=False))
    engine.turn()
    outcomes = {m.command: m.outcome for m in engine.wire.sent if isinstance(m, Result)}
    assert outcomes == {1: "captured", 2: "deferred"}
    engine.agent.after_step(engine)
    assert capture(engine, "FULL:2", 2).outcome == "captured"


def test_a_request_queued_behind_counts_as_busy_and_our_own_commands_do_not() -> None:
    engine = make_engine().start()
    capture_four = Capture(command=1, graph="FULL:4", when_idle=True)
    one = Command(capture_four, incarnation=engine.wire.incarnation)
    engine.agent._inbox._waiting = 2
    engine.input_queue.put(("ADD", object()))
    engine.agent.execute(engine, one)
    assert engine.wire.last(Result).outcome == "deferred"
    engine.input_queue.get()
    engine.input_queue.put(("WAKEUP", Command(Freeze(reason="later"))))
    engine.agent.execute(engine, one)
    assert engine.wire.last(Result).outcome == "captured"


@pytest.mark.parametrize(
    ("trouble", "outcome", "reason"),
    [
        ({"sleeping": True}, "deferred", "the engine sleeps"),
        ({"paused": True}, "deferred", "the scheduler is paused"),
        ({"running": False}, "refused", "the engine is shutting down"),
        ({"frozen": True}, "refused", "frozen: enough"),
        ({"graph": "FULL:3"}, "refused", "unknown graph 'FULL:3'"),
        ({"refuse": "headroom: 1 MiB free"}, "refused", "rank 1: headroom: 1 MiB free"),
        ({"refuse": "copies are begun", "later": True}, "deferred", "rank 1: copies are begun"),
    ],
    ids=["sleeping", "paused", "shutting down", "frozen", "unknown graph", "headroom", "later"],
)
def test_what_defers_and_what_refuses(trouble: dict[str, Any], outcome: str, reason: str) -> None:
    engine = make_engine(ranks=2).start()
    engine.model_executor.is_sleeping = trouble.get("sleeping", False)
    engine.paused = trouble.get("paused", False)
    engine.running = trouble.get("running", True)
    engine.ranks[1].refuse = trouble.get("refuse")
    engine.ranks[1].later = trouble.get("later", False)
    if trouble.get("frozen"):
        engine.wire.receive(Freeze(reason="enough"))
    result = capture(engine, trouble.get("graph", "FULL:4"))
    assert (result.outcome, result.reason) == (outcome, reason)
    assert "capture" not in engine.model_executor.calls
    assert (result.ms, result.bytes) == (0, 0)


def test_a_change_of_mode_ends_a_freeze_and_the_same_mode_again_does_not() -> None:
    engine = make_engine("idle").start()
    engine.wire.receive(Freeze(reason="enough"))
    engine.wire.receive(Welcome(version=1, incarnation=1, heartbeat_ms=100, mode="idle"))
    assert capture(engine, "FULL:4", 1).reason == "frozen: enough"
    engine.wire.receive(SetMode(mode="lazy"))
    assert capture(engine, "FULL:4", 2).outcome == "captured"
    assert engine.agent.state.mode == engine.wire.hello["mode"] == "lazy"


def test_a_returning_controllers_mode_is_taken_between_steps() -> None:
    engine = make_engine("idle").start()
    engine.wire.receive(Welcome(version=1, incarnation=2, heartbeat_ms=100, mode="eager"))
    assert engine.agent.state.mode == "idle", "on the link's thread nothing changes"
    engine.turn()
    assert engine.agent.state.mode == "eager"


def test_the_step_in_flight_is_waited_for_before_a_capture() -> None:
    engine = make_engine().start()
    future: Future[Any] = Future()
    waited: list[str] = []
    future.result = lambda timeout=None: waited.append(  # type: ignore[method-assign]
        engine.model_executor.calls[-1]
    )
    engine.batch_queue.append((future, None, None))
    capture(engine, "FULL:4")
    assert len(waited) == 1 and waited[0] not in ("preflight", "capture")


def test_an_error_of_the_step_in_flight_is_left_to_the_engine() -> None:
    engine = make_engine().start()
    future: Future[Any] = Future()
    future.set_exception(RuntimeError("the step failed"))
    engine.batch_queue.append((future, None, None))
    assert capture(engine, "FULL:4").outcome == "captured"


# ------------------------------------------------------------------ failures


def test_one_rank_survives_a_failed_capture() -> None:
    engine = make_engine().start()
    engine.ranks[0].fail = {"FULL:4"}
    result = capture(engine, "FULL:4", 1)
    assert (result.outcome, result.reason) == ("failed", "RuntimeError: broken")
    assert capture(engine, "FULL:4", 2).outcome == "refused"
    assert capture(engine, "FULL:2", 3).outcome == "captured"


def test_a_failure_on_one_of_two_ranks_ends_the_engine_with_a_reason() -> None:
    engine = make_engine(ranks=2).start()
    engine.ranks[1].fail = {"FULL:4"}
    with pytest.raises(RuntimeError, match="FULL:4 failed on 1 of 2 ranks .*broken.* ending"):
        capture(engine, "FULL:4")


def test_the_reason_is_that_of_the_rank_that_failed_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = make_engine(ranks=2).start()
    engine.ranks[1].fail = {"FULL:4"}
    gave_up = {"error": "RankFailedError: another rank failed", "short": False, "another": True}
    monkeypatch.setattr(engine.ranks[0], "capture", lambda _: gave_up)
    with pytest.raises(RuntimeError, match=r"failed on 1 of 2 ranks \(RuntimeError: broken\)"):
        capture(engine, "FULL:4")


def test_ranks_that_disagree_before_a_capture_end_the_engine() -> None:
    engine = make_engine(ranks=2).start()
    engine.ranks[1].forked = "x"
    with pytest.raises(RuntimeError, match="the ranks hold different graphs"):
        capture(engine, "FULL:4")
    assert "capture" not in engine.model_executor.calls


def test_ranks_that_disagree_after_a_capture_end_the_engine() -> None:
    engine = make_engine(ranks=2).start()
    take = engine.ranks[1].take

    def diverge(name: str) -> Any:
        engine.ranks[1].forked = "x"
        return take(name)

    engine.ranks[1].take = diverge  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="disagree after capturing FULL:4"):
        capture(engine, "FULL:4")


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_a_graph_that_fails_its_check_is_purged_on_all_ranks(difference: float) -> None:
    engine = make_engine(ranks=2).start()
    engine.ranks[1].mismatch = {"FULL:4": difference}
    result = capture(engine, "FULL:4", 1)
    assert result.outcome == "failed" and "differs from an ungraphed run" in result.reason
    assert all("FULL:4" not in r.captured for r in engine.ranks)
    assert result.epoch == engine.ranks[0].epoch
    assert capture(engine, "FULL:4", 2).outcome == "refused"


# ------------------------------------------------------------------ other commands


def test_the_commands_waiting_are_bounded() -> None:
    engine = make_engine().start()
    for command in range(COMMANDS_WAITING_MAX + 2):
        engine.wire.receive(Capture(command=command, graph="FULL:4", when_idle=True))
    problems = [m for m in engine.wire.sent if isinstance(m, Problem)]
    assert [p.code for p in problems] == ["ERR_LAZYGRAPH_BUSY"] * 2
    assert engine.turn() == COMMANDS_WAITING_MAX
    assert capture(engine, "FULL:2", 1000).outcome == "captured", "there is room again"


def test_commands_before_the_loop_starts_keep_their_order_and_their_bound() -> None:
    engine = make_engine()
    rpc = engine.model_executor.collective_rpc
    engine.agent.before_capture(rpc)
    rpc("compile_or_warm_up_model")
    engine.agent.after_capture(rpc)
    engine.wire.receive(SetMode(mode="lazy"))
    for command in range(COMMANDS_WAITING_MAX):
        engine.wire.receive(Capture(command=command, graph="FULL:4", when_idle=True))
    assert engine.wire.last(Problem).code == "ERR_LAZYGRAPH_BUSY"
    engine.agent.attach(engine, "WAKEUP")
    queued = [command.message for _, command in engine.input_queue.queue]
    assert queued[0] == SetMode(mode="lazy")
    assert [m.command for m in queued[1:]] == list(range(COMMANDS_WAITING_MAX - 1))


def table(*graphs: str) -> Dispatch:
    return Dispatch(uniform=(DispatchRow(up_to=8, graphs=graphs),), mixed=())


def test_a_table_goes_to_all_ranks_and_a_bad_one_leaves_the_old() -> None:
    engine = make_engine(ranks=2).start()
    engine.wire.receive(table("FULL:8"))
    engine.turn()
    assert [r.table for r in engine.ranks] == [table("FULL:8")] * 2
    engine.wire.receive(table("FULL:8", "FULL:1"))
    engine.turn()
    assert [r.table for r in engine.ranks] == [table("FULL:8")] * 2
    problem = engine.wire.last(Problem)
    assert problem.code == "ERR_LAZYGRAPH_UNKNOWN_GRAPH" and "'FULL:1'" in problem.message


def test_resync_is_answered_with_everything_there_is() -> None:
    engine = make_engine().start()
    capture(engine, "FULL:4")
    engine.wire.receive(Resync())
    inventory = engine.wire.last(Inventory)
    assert inventory.phase == "serving"
    assert {c.graph for c in inventory.captured} == {*TOPS, "FULL:4"}
    assert inventory.epoch == 3 and inventory.graphs == tuple(GRAPHS)
    assert (inventory.kv_cache_tokens, inventory.max_requests, inventory.layers) == (160, 8, 2)


def test_edges_and_demand_are_reported() -> None:
    engine = make_engine().start()
    assert engine.wire.last(Edge).state == "idle"
    engine.work = True
    engine.turn()
    assert engine.wire.last(Edge) == Edge(state="busy", running=1, waiting=0)
    steps(engine, (3, 3, 1, "FULL:8"), (5, 2, 0, ""))
    telemetry = engine.wire.last(Telemetry)
    assert telemetry.sequence == 1
    assert [(s.tokens, s.served) for s in telemetry.steps] == [(3, "FULL:8"), (5, "")]


def test_the_shutdown_is_no_busy_edge() -> None:
    engine = make_engine().start()
    edges = sum(isinstance(m, Edge) for m in engine.wire.sent)
    engine.turn()
    assert sum(isinstance(m, Edge) for m in engine.wire.sent) == edges


def test_the_end_is_said() -> None:
    engine = make_engine().start()
    engine.agent.detach()
    assert engine.wire.closed == "the engine shut down"
    assert engine.agent.state.phase == "stopping"


# ------------------------------------------------------------------ alone


def test_idle_alone_fills_small_decode_graphs_first_while_idle() -> None:
    engine = make_engine("idle", endpoint=None).start()
    assert engine.captured() == [
        "PIECEWISE:8", "FULL:8", "FULL:4", "FULL:2", "FULL:1", "PIECEWISE:2", "PIECEWISE:4",
        "PIECEWISE:1",
    ]  # fmt: skip


def test_idle_alone_stops_as_soon_as_there_is_work_and_goes_on_after() -> None:
    engine = make_engine("idle", endpoint=None)
    engine.work = True
    engine.start()
    assert engine.captured() == TOPS
    engine.work = False
    engine.agent.on_idle(engine)
    engine.turn(commands_max=1)
    engine.work = True
    engine.turn()
    assert engine.captured() == [*TOPS, "FULL:4"]
    engine.work = False
    engine.turn()
    assert len(engine.captured()) == len(GRAPHS)


def test_lazy_alone_captures_only_what_traffic_missed() -> None:
    engine = make_engine("lazy", endpoint=None).start()
    assert engine.captured() == TOPS
    steps(engine, (2, 2, 1, ""), count=3)
    steps(engine, (4, 2, 0, ""), count=2)  # not often enough
    steps(engine, (1, 1, 1, "FULL:8"), count=50)  # padded, but served
    steps(engine, (100, 1, 100, ""), count=50)  # beyond every graph
    engine.turn()
    assert engine.captured() == [*TOPS, "FULL:2"]
    steps(engine, (3, 2, 0, ""), count=1)
    engine.turn()
    assert engine.captured() == [*TOPS, "FULL:2", "PIECEWISE:4"]


def test_eager_alone_has_nothing_to_fill() -> None:
    engine = make_engine("eager", endpoint=None).start()
    assert engine.model_executor.calls.count("capture") == 0
    assert len(engine.captured()) == len(GRAPHS)


def test_a_frozen_engine_stays_as_it_is_alone() -> None:
    engine = make_engine("idle").start()
    engine.wire.receive(Freeze(reason="enough"))
    engine.turn()
    engine.wire.lost_since = time.monotonic() - 100
    engine.wire.tick()
    engine.turn()
    assert engine.captured() == TOPS


@pytest.mark.parametrize(("gone", "filled"), [(59.0, True), (61.0, False)])
def test_the_time_for_captures_ends_without_a_controller_too(gone: float, filled: bool) -> None:
    engine = make_engine("idle").start()
    orders = Orders(settle_within_seconds=60)
    engine.wire.receive(SetMode(mode="idle", orders=orders, settling_seconds=gone))
    engine.turn()
    lose_controller(engine)
    assert (len(engine.captured()) == len(GRAPHS)) is filled
    assert engine.agent.session.inventory().settling_seconds == pytest.approx(gone, abs=30)


def test_orders_are_kept_until_others_come_and_told_with_the_next_hello() -> None:
    engine = make_engine("idle").start()
    assert "orders" not in engine.wire.hello
    ordered = Orders(mode="lazy", frozen="enough", pin=("8",), graphs_max=3)
    engine.wire.receive(Freeze(reason="enough", orders=ordered))
    engine.turn()
    assert engine.agent.session.inventory().frozen == "enough"
    # One that says nothing of orders, as an older controller, leaves them.
    welcome = Welcome(version=2, incarnation=2, heartbeat_ms=1000, mode="idle")
    engine.wire.receive(welcome)
    engine.turn()
    assert engine.wire.hello["orders"] == ordered
    assert engine.agent.session.inventory().frozen == "enough"
    engine.wire.receive(replace(welcome, orders=Orders()))
    assert engine.wire.hello["orders"] == Orders()


def lose_controller(engine: Engine) -> None:
    engine.wire.lost_since = time.monotonic() - 2 * session_module.ALONE_SECONDS
    for _ in range(3):
        engine.wire.tick()
        engine.turn()


def started_with(engine: Engine, start: Start) -> Engine:
    engine.agent.session._start_given.wait = lambda _: (  # type: ignore[method-assign]
        engine.wire.receive(start) or True
    )
    return engine.start()


FULL = tuple(g.id for g in GRAPHS if g.kind == "FULL")


@pytest.mark.parametrize("mode", ["idle", "lazy"])
def test_what_the_user_excluded_is_not_captured_alone_either(mode: str) -> None:
    engine = started_with(make_engine(mode), Start(graphs=("PIECEWISE:8",), exclude=FULL))
    steps(engine, (2, 2, 1, ""), (4, 2, 0, ""), count=3)
    lose_controller(engine)
    wanted = {"idle": ["PIECEWISE:4", "PIECEWISE:2", "PIECEWISE:1"], "lazy": ["PIECEWISE:4"]}
    assert engine.captured() == ["PIECEWISE:8", *wanted[mode]]
    engine.wire.lost_since = None
    assert capture(engine, "FULL:8").outcome == "captured", "a controller's word counts"


def test_no_more_graphs_are_captured_alone_than_the_user_allowed() -> None:
    engine = started_with(
        make_engine("idle"), Start(graphs=("PIECEWISE:8", "FULL:8"), graphs_max=3)
    )
    lose_controller(engine)
    assert engine.captured() == ["PIECEWISE:8", "FULL:8", "FULL:4"]


def test_a_start_that_comes_too_late_still_says_what_the_user_excluded() -> None:
    engine = make_engine("idle").start()
    engine.wire.receive(Start(graphs=(), exclude=FULL))
    lose_controller(engine)
    assert engine.captured() == [*TOPS, "PIECEWISE:2", "PIECEWISE:4", "PIECEWISE:1"]


def test_an_unknown_graph_among_the_excluded_is_said() -> None:
    engine = started_with(make_engine(), Start(graphs=("FULL:4",), exclude=("FULL:9",)))
    assert engine.ranks[0].first == ["FULL:4"]
    assert "FULL:9" in engine.wire.last(Problem).message


def test_what_fails_alone_is_not_tried_for_ever() -> None:
    engine = make_engine("idle", endpoint=None)
    engine.ranks[0].fail = {"PIECEWISE:4", "FULL:1"}
    engine.start()
    assert len(engine.captured()) == len(GRAPHS) - 2
    assert engine.model_executor.calls.count("capture") == len(GRAPHS) - len(TOPS)


def test_with_its_controller_an_idle_engine_waits_for_commands() -> None:
    engine = make_engine("idle").start()
    for _ in range(3):
        engine.wire.tick()
        engine.turn()
    assert engine.captured() == TOPS


def test_a_controller_lost_for_a_moment_is_waited_for() -> None:
    engine = make_engine("idle").start()
    engine.wire.lost_since = time.monotonic()
    engine.wire.tick()
    engine.turn()
    assert engine.captured() == TOPS


def test_a_controller_lost_for_good_is_replaced_by_the_rule_and_takes_over_when_back() -> None:
    engine = make_engine("idle").start()
    engine.wire.receive(table("FULL:8"))
    engine.turn()
    engine.wire.lost_since = time.monotonic() - 2 * session_module.ALONE_SECONDS
    engine.wire.tick()
    engine.turn(commands_max=2)  # the look, and one capture
    assert engine.captured() == [*TOPS, "FULL:4"]
    assert engine.ranks[0].table is None, "its table doesn't know the new graph"
    engine.wire.lost_since = None  # it is back while the next local command is queued
    engine.turn()
    assert engine.captured() == [*TOPS, "FULL:4"]
    assert capture(engine, "FULL:1", 1).outcome == "captured"
    engine.wire.receive(table("FULL:8"))
    engine.turn()
    assert engine.ranks[0].table == table("FULL:8")


def test_what_was_refused_alone_may_be_asked_for_by_a_controller() -> None:
    engine = make_engine("idle").start()
    engine.ranks[0].refuse = "headroom: 1 MiB free"
    engine.wire.lost_since = time.monotonic() - 100
    engine.wire.tick()
    engine.turn()
    assert engine.captured() == TOPS
    engine.wire.lost_since = None
    engine.ranks[0].refuse = None
    assert capture(engine, "FULL:4").outcome == "captured"


def test_what_goes_away_by_itself_is_asked_again_without_a_controller() -> None:
    engine = make_engine("idle").start()
    engine.ranks[0].refuse, engine.ranks[0].later = "copies are begun", True
    engine.wire.lost_since = time.monotonic() - 100
    engine.wire.tick()
    engine.turn()
    assert engine.captured() == TOPS
    engine.ranks[0].refuse, engine.ranks[0].later = None, False
    engine.wire.tick()
    engine.turn()
    assert len(engine.captured()) == len(GRAPHS)


def test_local_captures_send_no_results() -> None:
    engine = make_engine("idle").start()
    engine.wire.lost_since = time.monotonic() - 100
    engine.wire.tick()
    engine.turn()
    assert len(engine.captured()) == len(GRAPHS)
    assert not any(isinstance(m, Result) for m in engine.wire.sent)


def test_at_most_one_local_command_is_queued() -> None:
    engine = make_engine("idle").start()
    engine.wire.lost_since = time.monotonic() - 100
    engine.agent.on_idle(engine)
    for _ in range(5):
        engine.wire.tick()
        engine.agent.on_idle(engine)
    messages = [command.message for _, command in engine.input_queue.queue]
    assert len(messages) == 1 and LOOK_AGAIN not in messages


def test_a_refusal_ends_the_wait_for_a_first_set(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine("idle")
    session = engine.agent.session
    session._settings = dataclasses.replace(session._settings, handshake_ms=60_000)
    engine.wire.receive(Refuse(code="ERR_LAZYGRAPH_PROTOCOL_VERSION", message="upgrade"))
    engine.start()  # would take a minute if it waited
    assert engine.captured() == TOPS


def test_engines_of_dense_data_parallelism_have_names_of_their_own() -> None:
    def name(index: int) -> str:
        config = make_config()
        config.parallel_config.data_parallel_index = index
        settings = Settings(mode="idle", endpoint="ipc://x", engine="replica")
        return Agent(settings, config, "0.26.0").session.hello("0.26.0").engine

    assert [name(0), name(1), name(2)] == ["replica", "replica#1", "replica#2"]


def test_a_model_whose_path_is_no_utf_8_has_a_name_that_can_be_sent() -> None:
    config = make_config()
    config.model_config.served_model_name = "/models/\udcff"
    hello = Agent(Settings(mode="idle", endpoint="ipc://x"), config, "0.26.0").session.hello("0.26")
    assert hello.model == "/models/?" and encode(hello)


def test_names_and_texts_are_cut_to_what_a_controller_takes() -> None:
    config = make_config()
    config.model_config.served_model_name = "🚀" * 128
    hello = Agent(Settings(mode="idle", endpoint="ipc://x"), config, "0.26.0").session.hello("0.26")
    assert 127 <= len(hello.engine.encode("utf-16-le")) / 2 <= 128
    engine = make_engine().start()
    engine.agent.session.problem("ERR_A_TEST", "🚀" * 2048)
    assert engine.wire.last(Problem).message == "🚀" * 1024


# ------------------------------------------------------------------ what ends it, what doesn't

HELD = Capture(command=1, graph="FULL:4", when_idle=True, need_bytes=64)


def fail(*_: Any) -> Any:
    raise KeyError("a test")


@pytest.mark.parametrize("call", ["drain_steps", "preflight"])
def test_a_rank_that_cannot_answer_leaves_all_ranks_as_they_are(call: str) -> None:
    engine = make_engine(ranks=2).start()
    setattr(engine.ranks[1], call, lambda *_: Failure("a test"))
    engine.agent.state.idle = False
    engine.wire.receive(HELD)
    engine.turn()
    assert "rank 1: a test" in engine.wire.last(Problem).message
    assert "gave up after" in str(capture(engine, "FULL:2", 2).reason)
    assert engine.captured() == TOPS and engine.ranks[0].holding == 0


@pytest.mark.parametrize(("ranks", "verify"), [(1, False), (1, True), (2, False)])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("capture", HELD),
        ("drop", Drop(command=1, graphs=("FULL:8",))),
        ("set_table", Dispatch(uniform=(), mixed=())),
        ("drain_steps", Freeze(reason="")),
        ("slowest", HELD),  # by which a capture is booked
    ],
)
def test_half_a_change_ends_an_engine_of_several_ranks_or_with_checks(
    call: str, message: Any, ranks: int, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(ranks=ranks, verify=verify).start()
    engine.agent.state.room.tiers = (("FULL:8",),)
    monkeypatch.setattr(lockstep if call == "slowest" else engine.ranks[-1], call, fail)
    engine.agent.state.idle = False
    engine.wire.receive(message)
    if ranks > 1 or verify:
        with pytest.raises(EndEngineError, match="KeyError"):
            engine.turn()
        return
    engine.turn()
    assert "gave up after KeyError: 'a test'; the" in engine.wire.last(Problem).message


def test_alone_it_gives_up_though_nobody_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(endpoint=None)
    with monkeypatch.context() as broken:
        broken.setattr(engine.agent.session, "problem", fail)
        broken.setattr(engine.agent._alone, "taken", fail)
        engine.start()
    engine.agent._alone._asked = False
    engine.turn()
    assert engine.captured() == TOPS


def test_an_engine_that_cannot_connect_starts_as_one_without_a_controller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = Agent(Settings(mode="idle", endpoint="ipc://x"), make_config(), "0.26.0")
    monkeypatch.setattr(agent.session, "connect", fail)
    agent.begin()
    assert agent.state.unsupported is None and agent.state.phase == "loading"
