"""The part of checks.py about several ranks: all hold and serve the same graphs at every step.

Through the protocol, as a controller would: graphs are captured one by one while requests run, a
tier is dropped, and it is captured again. Each rank writes down what every step of its own was
served by and what it held then; the ranks' lists must be the same to the last entry. The control
forgets one graph on the last rank alone, when no step comes any more, and must be found out.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Decode graphs that every family with vLLM's own sizes has, and that the ends of our traffic use.
TIER = ("FULL:1", "FULL:2", "FULL:4", "FULL:8", "FULL:16", "FULL:24", "FULL:32")
FORGOTTEN = "FULL:16"
FILL_SECONDS_MAX = 240.0
ANSWER_SECONDS_MAX = 60.0
# Between two steps there is place for one capture: those that come too soon are asked again.
DEFERRED_MAX = 2000
DEFERRED_SECONDS = 0.005
STEPS_SHOWN = 3


# ------------------------------------------------------------------ on a rank


def watch_steps(worker: Any) -> None:
    """Note what each step from now on is served by, and what this rank holds then."""
    runner = worker.model_runner
    graphs, execute = runner.lazygraph, runner.execute_model
    runner.lazygraph_noted = []

    def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = execute(scheduler_output, *args, **kwargs)
        if scheduler_output.num_scheduled_tokens and not kwargs.get("dummy_run"):
            tokens = scheduler_output.total_num_scheduled_tokens
            served = graphs.dispatch.last_served
            runner.lazygraph_noted.append([tokens, served, graphs.state.hash()])
        return result

    runner.execute_model = execute_model


def noted_steps(worker: Any) -> list[list[Any]]:
    """What ``watch_steps`` noted: tokens, graph and hash of each step."""
    noted: list[list[Any]] = worker.model_runner.lazygraph_noted
    return noted


def forget_on(worker: Any, rank: int, graph: str) -> None:
    """Forget one graph on one rank and no other: the fault that must never happen."""
    if worker.rank == rank:
        worker.model_runner.lazygraph.purge({graph: "a control"})


# ------------------------------------------------------------------ an engine


class Fill(threading.Thread):
    """Captures what is left, drops a tier, captures it again: one command after the other.

    Attributes:
        captures: outcome and milliseconds of each capture.
        dropped: outcome of the drop; ``None``: it was not come to.
        recaptured: graphs of the tier that were captured again.
        error: why it ended before its end.
    """

    def __init__(self, controller: Any) -> None:
        super().__init__(daemon=True)
        self.captures: list[dict[str, Any]] = []
        self.dropped: str | None = None
        self.recaptured = 0
        self.error: str | None = None
        self._controller = controller
        self._command = 0
        self._end = time.monotonic() + FILL_SECONDS_MAX

    def run(self) -> None:
        """Bounded by ``FILL_SECONDS_MAX``."""
        from lazygraph_vllm.protocol.messages import Inventory, Ready

        try:
            ready = self._controller.wait_for(Ready, ANSWER_SECONDS_MAX)
            inventory = self._controller.wait_for(Inventory, ANSWER_SECONDS_MAX)
            before = {each.graph for each in ready.captured}
            planned = [graph.id for graph in inventory.graphs]
            for name in planned:
                if name not in before:
                    self.capture(name)
            tier = tuple(name for name in TIER if name in planned)
            self.drop(tier)
            captured = [self.capture(name) for name in tier]
            self.recaptured = captured.count("captured")
        except Exception as error:  # The thread has nobody to raise to.
            self.error = f"{type(error).__name__}: {error}"[:400]

    def capture(self, name: str) -> str:
        """One graph between two steps; how it went."""
        from lazygraph_vllm.protocol.messages import Capture, Result

        def ask(command: int) -> Any:
            return Capture(command=command, graph=name, when_idle=False)

        result = self.ask(ask, Result)
        self.captures.append(
            {
                "graph": name,
                "outcome": result.outcome,
                "ms": result.ms,
                "stallMs": result.stall_ms,
                "reason": result.reason,
            }
        )
        outcome: str = result.outcome
        return outcome

    def drop(self, tier: tuple[str, ...]) -> None:
        """A whole tier between two steps."""
        from lazygraph_vllm.protocol.messages import Drop, Dropped

        result = self.ask(lambda command: Drop(command=command, graphs=tier), Dropped)
        self.dropped = result.outcome if result.outcome == "dropped" else str(result.reason)

    def ask(self, message: Callable[[int], Any], answer: type) -> Any:
        """Send a command until it isn't put off any more; its answer."""
        for _ in range(DEFERRED_MAX):
            if time.monotonic() > self._end:
                raise TimeoutError(f"the fill took more than {FILL_SECONDS_MAX:.0f} s")
            self._command += 1
            number, after = self._command, len(self._controller.received)
            self._controller.send(message(number))
            result = self._controller.wait_for(
                answer, ANSWER_SECONDS_MAX, lambda told, n=number: told.command == n, after
            )
            if result.outcome != "deferred":
                return result
            time.sleep(DEFERRED_SECONDS)
        raise TimeoutError(f"put off {DEFERRED_MAX} times: {result.reason}")


def controlled() -> Any:
    """A controller of a few lines, which the engine to come will find by its environment."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "worker" / "tests"))
    from fake_controller import FakeController

    controller = FakeController(mode="lazy")
    controller.tiers = (TIER,)
    os.environ |= {
        "LAZYGRAPH_MODE": "lazy",
        "LAZYGRAPH_ENDPOINT": controller.endpoint,
        "LAZYGRAPH_HANDSHAKE_MS": "5000",
    }
    return controller


def run(
    engine: Any, controller: Any, sequences: Callable[[Any], Any], state_of: Callable[[Any], Any]
) -> dict[str, Any]:
    """Traffic until the fill is over, and once more; then the control."""
    engine.collective_rpc(watch_steps)
    fill = Fill(controller)
    fill.start()
    rounds = 0
    while fill.is_alive():
        sequences(engine)
        rounds += 1
    sequences(engine)
    noted = engine.collective_rpc(noted_steps)
    ranks = engine.collective_rpc(state_of)
    engine.collective_rpc(forget_on, args=(len(ranks) - 1, FORGOTTEN))
    control = engine.collective_rpc(state_of)
    return {
        "steps": compare(noted),
        "rounds": rounds,
        "captures": fill.captures,
        "dropped": fill.dropped,
        "recaptured": fill.recaptured,
        "error": fill.error,
        "ranks": ranks,
        "control": [state["hash"] for state in control],
    }


# ------------------------------------------------------------------ what was seen


def compare(noted: list[list[list[Any]]]) -> dict[str, Any]:
    """The ranks' lists of steps against the first rank's."""
    first, *others = noted
    count = len(first)
    differ = sorted(
        {i for steps in others for i in range(count) if i >= len(steps) or steps[i] != first[i]}
    )
    more = max((len(steps) - count for steps in others), default=0)
    return {
        "ranks": len(noted),
        "steps": count,
        # Sets of graphs that a step was taken with: as many as there were changes, and one more.
        "held": len({step[2] for step in first}),
        "graphed": sum(step[1] != "" for step in first),
        "differ": len(differ) + max(0, more),
        "first": [[steps[i : i + 1] for steps in noted] for i in differ[:STEPS_SHOWN]],
    }


def verdict(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same on all ranks at every step, with all there was to see, and a control found out."""
    ours = parts["ours"]
    ranks, steps, captures = ours["ranks"], ours["steps"], ours["captures"]
    outcomes = [each["outcome"] for each in captures]
    bad = [each for each in captures if each["outcome"] != "captured"]
    planned = len(ranks[0]["planned"])
    found = len(set(ours["control"])) > 1
    same = len({rank["hash"] for rank in ranks}) == 1
    seen = (
        ours["dropped"] == "dropped"
        and ours["recaptured"] > 0
        and steps["graphed"] > 0
        and steps["held"] > 1
        and all(len(rank["captured"]) == planned for rank in ranks)
    )
    whole = ours["error"] is None and not bad
    return {
        "fine": len(ranks) > 1 and same and seen and whole and found and steps["differ"] == 0,
        "planned": planned,
        "sameOnAllRanks": same,
        "steps": steps,
        "rounds": ours["rounds"],
        "captured": outcomes.count("captured"),
        "dropped": ours["dropped"],
        "recaptured": ours["recaptured"],
        "longestStallMs": max((each["stallMs"] for each in captures), default=None),
        "controlFound": found,
        "error": ours["error"],
        "bad": bad[:STEPS_SHOWN],
    }
