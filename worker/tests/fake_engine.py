"""An engine core and its ranks without vLLM: what ``Agent`` sees of them."""

from __future__ import annotations

import hashlib
import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from lazygraph_vllm.engine.agent import Agent
from lazygraph_vllm.engine.inbox import Command
from lazygraph_vllm.protocol.messages import Captured, Graph, RankMemory, StepCount
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.rank import sizing
from lazygraph_vllm.rules.dispatch import TableError, expand
from lazygraph_vllm.rules.forecast import Shape
from lazygraph_vllm.rules.local_fill import top_graphs
from lazygraph_vllm.settings import Settings
from test_dispatch import plan
from test_support import supported

GRAPHS = sorted(plan([1, 2, 4, 8]), key=lambda g: (g.kind != "PIECEWISE", -g.tokens))
TOPS = [g.id for g in top_graphs(GRAPHS)]


def make_config() -> Any:
    config = supported()
    config.model_config.served_model_name = ["tiny", "alias"]
    config.cache_config.num_gpu_blocks = 10
    config.cache_config.block_size = 16
    config.scheduler_config = SimpleNamespace(max_num_seqs=8, max_num_batched_tokens=64)
    return config


MIB = 1 << 20
# FULL:8 wants 32 MiB of pool beyond FULL:4: see lazygraph_vllm.rules.forecast.
SHAPE = Shape(layers=2, hidden=64, intermediate=128, heads=256, head_size=127, splits=64)


class FakeRank:
    """Answers what ``lazygraph_vllm.rank.calls`` answers, from a plain set of captured graphs."""

    def __init__(self, index: int, graphs: list[Graph]) -> None:
        self.index = index
        self.graphs = graphs
        self.captured: dict[str, Captured] = {}
        self.first: list[str] = []
        self.epoch = 0
        self.table: Any = None
        self.fail: set[str] = set()
        self.mismatch: dict[str, float] = {}
        self.refuse: str | None = None
        self.later = False
        self.forked = ""
        self.steps: list[StepCount] = []
        self.unsupported: str | None = None
        self.free = 1 << 40
        self.peak = 0
        self.holding = 0
        self.tiers: Any = ()
        self.guard_margin: int | None = None
        self.refused: dict[str, str] = {}
        self.short: set[str] = set()
        self.reservation: dict[str, Any] = {
            "bytes": 7, "serving_bytes": 5, "uncounted_bytes": 9 << 20, "kv_tokens": 3, "graphs": 8,
        }  # fmt: skip
        self.no_reservation: str | None = None
        self.taken = True
        self.gpu = "NVIDIA H200"
        self.missing: str | None = None
        self.missed: str | None = None  # vLLM captured past our hooks
        self.aside = False
        self.more: tuple[str, ...] = ()
        self.budget_seconds: float | None = None
        self.skipped: tuple[str, ...] = ()
        self.layers = SHAPE.layers

    def hash(self) -> str:
        text = f"{self.epoch}{sorted(self.captured)}{self.forked}"
        return hashlib.sha256(text.encode()).hexdigest()

    def memory(self) -> RankMemory:
        return RankMemory(
            rank=self.index, gpu_uuid=f"GPU-{self.index}", gpu_name="fake", total_bytes=1 << 41,
            free_bytes=self.free, reserved_bytes=0, pool_bytes=0, activation_peak_bytes=self.peak,
        )  # fmt: skip

    def identify(self) -> dict[str, Any]:
        return {"gpu": self.gpu, "chosen": set(), "missing": self.missing}

    def step_aside(self) -> None:
        self.aside = True

    def describe(self) -> dict[str, Any]:
        if self.unsupported:
            return {"unsupported": self.unsupported}
        return {
            "graphs": self.graphs, "cudagraph_mode": "FULL_AND_PIECEWISE",
            "layers": self.layers, "shape": replace(SHAPE, layers=self.layers),
            "memory": self.memory(),
        }  # fmt: skip

    def reserve(self, mode: str, known_bytes: int | None, margin: int | None) -> str | None:
        self.reservation["bytes"] = known_bytes or self.reservation["bytes"]
        return self.no_reservation

    def withdraw(self) -> None:
        self.taken = False

    def reserved(self) -> dict[str, Any] | None:
        return self.reservation if self.taken else None

    def determine_available_memory(self) -> int:
        return 1

    def prepare(
        self,
        first: list[str],
        verify: bool,
        tiers: Any = (),
        guard_margin: int | None = None,
        more: tuple[str, ...] = (),
        budget_seconds: float | None = None,
    ) -> None:
        self.first, self.tiers, self.guard_margin = first, tiers, guard_margin
        self.more, self.budget_seconds = more, budget_seconds

    def take(self, name: str) -> Captured:
        self.captured[name] = Captured(graph=name, ms=1.0 + self.index, bytes=10 - self.index)
        self.epoch += 1
        return self.captured[name]

    def compile_or_warm_up_model(self) -> None:
        for name in self.first:
            if name not in self.refused:
                self.take(name)

    def finish_start(self) -> dict[str, Any]:
        if self.missed:
            return {"missed": self.missed}
        return {
            "captured": list(self.captured.values()), "mismatched": dict(self.mismatch),
            "refused": dict(self.refused),
            "warm_up_seconds": 0.125, "skipped": self.skipped,
            "seconds": 0.5 + self.index, "hash": self.hash(), "epoch": self.epoch,
            "memory": self.memory(),
        }  # fmt: skip

    def preflight(
        self,
        graph: str,
        free_min: int,
        headroom_min: int = 0,
        reserve: int = 0,
        reclaim_min: int = 0,
    ) -> dict[str, Any]:
        room = self.free - (self.peak if headroom_min else 0)
        short = room < max(free_min, headroom_min, reserve)
        reason = self.refuse or (f"headroom: {room} free" if short else None)
        self.holding = reserve if reason is None else 0
        answer = {"reason": reason, "hash": self.hash()}
        if self.later:
            answer["later"] = True
        return answer | ({"short": True, "memory": self.memory()} if short else {})

    def give_back(self) -> None:
        self.holding = 0

    def capture(self, graph: str) -> dict[str, Any]:
        self.holding = 0
        if graph in self.fail | self.short:
            short = graph in self.short
            error = "OutOfMemoryError: no" if short else "RuntimeError: broken"
            answer = {"error": error, "short": short, "hash": self.hash(), "epoch": self.epoch}
            return answer | ({"memory": self.memory()} if short else {})
        captured = self.take(graph)
        return {
            "captured": captured, "mismatch": self.mismatch.get(graph), "hash": self.hash(),
            "epoch": self.epoch, "memory": self.memory(),
        }  # fmt: skip

    def drop(self, names: tuple[str, ...]) -> dict[str, Any]:
        for name in names:
            del self.captured[name]
            self.epoch += 1
        freed = 100 - self.index
        return {
            "freed": freed, "hash": self.hash(), "epoch": self.epoch, "memory": self.memory(),
        }  # fmt: skip

    def purge(self, names: dict[str, str]) -> int:
        for name in names:
            self.captured.pop(name)
            self.epoch += 1
        return self.epoch

    def set_table(self, table: Any) -> str | None:
        try:
            for rows in () if table is None else (table.uniform, table.mixed):
                expand(rows, self.captured, tokens_max=8)
        except TableError as error:
            return str(error)
        self.table = table
        return None

    def drain_steps(self) -> Any:
        if self.index:
            return None
        steps, self.steps = tuple(self.steps), []
        return steps, 0


class Executor:
    def __init__(self, ranks: list[FakeRank]) -> None:
        self.ranks = ranks
        self.is_sleeping = False
        self.calls: list[str] = []

    def collective_rpc(
        self,
        method: Any,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        non_block: bool = False,
    ) -> Any:
        name = method if isinstance(method, str) else method.__name__
        module = sizing if name in ("reserve", "reserved", "withdraw") else rank
        assert isinstance(method, str) or getattr(module, name) is method
        self.calls.append(name)
        answers = [getattr(r, name)(*args) for r in self.ranks]
        if not non_block:
            return answers
        future: Future[Any] = Future()
        future.set_result(answers)
        return future


class Wire:
    """A ``Link`` that keeps what is sent, without a socket."""

    def __init__(
        self, *_: Any, on_message: Any, on_tick: Any, inventory: Any, heartbeat: Any
    ) -> None:
        self.receive: Callable[[Any], None] = on_message
        self.tick: Callable[[], None] = on_tick
        self.inventory = inventory
        self.heartbeat: Callable[[], Any] = heartbeat
        self.sent: list[Any] = []
        self.incarnation = 1
        self.dropped = 0
        self.lost_since: float | None = None
        self.refused = None
        self.hello: dict[str, Any] = {}
        self.version_min = 0
        self.closed: str | None = None

    def start(self) -> None:
        pass

    def update_hello(self, **changes: Any) -> None:
        self.hello.update({k: v for k, v in changes.items() if v is not None})

    def require_version(self, version: int) -> None:
        self.version_min = version

    def send(self, message: Any) -> bool:
        self.sent.append(message)
        return True

    def close(self, reason: str) -> None:
        self.closed = reason

    def last(self, kind: type) -> Any:
        return next(m for m in reversed(self.sent) if isinstance(m, kind))


class Engine:
    """An ``EngineCoreProc`` whose loop a test turns."""

    def __init__(self, agent: Agent, ranks: list[FakeRank]) -> None:
        self.agent = agent
        self.wire: Wire = agent.session.link  # type: ignore[assignment]
        self.ranks = ranks
        self.model_executor = Executor(ranks)
        self.input_queue: queue.Queue[Any] = queue.Queue()
        self.batch_queue: deque[Any] | None = deque()
        self.work = False
        self.running = True
        self.paused = False
        self.scheduler = SimpleNamespace(get_request_counts=lambda: (int(self.work), 0))

    def has_work(self) -> bool:
        return self.work

    def is_running(self) -> bool:
        return self.running

    def is_scheduler_paused(self) -> bool:
        return self.paused

    def collective_rpc(self, method: Any, *args: Any, **options: Any) -> Any:
        return self.model_executor.collective_rpc(method, *args, **options)

    def start(self, sizing: bool = False) -> Engine:
        """Start-up as vLLM's executor does it, then a first idle turn."""
        self.agent.begin()
        rpc = self.model_executor.collective_rpc
        if sizing:
            self.agent.before_sizing(rpc)
            rpc("determine_available_memory")
            self.agent.after_sizing(rpc)
        self.agent.before_capture(rpc)
        if not self.agent.state.unsupported:
            rpc("compile_or_warm_up_model")
        self.agent.after_capture(rpc)
        self.agent.attach(self, "WAKEUP")
        self.turn()
        return self

    def turn(self, commands_max: int = 100) -> int:
        """One pass of the loop: idle edge, the queue, busy edge."""
        if not self.work:
            self.agent.on_idle(self)
        done = 0
        while not self.input_queue.empty() and done < commands_max:
            kind, command = self.input_queue.get_nowait()
            assert kind == "WAKEUP" and isinstance(command, Command)
            self.agent.execute(self, command)
            done += 1
        self.agent.on_work(self)
        return done

    def captured(self) -> list[str]:
        return list(self.ranks[0].captured)


def make_engine(
    mode: Any = "idle", ranks: int = 1, endpoint: str | None = "ipc://x", verify: bool = False
) -> Engine:
    """An engine that wasn't started; ``fake_engine.Wire`` must stand for ``session.Link``."""
    settings = Settings(mode=mode, endpoint=endpoint, handshake_ms=0, verify=verify)
    agent = Agent(settings, make_config(), "0.26.0")
    return Engine(agent, [FakeRank(i, list(GRAPHS)) for i in range(ranks)])
