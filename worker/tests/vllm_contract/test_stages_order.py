"""Captures between steps of a pipeline, where several steps are under way: none on any stage is.

vLLM's own ``MultiprocExecutor`` and engine step with a queue of batches; a rank is a thread here
that takes its calls in their order, as a worker's process does. The last stage is slow, so that the
first one is done with steps that the last one has not begun.
"""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("gpu")

from vllm_facts import WARMS_UP_SEPARATELY  # noqa: E402

if not WARMS_UP_SEPARATELY:
    pytest.skip("pipeline parallelism is left to vLLM here", allow_module_level=True)

from builders import make_config, make_core  # noqa: E402
from lazygraph_vllm.engine.headroom import Headroom  # noqa: E402
from lazygraph_vllm.engine.lockstep import Lockstep  # noqa: E402
from lazygraph_vllm.engine.state import EngineState  # noqa: E402
from lazygraph_vllm.protocol.messages import Capture, Captured, Graph, RankMemory  # noqa: E402
from lazygraph_vllm.rank import calls as rank  # noqa: E402
from lazygraph_vllm.settings import Settings  # noqa: E402

STAGES = 2
# One batch for each stage and one more, as vLLM has it with asynchronous scheduling.
IN_FLIGHT = STAGES + 1
SLOW_SECONDS = 0.02
SECONDS_MAX = 60.0
GRAPHS = [f"FULL:{size}" for size in (8, 4, 2, 1)]

Event = tuple[str, int, str]


class Rank(threading.Thread):
    """Takes calls in their order; the last stage's steps take their time.

    Attributes:
        go: where it isn't set, a step of the last stage waits for it.
        opens: set when a capture begins here.
    """

    def __init__(self, number: int, events: list[Event]) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.calls: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self.go, self.opens = threading.Event(), threading.Event()
        self.go.set()
        self._events = events

    def run(self) -> None:
        import cloudpickle

        while (call := self.calls.get()) is not None:
            method, args, _, output_rank = call
            name = method if isinstance(method, str) else cloudpickle.loads(method).__name__
            self._events.append(("begin", self.number, name))
            if name == "capture":
                self.opens.set()
            if name == "execute_model" and self.number == STAGES - 1:
                time.sleep(SLOW_SECONDS)
                self.go.wait(SECONDS_MAX)
            answer = self.answer(name, args)
            self._events.append(("end", self.number, name))
            if output_rank is None or output_rank == self.number:
                self.answers.put(answer)

    def answer(self, name: str, args: tuple[Any, ...]) -> Any:
        """What a rank of ours, or a step of vLLM's, answers."""
        from vllm.v1.executor.multiproc_executor import WorkerProc

        memory = RankMemory(
            rank=self.number, gpu_uuid="", gpu_name="", total_bytes=1, free_bytes=1,
            reserved_bytes=0, pool_bytes=0, activation_peak_bytes=0,
        )  # fmt: skip
        answers: dict[str, Any] = {
            "execute_model": None,
            "sample_tokens": "tokens",
            "preflight": {"reason": None, "hash": "same"},
            "capture": {
                "captured": Captured(graph=args[0] if args else "", ms=1.0, bytes=1),
                "mismatch": None,
                "hash": "same",
                "epoch": 1,
                "memory": memory,
            },
        }
        return WorkerProc.ResponseStatus.SUCCESS, answers[name]


@pytest.fixture
def engine() -> Iterator[Any]:
    """An engine of two stages; ``events`` is what its ranks did, in order."""
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    events: list[Event] = []
    ranks = [Rank(number, events) for number in range(STAGES)]
    executor = MultiprocExecutor.__new__(MultiprocExecutor)
    config = make_config()
    config.parallel_config.pipeline_parallel_size = STAGES
    config.parallel_config.prefill_context_parallel_size = 1

    def enqueue(call: Any) -> None:
        for each in ranks:
            each.calls.put(call)

    def answers_of(each: Rank) -> Any:
        return SimpleNamespace(dequeue=lambda timeout=None: each.answers.get(timeout=SECONDS_MAX))

    for name, value in {
        "vllm_config": config,
        "parallel_config": config.parallel_config,
        "world_size": STAGES,
        "rpc_broadcast_mq": SimpleNamespace(enqueue=enqueue),
        "response_mqs": [answers_of(each) for each in ranks],
        "futures_queue": collections.deque(),
        "is_failed": False,
        "kv_output_aggregator": None,
        "ec_output_aggregator": None,
        "sleeping_tags": set(),
        "is_sleeping": False,
    }.items():
        if not isinstance(getattr(type(executor), name, None), property):
            setattr(executor, name, value)
    executor.output_rank = executor._get_output_rank()
    for each in ranks:
        each.start()
    core = make_core(executor, [], IN_FLIGHT)
    core.scheduler.left = {"r": 1_000_000}
    yield SimpleNamespace(core=core, executor=executor, events=events, ranks=ranks)
    for each in ranks:
        each.calls.put(None)
        each.join(SECONDS_MAX)


def lockstep() -> tuple[Lockstep, EngineState]:
    state = EngineState(
        mode="lazy", unsupported=None, phase="serving", room=Headroom(Settings(mode="lazy"))
    )
    state.graphs = [
        Graph(id=name, kind="FULL", tokens=int(name.split(":")[1]), requests=1, uniform=1)
        for name in GRAPHS
    ]
    return Lockstep(state), state


def fill_the_queue(engine: Any) -> None:
    """Step until as many batches are under way as there is room for between two steps."""
    for _ in range(2 * IN_FLIGHT):
        engine.core.step_fn()
    assert len(engine.core.batch_queue) == IN_FLIGHT - 1


def steps_before_captures(events: list[Event], number: int) -> list[int]:
    """How many steps a rank was done with at each of its captures."""
    done, found = 0, []
    for kind, at, name in events:
        if at == number and (kind, name) == ("end", "sample_tokens"):
            done += 1
        if at == number and (kind, name) == ("begin", "capture"):
            found.append(done)
    return found


def assert_none_was_under_way(events: list[Event]) -> None:
    """Wherever a capture begins, every stage is done with as many steps as any has begun."""
    begun, done = [0] * STAGES, [0] * STAGES
    captures = 0
    for kind, at, name in events:
        begun[at] += (kind, name) == ("begin", "execute_model")
        done[at] += (kind, name) == ("end", "sample_tokens")
        if (kind, name) == ("begin", "capture"):
            captures += 1
            assert min(done) == max(begun), f"stage {done.index(min(done))} is in a step"
    assert captures > 0


def test_a_capture_is_between_the_same_steps_on_all_stages(engine: Any) -> None:
    changes, state = lockstep()
    for number, name in enumerate(GRAPHS):
        fill_the_queue(engine)
        message = Capture(command=number, graph=name, when_idle=False)
        assert changes.capture(engine.core, message).outcome == "captured"
        changes.captured_since_step = False
    for _ in range(2 * IN_FLIGHT):
        outputs, _ = engine.core.step_fn()
    assert set(state.captured) == set(GRAPHS)
    assert_none_was_under_way(engine.events)
    first, last = (steps_before_captures(engine.events, number) for number in range(STAGES))
    assert first == last and len(set(first)) == len(GRAPHS)


def test_without_waiting_a_stage_captures_while_the_next_one_is_in_a_step(engine: Any) -> None:
    """Positive control of the check above. In order it would be all the same, on each rank."""
    engine.ranks[-1].go = engine.ranks[0].opens
    engine.executor.execute_model(None, non_block=True)
    engine.executor.sample_tokens(None, non_block=True)
    future = engine.executor.collective_rpc(rank.capture, args=("FULL:8",), non_block=True)
    assert len(future.result()) == STAGES
    with pytest.raises(AssertionError, match="stage 1 is in a step"):
        assert_none_was_under_way(engine.events)
    assert [steps_before_captures(engine.events, n) for n in range(STAGES)] == [[1], [1]]


def test_all_stages_answer_and_the_last_one_alone_answers_a_step(engine: Any) -> None:
    answers = engine.executor.collective_rpc(rank.capture, args=("FULL:8",))
    assert [answer["memory"].rank for answer in answers] == list(range(STAGES))
    assert engine.executor.output_rank == STAGES - 1
    assert engine.executor.sample_tokens(None) == "tokens"
