"""A rank that hangs between two steps ends the engine with a sentence, by vLLM's own time limit."""

from __future__ import annotations

import collections
import queue
from types import SimpleNamespace
from typing import Any

import pytest

from builders import make_config
from lazygraph_vllm.engine.headroom import Headroom
from lazygraph_vllm.engine.lockstep import Lockstep
from lazygraph_vllm.engine.ranks import SilentRankError, ask
from lazygraph_vllm.engine.state import EngineState
from lazygraph_vllm.engine.step_reports import StepReports
from lazygraph_vllm.protocol.messages import Capture, Graph
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.settings import Settings
from lazygraph_vllm.vllm import limits

pytestmark = pytest.mark.usefixtures("gpu")

RANKS = 2


class Answers:
    """A rank's queue of answers, as vLLM has it: who would wait without end finds out."""

    def __init__(self) -> None:
        self.ready: queue.Queue[Any] = queue.Queue()
        self.waited: list[float | None] = []

    def dequeue(self, timeout: float | None = None) -> Any:
        self.waited.append(timeout)
        if self.ready.empty():
            assert timeout is not None, "waits for a rank that never answers"
            raise TimeoutError
        return self.ready.get()


@pytest.fixture
def engine() -> Any:
    """vLLM's own executor of two ranks, of which the second one hangs in what ``hung`` names."""
    import cloudpickle
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor, WorkerProc

    answers = [Answers() for _ in range(RANKS)]

    hung = {"capture"}

    def enqueue(call: Any) -> None:
        name = call[0] if isinstance(call[0], str) else cloudpickle.loads(call[0]).__name__
        only = call[3]  # the rank that is to answer, or all
        for number, each in enumerate(answers):
            if only in (None, number) and (number != 1 or name not in hung):
                answer = {"reason": None, "hash": "same"}
                each.ready.put((WorkerProc.ResponseStatus.SUCCESS, answer))

    executor = MultiprocExecutor.__new__(MultiprocExecutor)
    executor.vllm_config = make_config()
    executor.rpc_broadcast_mq = SimpleNamespace(enqueue=enqueue)
    executor.response_mqs = answers
    executor.futures_queue = collections.deque()
    executor.is_failed = False
    executor.output_rank = 0
    executor.kv_output_aggregator = executor.ec_output_aggregator = None
    executor.sleeping_tags = set()
    if not isinstance(getattr(type(executor), "is_sleeping", None), property):
        executor.is_sleeping = False
    return SimpleNamespace(
        model_executor=executor,
        answers=answers,
        hung=hung,
        batch_queue=None,
        input_queue=queue.Queue(),
        is_running=lambda: True,
        has_work=lambda: False,
        is_scheduler_paused=lambda: False,
    )


def test_a_capture_that_hangs_on_one_rank_ends_the_engine(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.STEP, "7")
    state = EngineState(
        mode="lazy", unsupported=None, phase="serving", room=Headroom(Settings(mode="lazy"))
    )
    state.graphs = [Graph(id="FULL:4", kind="FULL", tokens=4, requests=4, uniform=1)]
    sentence = r"a rank didn't answer capture within 7 s .*; ending the engine"
    with pytest.raises(SilentRankError, match=sentence):
        Lockstep(state).capture(engine, Capture(command=1, graph="FULL:4", when_idle=True))
    assert all(each is not None and each <= 7 for each in engine.answers[1].waited)


def test_a_rank_that_hangs_between_two_steps_of_traffic_ends_the_engine(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first rank answers steps, and what it answers comes after all that was asked."""
    monkeypatch.setenv(limits.STEP, "7")
    engine.hung.add("drain_steps")
    reports = StepReports(None, None)  # type: ignore[arg-type]
    reports.report(engine, wait=False)
    engine.model_executor.execute_model(None, non_block=True).result()
    with pytest.raises(SilentRankError, match=r"didn't answer drain_steps within 7 s"):
        reports.report(engine, wait=False)


def test_whoever_answers_is_not_hurried(engine: Any) -> None:
    """Positive control."""
    assert ask(engine, rank.give_back) == [{"reason": None, "hash": "same"}] * RANKS


def test_the_limit_is_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs

    monkeypatch.delenv(limits.STEP, raising=False)
    read = envs.environment_variables[limits.STEP]
    assert limits.step_seconds() == read()
    monkeypatch.setenv(limits.STEP, "12")
    assert limits.step_seconds() == read() == 12
