from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazygraph_vllm.protocol.messages import STEPS_PER_BATCH_MAX
from lazygraph_vllm.rank.steps import StepWatch
from lazygraph_vllm.rank.telemetry import TIMED_PER_BATCH_MAX, StepCounter, StepKey

KEY = StepKey(4, 4, 1, "FULL:4")


def test_steps_of_one_shape_are_merged() -> None:
    counter = StepCounter()
    for context in (10, 20, 60):
        counter.add(KEY, context)
    counter.time(KEY, 0.25, 10)
    counter.time(KEY, 0.5, 20)
    counter.add(StepKey(8, 3, 0, ""), 5)
    steps = {StepKey(s.tokens, s.requests, s.uniform, s.served): s for s in counter.take()}
    assert set(steps) == {KEY, StepKey(8, 3, 0, "")}
    merged = steps[KEY]
    assert (merged.count, merged.seconds, merged.timed, merged.context_tokens) == (3, 0.75, 2, 15)
    untimed = steps[StepKey(8, 3, 0, "")]
    assert (untimed.timed, untimed.seconds, untimed.context_tokens) == (0, 0, 5)


def test_taking_starts_anew() -> None:
    counter = StepCounter()
    counter.add(KEY, 1)
    assert len(counter.take()) == 1
    assert counter.take() == ()


def test_a_time_that_comes_after_its_batch_is_kept_without_a_count() -> None:
    counter = StepCounter()
    counter.add(KEY, 1)
    counter.take()
    counter.time(KEY, 0.5, 1)
    (late,) = counter.take()
    assert (late.count, late.timed, late.seconds, late.context_tokens) == (0, 1, 0.5, 1)


def test_seconds_come_with_the_context_of_the_step_they_belong_to() -> None:
    # Two chunks of one prompt: the second is counted while the first one still runs.
    chunk = StepKey(8192, 1, 8192, "")
    counter = StepCounter()
    counter.add(chunk, 8192)
    counter.add(chunk, 16384)
    counter.time(chunk, 0.22, 8192)
    (first,) = counter.take()
    counter.time(chunk, 0.28, 16384)
    (second,) = counter.take()
    assert (first.seconds, first.context_tokens) == (0.22, 8192)
    assert (second.seconds, second.context_tokens) == (0.28, 16384)


def test_a_batch_is_bounded_and_what_does_not_fit_is_counted() -> None:
    counter = StepCounter()
    for n in range(STEPS_PER_BATCH_MAX + 3):
        counter.add(StepKey(n + 1, 1, 0, ""), 0)
    counter.add(StepKey(1, 1, 0, ""), 0)
    counter.time(StepKey(10**6, 1, 0, ""), 1, 1)
    assert counter.dropped == 3
    steps = counter.take()
    assert len(steps) == STEPS_PER_BATCH_MAX
    assert steps[0].count == 2


def test_steps_of_another_case_are_counted_apart() -> None:
    counter = StepCounter()
    counter.add(KEY, 1)
    counter.add(KEY._replace(loras=2), 1)
    counter.add(KEY._replace(microbatches=2), 1)
    counter.add(KEY._replace(query_length=4), 1)
    cases = [(s.loras, s.query_length, s.microbatches, s.count) for s in counter.take()]
    assert cases == [(0, None, 1, 1), (2, None, 1, 1), (0, None, 2, 1), (0, 4, 1, 1)]


class FakeEvent:
    """What it marks has been done at once, a second after the one before."""

    records = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.records += 1
        self.at = FakeEvent.records

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: FakeEvent) -> int:
        return (end.at - self.at) * 1000


def test_of_many_alike_a_batch_times_as_many_as_tell_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = SimpleNamespace(cuda=SimpleNamespace(Event=FakeEvent))
    monkeypatch.setitem(sys.modules, "torch", cuda)
    watch = StepWatch()

    def steps(count: int, key: StepKey) -> None:
        for _ in range(count):
            watch.dispatched(key, watch.begin(key.tokens, key.requests), 10)
            watch.end()
        watch.harvest()

    def told() -> list[Any]:
        return [(s.tokens, s.count, s.timed, s.seconds) for s in watch.counter.take()]

    steps(30, KEY)
    steps(1, KEY._replace(tokens=9))
    most = TIMED_PER_BATCH_MAX
    assert told() == [(4, 30, most, most), (9, 1, 1, 1)], "a rare one is timed among them"
    assert FakeEvent.records == 2 * (most + 1), "the others have none"
    steps(2, KEY)
    assert told() == [(4, 2, 2, 2)], "and each batch anew"


def test_a_batch_times_as_many_as_the_policy_takes_it_for() -> None:
    policy = Path(__file__).parents[2] / "src" / "schedule" / "costed" / "cost.ts"
    assert f"const REPORT_WEIGHT_MAX = {TIMED_PER_BATCH_MAX};" in policy.read_text()
