"""Memory at the engine: reservations, refusals that may be asked again, tiers, what is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from fake_engine import GRAPHS, MIB, SHAPE, TOPS, Engine, Wire, make_engine
from lazygraph_vllm.engine import headroom as headroom_module
from lazygraph_vllm.engine import session as session_module
from lazygraph_vllm.protocol.messages import (
    Capture,
    Drop,
    Dropped,
    Freeze,
    Inventory,
    Problem,
    RankMemory,
    Ready,
    Result,
    Resync,
    Start,
    Welcome,
)
from lazygraph_vllm.rules.forecast import forecast_bytes, with_safety
from lazygraph_vllm.settings import Settings

TIERS = (("FULL:8", "PIECEWISE:8"), ("FULL:2", "FULL:1"))


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "Link", Wire)


def ask(engine: Engine, graph: str, need: int | None = None, command: int = 1) -> Result:
    message = Capture(command=command, graph=graph, when_idle=False, need_bytes=need)
    engine.wire.receive(message)
    engine.turn()
    return engine.wire.last(Result)


def drop(engine: Engine, *graphs: str, command: int = 9) -> Dropped:
    engine.wire.receive(Drop(command=command, graphs=graphs))
    engine.turn()
    return engine.wire.last(Dropped)


def started(
    first: tuple[str, ...] = (), tiers: Any = TIERS, ranks: int = 1, **welcome: Any
) -> Engine:
    """An engine whose controller gave its first set."""
    engine = make_engine(ranks=ranks)
    wait = engine.agent.session._start_given.wait

    def answer(timeout: float | None) -> bool:
        engine.wire.receive(Start(graphs=first, tiers=tiers))
        return wait(timeout)

    engine.agent.session._start_given.wait = answer  # type: ignore[method-assign]
    engine.wire.receive(Welcome(version=1, incarnation=1, heartbeat_ms=100, mode="idle", **welcome))
    return engine.start(sizing=True)


# ------------------------------------------------------------------ reserve


def calls(engine: Engine) -> list[str]:
    return engine.model_executor.calls[: engine.model_executor.calls.index("describe")]


@pytest.mark.parametrize("why", ["enough is free", "a rank can't", "vLLM did not ask", "none"])
def test_by_default_nothing_is_kept_back_and_nobody_is_troubled(why: str, caplog: Any) -> None:
    caplog.set_level("INFO", "vllm.lazygraph")
    engine = make_engine(ranks=2)
    engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle"))
    for rank in engine.ranks:
        rank.reservation |= {"bytes": 0, "serving_bytes": 0, "kv_tokens": 0}
    if why == "a rank can't":
        engine.ranks[1].no_reservation = "no forecast"
    if why == "vLLM did not ask":
        engine.ranks[1].taken = False
    if why == "none":
        engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle", reserve="none"))
    engine.start(sizing=True)
    # Also with nothing to keep: vLLM must not find the number out by capturing everything.
    assert "reserve" in calls(engine)
    assert ("reserved" in calls(engine)) == (why in ("enough is free", "vLLM did not ask"))
    inventory = engine.agent.session.inventory()
    assert inventory is not None
    assert (inventory.reserve, inventory.tiers) == (None, None)
    assert (engine.ranks[0].tiers, engine.ranks[0].guard_margin) == ((), None)
    assert "reserve" not in caplog.text


def test_by_default_what_one_rank_lacks_is_told_for_all(caplog: Any) -> None:
    caplog.set_level("INFO", "vllm.lazygraph")
    engine = make_engine(ranks=2)
    engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle"))
    engine.ranks[0].reservation |= {"bytes": 0, "serving_bytes": 0, "kv_tokens": 0}
    engine.start(sizing=True)
    reserved = engine.agent.state.room.reserved
    assert reserved is not None
    assert (reserved.mode, reserved.bytes, reserved.kv_tokens) == ("least", 7, 3)
    assert "reserve=least: 8 graphs have 0 MiB of each GPU" in caplog.text


@pytest.mark.parametrize("by", ["environment", "welcome"])
def test_a_reservation_is_asked_for_told_and_logged(by: str, caplog: Any) -> None:
    caplog.set_level("INFO", "vllm.lazygraph")
    if by == "welcome":
        engine = started(reserve="plan", ranks=2)
    else:
        engine = make_engine(ranks=2)
        engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle", reserve="plan"))
        engine.start(sizing=True)
    assert calls(engine) == ["identify", "reserve", "determine_available_memory", "reserved"]
    inventory = engine.agent.session.inventory()
    assert inventory is not None and inventory.reserve is not None
    assert (inventory.reserve.mode, inventory.reserve.bytes) == ("plan", 7)
    assert (inventory.reserve.kv_tokens, inventory.reserve.serving_bytes) == (3, 5)
    assert "reserve=plan: 8 graphs have 0 MiB of each GPU" in caplog.text
    assert "vLLM's budget, which leaves 9 MiB uncounted: 3 tokens less" in caplog.text


def test_the_welcome_wins_over_the_environment_and_its_bytes_over_the_forecast() -> None:
    engine = make_engine()
    engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle", reserve="top"))
    engine.wire.receive(
        Welcome(
            version=1, incarnation=1, heartbeat_ms=9, mode="idle", reserve="plan", reserve_bytes=99
        )
    )
    engine.start(sizing=True)
    reserved = engine.agent.state.room.reserved
    assert reserved is not None and (reserved.mode, reserved.bytes) == ("plan", 99)
    none = make_engine()
    none.agent.state.room = headroom_module.Headroom(Settings(mode="idle", reserve="top"))
    none.wire.receive(
        Welcome(version=1, incarnation=1, heartbeat_ms=9, mode="idle", reserve="none")
    )
    none.start(sizing=True)
    assert none.agent.state.room.reserved is None and "reserved" not in none.model_executor.calls


def test_a_welcome_after_the_sizing_changes_nothing() -> None:
    engine = started(tiers=None, reserve="none")
    engine.wire.receive(
        Welcome(version=1, incarnation=2, heartbeat_ms=9, mode="idle", reserve="plan")
    )
    engine.turn()
    assert engine.agent.state.room.reserved is None


@pytest.mark.parametrize("late", ["none", "plan"])
def test_a_welcome_during_the_sizing_doesnt_rename_what_was_reserved(late: Any) -> None:
    engine = make_engine()
    engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle"))
    profile = engine.ranks[0].determine_available_memory

    def meanwhile() -> int:
        engine.wire.receive(
            Welcome(version=1, incarnation=1, heartbeat_ms=9, mode="idle", reserve=late)
        )
        return profile()

    engine.ranks[0].determine_available_memory = meanwhile  # type: ignore[method-assign]
    engine.start(sizing=True)
    reserved = engine.agent.state.room.reserved
    assert reserved is not None and reserved.mode == "least", "a plan is what was not reserved"


@pytest.mark.parametrize("why", ["a rank can't", "vLLM did not ask"])
def test_what_keeps_nothing_back_is_not_told_as_reserved(why: str, caplog: Any) -> None:
    engine = make_engine(ranks=2)
    if why == "a rank can't":
        engine.ranks[1].no_reservation = "no forecast"
    else:
        engine.ranks[1].taken = False
    engine.wire.receive(
        Welcome(version=1, incarnation=1, heartbeat_ms=9, mode="idle", reserve="top")
    )
    engine.start(sizing=True)
    assert engine.agent.state.room.reserved is None
    assert "reserve=top keeps nothing back" in caplog.text
    assert not engine.ranks[0].taken or why == "vLLM did not ask", "a rank that could does it not"


def test_what_is_kept_for_serving_alone_is_told_too(caplog: Any) -> None:
    caplog.set_level("INFO", "vllm.lazygraph")
    engine = make_engine()
    engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle"))
    engine.ranks[0].reservation |= {"bytes": 0, "graphs": 0}
    engine.start(sizing=True)
    reserved = engine.agent.state.room.reserved
    assert reserved is not None, "no graph of the plan is small enough for `least`"
    assert (reserved.bytes, reserved.serving_bytes, reserved.kv_tokens) == (0, 5, 3)
    assert "reserve=least: 0 graphs" in caplog.text


def test_an_engine_that_runs_as_stock_reserves_nothing() -> None:
    engine = make_engine()
    engine.agent.state.room = headroom_module.Headroom(Settings(mode="idle", reserve="plan"))
    engine.agent.step_aside("a test")
    engine.start(sizing=True)
    assert engine.model_executor.calls == ["determine_available_memory"]


# ------------------------------------------------------------------ before ready


def test_with_plenty_of_memory_nothing_is_checked_before_ready() -> None:
    engine = make_engine("eager").start()
    assert (engine.ranks[0].first, engine.ranks[0].guard_margin) == (
        [g.id for g in GRAPHS],
        None,
    )


def test_a_tight_first_set_of_our_own_leaves_the_largest_sizes_out(caplog: Any) -> None:
    engine = make_engine("eager", ranks=2)
    small = [g for g in GRAPHS if g.tokens <= 4]
    room = with_safety(forecast_bytes([small], SHAPE))
    assert room < with_safety(forecast_bytes([GRAPHS], SHAPE)), "the largest size needs more"
    engine.ranks[1].free, engine.ranks[1].peak = room + (256 + 20) * MIB, 20 * MIB
    engine.start()
    assert engine.ranks[0].first == engine.ranks[1].first
    assert engine.ranks[0].first == [g.id for g in small]
    assert engine.ranks[0].guard_margin == 256 * MIB, "what serving may take beyond its peak"
    assert "don't fit before ready and are left out" in caplog.text
    assert "each is checked first" in caplog.text


def test_a_tight_first_set_of_the_controllers_is_checked_graph_by_graph() -> None:
    engine = make_engine()
    engine.ranks[0].free = 40 * MIB
    engine.ranks[0].refused = {"FULL:8": "9 MiB more than there are"}
    engine.agent.session._start_given.wait = lambda _: (  # type: ignore[method-assign]
        engine.wire.receive(Start(graphs=("FULL:8", "FULL:1"))) or True
    )
    engine.wire.receive(
        Welcome(version=1, incarnation=1, heartbeat_ms=9, mode="idle", margin_bytes=3 * MIB)
    )
    engine.start()
    assert (engine.ranks[0].first, engine.ranks[0].guard_margin) == (["FULL:8", "FULL:1"], 3 * MIB)
    assert [c.graph for c in engine.wire.last(Ready).captured] == ["FULL:1"]


def test_what_was_refused_before_ready_is_said_once_and_may_be_asked_later(caplog: Any) -> None:
    engine = make_engine()
    engine.ranks[0].refused = dict.fromkeys(TOPS, "9 MiB more than there are")
    engine.start()
    assert "2 graphs were not captured before ready for want of memory" in caplog.text
    assert engine.wire.last(Ready).captured == ()
    assert ask(engine, TOPS[0], need=1).outcome == "captured"


# ------------------------------------------------------------------ captures


def test_every_rank_holds_what_was_reserved_until_its_capture_begins() -> None:
    engine = started(ranks=2)
    held: list[int] = []
    for one in engine.ranks:
        take = one.take
        one.take = lambda name, one=one, take=take: held.append(one.holding) or take(name)
    checked = [one.preflight for one in engine.ranks]
    asked: list[Any] = []
    for one, check in zip(engine.ranks, checked, strict=True):
        one.preflight = lambda *a, check=check: asked.append(a) or check(*a)
    assert ask(engine, "FULL:4", need=50).outcome == "captured"
    assert asked == [("FULL:4", 0, 50, 50, 50 + 256 * MIB)] * 2 and held == [0, 0]
    assert "give_back" not in engine.model_executor.calls


def test_the_margin_of_the_welcome_is_part_of_the_headroom() -> None:
    engine = started(margin_bytes=30)
    engine.ranks[0].free, engine.ranks[0].peak = 100, 20
    assert ask(engine, "FULL:4", need=51).refusal == "headroom"
    assert ask(engine, "FULL:4", need=50, command=2).outcome == "captured"


def test_one_rank_without_room_stops_the_capture_on_all_and_it_may_be_asked_again() -> None:
    engine = started(ranks=2)
    engine.ranks[1].free = 10
    result = ask(engine, "FULL:4", need=50)
    assert (result.outcome, result.refusal) == ("refused", "headroom")
    assert result.reason == "rank 1: headroom: 10 free"
    assert [m.free_bytes for m in result.ranks] == [1 << 40, 10], "fresh where it is short"
    assert [one.holding for one in engine.ranks] == [0, 0]
    assert engine.captured() == [] and "capture" not in engine.model_executor.calls
    engine.ranks[1].free = 50
    assert ask(engine, "FULL:4", need=50, command=2).outcome == "captured"


@pytest.mark.parametrize(
    ("trouble", "refusal"), [("frozen", "other"), ("unknown", "other"), ("memory", "headroom")]
)
def test_a_refusal_says_whether_it_may_be_asked_again(trouble: str, refusal: str) -> None:
    engine = started()
    if trouble == "frozen":
        engine.wire.receive(Freeze(reason="enough"))
    if trouble == "memory":
        engine.ranks[0].free = 0
    result = ask(engine, "FULL:3" if trouble == "unknown" else "FULL:4")
    assert (result.outcome, result.refusal) == ("refused", refusal)


def test_other_outcomes_carry_no_refusal() -> None:
    engine = started()
    assert ask(engine, "FULL:4").refusal is None
    assert ask(engine, "FULL:4", command=2).refusal is None


def test_out_of_memory_in_a_capture_is_a_refusal_with_one_rank_and_the_end_with_two() -> None:
    engine = started()
    engine.ranks[0].short = {"FULL:4"}
    result = ask(engine, "FULL:4", need=1)
    assert (result.outcome, result.refusal) == ("refused", "headroom")
    assert result.reason == "headroom: OutOfMemoryError: no"
    engine.ranks[0].short = set()
    assert ask(engine, "FULL:4", need=1, command=2).outcome == "captured"
    several = started(ranks=2)
    several.ranks[1].short = {"FULL:4"}
    with pytest.raises(RuntimeError, match="no rank can go on"):
        ask(several, "FULL:4", need=1)


def test_without_a_reservation_our_own_forecast_of_a_pools_growth_counts() -> None:
    engine = started(tiers=None)
    engine.ranks[0].free = 64 * MIB + 20 * MIB
    assert "headroom" in str(ask(engine, "FULL:8").reason), "a new pool needs more"
    engine.ranks[0].free = 1 << 40
    assert ask(engine, "FULL:8", command=2).outcome == "captured"
    engine.ranks[0].free = 64 * MIB + 20 * MIB
    assert ask(engine, "FULL:4", command=3).outcome == "captured", "a smaller one fits into it"
    apart = headroom_module.Headroom(Settings(mode="idle"))
    shape = headroom_module.forecast.Shape(layers=32, hidden=4096, intermediate=14336)
    apart.planned({"shape": shape}, [], [], None)
    apart.tiers = (("FULL:8",), ("FULL:4",))
    fresh = apart.growth_bytes("FULL:4", GRAPHS, ())
    assert apart.growth_bytes("FULL:4", GRAPHS, {"FULL:8"}) == fresh, "but not from another tier"


def test_alone_a_graph_without_room_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    now = [100.0]
    monkeypatch.setattr(headroom_module.time, "monotonic", lambda: now[0])
    engine = make_engine("idle", endpoint=None)
    engine.ranks[0].peak = 1 << 39
    engine.start()
    tops = set(engine.captured())
    assert tops == {g.id for g in GRAPHS}, "with room everything is filled"
    caplog.clear()
    short = make_engine("idle", endpoint=None)
    short.agent._alone.fill = lambda: None  # type: ignore[method-assign]
    short.start()
    del short.agent._alone.fill
    short.ranks[0].free = 70 * MIB
    short.ranks[0].peak = 20 * MIB
    short.turn()
    asked = short.model_executor.calls.count("preflight")
    assert asked == len(GRAPHS) - len(TOPS), "each once"
    assert caplog.text.count("no memory for") == 1
    short.turn()
    assert short.model_executor.calls.count("preflight") == asked
    short.ranks[0].free = 1 << 40
    now[0] += headroom_module.ALONE_RETRY_SECONDS
    short.turn()
    assert set(short.captured()) == {g.id for g in GRAPHS}


# ------------------------------------------------------------------ tiers


def test_tiers_reach_the_ranks_and_are_told_to_the_next_controller() -> None:
    engine = started(("FULL:8",), tiers=TIERS)
    assert (engine.ranks[0].tiers, engine.ranks[0].guard_margin) == (TIERS, None)
    engine.wire.receive(Resync())
    assert engine.wire.last(Inventory).tiers == TIERS


def test_unknown_graphs_of_a_tier_are_left_out_and_said() -> None:
    engine = started(("FULL:8",), tiers=(("FULL:9",), ("FULL:8", "FULL:10")))
    assert engine.ranks[0].tiers == (("FULL:8",),)
    assert "FULL:9" in engine.wire.last(Problem).message


def test_a_tier_is_dropped_on_all_ranks_and_captured_again() -> None:
    engine = started(("FULL:8", "PIECEWISE:8", "FULL:1"), ranks=2)
    epoch = engine.agent.state.epoch
    answer = drop(engine, "PIECEWISE:8", "FULL:8")
    assert (answer.outcome, answer.reason) == ("dropped", None)
    assert answer.graphs == ("PIECEWISE:8", "FULL:8")
    assert answer.freed_bytes == 99, "the smallest over the ranks"
    assert answer.epoch == engine.agent.state.epoch > epoch
    assert [list(one.captured) for one in engine.ranks] == [["FULL:1"]] * 2
    assert ask(engine, "FULL:8", need=1, command=10).outcome == "captured"
    assert ask(engine, "PIECEWISE:8", need=1, command=11).outcome == "captured"


def test_two_tiers_go_in_one_command() -> None:
    engine = started(("FULL:8", "FULL:1"))
    assert drop(engine, "FULL:1", "FULL:8").outcome == "dropped"
    assert engine.captured() == []


@pytest.mark.parametrize(
    ("graphs", "reason"),
    [
        (("FULL:8",), "PIECEWISE:8 shares the pool of FULL:8 and is not named"),
        (("FULL:4",), "FULL:4 is in no tier, and the default pool stays"),
        (("FULL:2",), "FULL:2 is not captured"),
        (("FULL:7",), "FULL:7 is not captured"),
    ],
)
def test_what_is_no_whole_tier_is_not_dropped(graphs: tuple[str, ...], reason: str) -> None:
    engine = started(("FULL:8", "PIECEWISE:8", "FULL:4"))
    before = engine.captured()
    answer = drop(engine, *graphs)
    assert (answer.outcome, answer.reason) == ("refused", reason)
    assert (answer.graphs, answer.freed_bytes) == ((), 0)
    assert engine.captured() == before and "drop" not in engine.model_executor.calls


def test_a_drop_waits_for_the_step_in_flight_and_works_while_busy_or_frozen() -> None:
    from concurrent.futures import Future

    engine = started(("FULL:8", "PIECEWISE:8"))
    waited: list[str] = []

    class Step(Future):  # type: ignore[type-arg]
        def result(self, timeout: float | None = None) -> None:
            waited.append(engine.model_executor.calls[-1])

    assert engine.batch_queue is not None
    engine.batch_queue.append((Step(), None))
    engine.work = True
    engine.wire.receive(Freeze(reason="settled"))
    assert drop(engine, "FULL:8", "PIECEWISE:8").outcome == "dropped"
    assert waited and "drop" not in waited


@pytest.mark.parametrize("trouble", ["sleeping", "paused"])
def test_a_drop_is_deferred_like_a_capture_and_carried_out_when_asked_again(trouble: str) -> None:
    engine = started(("FULL:8", "PIECEWISE:8"))
    engine.model_executor.is_sleeping = trouble == "sleeping"
    engine.paused = trouble == "paused"
    assert drop(engine, "FULL:8", "PIECEWISE:8").outcome == "deferred"
    engine.model_executor.is_sleeping = engine.paused = False
    assert drop(engine, "FULL:8", "PIECEWISE:8").outcome == "dropped"


def test_a_repeated_drop_is_answered_again_and_not_carried_out_again() -> None:
    engine = started(("FULL:8", "PIECEWISE:8"))
    first = drop(engine, "FULL:8", "PIECEWISE:8")
    assert ask(engine, "FULL:8", need=1, command=10).outcome == "captured"
    assert drop(engine, "FULL:8", "PIECEWISE:8") == first
    assert engine.model_executor.calls.count("drop") == 1
    assert engine.captured() == ["FULL:8"]


def test_ranks_that_disagree_after_a_drop_end_the_engine() -> None:
    engine = started(("FULL:8", "PIECEWISE:8"), ranks=2)
    engine.ranks[1].forked = "other"
    with pytest.raises(RuntimeError, match="disagree after dropping"):
        drop(engine, "FULL:8", "PIECEWISE:8")


def test_an_engine_as_stock_drops_nothing() -> None:
    engine = make_engine()
    engine.agent.step_aside("a test")
    engine.start()
    answer = drop(engine, "FULL:8")
    assert (answer.outcome, answer.reason) == ("refused", "running as stock: a test")


def test_alone_what_serving_may_take_beyond_its_peak_is_left_free() -> None:
    room = headroom_module.Headroom(Settings(mode="idle"))

    def rank(peak: int, reserved: int = 0, pool: int = 0, held: int | None = None) -> RankMemory:
        return RankMemory(
            rank=0, gpu_uuid="", gpu_name="", total_bytes=1 << 40, free_bytes=1 << 39,
            reserved_bytes=reserved, pool_bytes=pool, activation_peak_bytes=peak,
            activation_held_bytes=held,
        )  # fmt: skip

    room.planned({}, [], [rank(800 * MIB, 5400 * MIB, pool=400 * MIB)], None)
    assert room.allowance([rank(10 * MIB)]) == 256 * MIB
    assert room.allowance([rank(1000 * MIB, 5000 * MIB)]) == 600 * MIB
    assert room.allowance([rank(4000 * MIB)]) == 1088 * MIB
    # Serving has taken its peak and 300 MiB beyond it: so much less is to come.
    assert room.allowance([rank(1000 * MIB, 6300 * MIB)]) == 300 * MIB
    assert room.allowance([rank(1000 * MIB, 9000 * MIB)]) == 64 * MIB
    assert room.allowance([rank(1000 * MIB, 6300 * MIB, pool=300 * MIB)]) == 600 * MIB
    assert room.room_bytes([rank(1000 * MIB, held=400 * MIB)], 0) == (1 << 39) - 600 * MIB
    assert room.allowance([rank(10 * MIB), rank(1000 * MIB, 5000 * MIB)]) == 600 * MIB
    room.margin_bytes = 7
    assert room.allowance([rank(800 * MIB)]) == 7


def test_an_emptied_cache_must_leave_serving_its_whole_allowance() -> None:
    room = headroom_module.Headroom(Settings(mode="idle"))

    def rank(peak: int, reserved: int) -> RankMemory:
        return RankMemory(
            rank=0, gpu_uuid="", gpu_name="", total_bytes=1 << 40, free_bytes=1 << 39,
            reserved_bytes=reserved, pool_bytes=0, activation_peak_bytes=peak,
        )  # fmt: skip

    room.planned({}, [], [rank(1000 * MIB, 5000 * MIB)], None)
    ranks = [rank(10 * MIB, 5000 * MIB), rank(1000 * MIB, 6300 * MIB)]
    told = room.preflight_args("FULL:4", 50, 20, ranks, alone=False)
    assert told == ("FULL:4", 0, 50, 50, 50 + 600 * MIB)
    untold = room.preflight_args("FULL:4", None, 20, ranks, alone=False)
    assert untold == ("FULL:4", 64 * MIB + 20, 0, 0, 20 + 600 * MIB)
    alone = room.preflight_args("FULL:4", None, 20, ranks, alone=True)
    assert alone == ("FULL:4", 64 * MIB + 20, 300 * MIB + 20, 0, 20 + 600 * MIB)
    room.margin_bytes = 7
    assert room.preflight_args("FULL:4", 50, 20, ranks, alone=False) == ("FULL:4", 0, 57, 50, 57)
