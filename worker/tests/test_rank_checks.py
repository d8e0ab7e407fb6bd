"""How the GPU checks of several ranks ask an engine, and judge what they saw."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import rank_checks

from lazygraph_vllm.protocol.messages import (
    Capture,
    Captured,
    Dropped,
    Inventory,
    Ready,
    Result,
)

STEPS = [[96, "", "a"], [64, "FULL:64", "a"], [4, "FULL:4", "b"], [4, "FULL:8", "c"]]


def noted(ranks: int = 4) -> list[list[list[Any]]]:
    return [copy.deepcopy(STEPS) for _ in range(ranks)]


def test_ranks_that_took_the_same_steps() -> None:
    told = rank_checks.compare(noted())
    assert told == {
        "ranks": 4,
        "steps": 4,
        "held": 3,
        "graphed": 3,
        "differ": 0,
        "first": [],
    }


@pytest.mark.parametrize(
    ("rank", "spoil"),
    [
        (3, lambda steps: steps[2].__setitem__(1, "FULL:8")),
        (1, lambda steps: steps[3].__setitem__(2, "b")),
        (2, lambda steps: steps[0].__setitem__(0, 95)),
        (2, lambda steps: steps.pop()),
        (1, lambda steps: steps.append([1, "", "c"])),
    ],
    ids=["another graph", "another set", "other tokens", "a step less", "a step more"],
)
def test_one_rank_with_one_other_step_is_found(rank: int, spoil: Any) -> None:
    steps = noted()
    spoil(steps[rank])
    assert rank_checks.compare(steps)["differ"] == 1


def test_a_step_less_on_the_first_rank_is_found_too() -> None:
    steps = noted()
    steps[0].pop()
    assert rank_checks.compare(steps)["differ"] == 1


def seen() -> dict[str, dict[str, Any]]:
    """A run in which all is well."""
    graphs = ["FULL:1", "FULL:2", "FULL:4"]
    rank = {"hash": "c", "captured": graphs, "planned": graphs}
    captures = [
        {"graph": name, "outcome": "captured", "ms": 20.0, "stallMs": 30.0, "reason": None}
        for name in graphs
    ]
    ours = {
        "steps": rank_checks.compare(noted()),
        "rounds": 2,
        "captures": captures,
        "dropped": "dropped",
        "recaptured": 3,
        "error": None,
        "ranks": [dict(rank) for _ in range(4)],
        "control": ["c", "c", "c", "d"],
    }
    return {"ours": ours}


def test_the_same_everywhere_is_fine() -> None:
    told = rank_checks.verdict(seen())
    assert told["fine"] is True
    assert (told["captured"], told["recaptured"], told["longestStallMs"]) == (3, 3, 30.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", rank_checks.compare([STEPS, STEPS[:-1]])),
        ("steps", {**rank_checks.compare(noted()), "graphed": 0}),
        ("steps", {**rank_checks.compare(noted()), "held": 1}),
        ("dropped", "the engine sleeps"),
        ("dropped", None),
        ("recaptured", 0),
        ("error", "TimeoutError: …"),
        ("control", ["c"] * 4),
        ("ranks", [{"hash": "c", "captured": ["FULL:1"], "planned": ["FULL:1"]}]),
        ("ranks", [{"hash": h, "captured": ["FULL:1"], "planned": ["FULL:1"]} for h in "cd"]),
        ("ranks", [{"hash": "c", "captured": [], "planned": ["FULL:1"]}] * 2),
        ("captures", [{"graph": "FULL:1", "outcome": "failed", "stallMs": 1.0}]),
    ],
)
def test_each_of_these_is_not(name: str, value: Any) -> None:
    parts = seen()
    parts["ours"][name] = value
    assert rank_checks.verdict(parts)["fine"] is False


class Engine:
    """Answers commands as an engine would: the first of each is put off."""

    def __init__(self) -> None:
        graphs = tuple(SimpleNamespace(id=f"FULL:{n}") for n in (1, 2, 64))
        told = {"captured": (Captured(graph="FULL:64", ms=1, bytes=1),), "ranks": (), "epoch": 1}
        self.received: list[Any] = [Ready(capture_seconds=0.1, **told)]
        self.inventory = SimpleNamespace(graphs=graphs)
        self.asked: list[Any] = []

    def wait_for(self, kind: type, seconds: float, where: Any = None, after: int = 0) -> Any:
        if kind is Inventory:
            return self.inventory
        found = [m for m in self.received[after:] if isinstance(m, kind)]
        return next(m for m in found if where is None or where(m))

    def send(self, message: Any) -> None:
        self.asked.append(message)
        put_off = len(self.asked) % 2 == 1
        common = {"command": message.command, "reason": None, "ranks": (), "epoch": 1}
        if isinstance(message, Capture):
            outcome = "deferred" if put_off else "captured"
            self.received.append(
                Result(graph=message.graph, outcome=outcome, stall_ms=2, ms=1, bytes=1, **common)
            )
        else:
            outcome = "deferred" if put_off else "dropped"
            self.received.append(
                Dropped(outcome=outcome, graphs=message.graphs, freed_bytes=1, **common)
            )


def test_a_fill_captures_the_rest_drops_a_tier_and_captures_it_again() -> None:
    engine = Engine()
    fill = rank_checks.Fill(engine)
    fill.run()
    assert fill.error is None
    assert [(each["graph"], each["outcome"]) for each in fill.captures] == [
        ("FULL:1", "captured"),
        ("FULL:2", "captured"),
    ] * 2
    assert (fill.dropped, fill.recaptured) == ("dropped", 2)
    # Each was put off once; no command's number came twice.
    assert len({message.command for message in engine.asked}) == len(engine.asked) == 10


def test_a_fill_that_never_comes_to_its_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_checks, "FILL_SECONDS_MAX", -1.0)
    fill = rank_checks.Fill(Engine())
    fill.run()
    assert fill.error is not None and fill.error.startswith("TimeoutError: the fill took more")
