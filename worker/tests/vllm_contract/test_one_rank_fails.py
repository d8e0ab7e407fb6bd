"""A rank that fails in its captures: no other waits for it, and it waits for no other.

Both ranks run here one after the other, and their questions to all of them are put together: the
second one's answers meet those that the first one gave, in their order, as over their group.
"""

from __future__ import annotations

from typing import Any

import pytest

from builders import Wrapper, make_config, make_runner
from cuda_stand_in import Group
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.rank.guard import RankFailedError

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

TOPS = ["PIECEWISE:16", "FULL:8"]


class Together:
    """The group of two ranks, of which one has run already."""

    def __init__(self, gpu: Any, patch: pytest.MonkeyPatch) -> None:
        import torch

        self.others: list[int] | None = None
        self.own: list[int] = []
        self._gpu = gpu
        group = Group(gpu, "tp")
        group.world_size, group.cpu_group = 2, object()  # type: ignore[attr-defined]
        patch.setattr("vllm.distributed.parallel_state.get_tp_group", lambda: group)
        patch.setattr(torch.distributed, "all_reduce", self.all_reduce)

    def all_reduce(self, answer: Any, _: Any, group: Any) -> None:
        self.own.append(int(answer.item()))
        if self.others is not None:
            assert self.others, "waits for a rank that asks nothing any more"
            answer.fill_(min(self.own[-1], self.others.pop(0)))

    def next_rank(self) -> None:
        """What was said so far are the other rank's answers; before any there is none."""
        self.others, self.own = self.own or None, []
        self._gpu.pools, self._gpu.live = {}, {}  # each rank has a device of its own


@pytest.fixture
def together(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Together:
    return Together(gpu, monkeypatch)


def prepared(more: tuple[str, ...] = (), margin: int | None = None, verify: bool = False) -> Any:
    config = make_config()
    config.parallel_config.tensor_parallel_size = 2
    wrapper = Wrapper(make_runner(config))
    rank.prepare(wrapper, TOPS, verify, (), margin, more, 60.0)
    return wrapper


@pytest.fixture
def checks_pass(pristine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's replay does nothing, and what a check finds doesn't matter here."""
    monkeypatch.setattr("lazygraph_vllm.rank.verify.relative_difference", lambda *_: 0.0)


def break_cuda(gpu: Any, wrapper: Any, graph: str) -> None:
    pieces = len(wrapper.worker.model_runner.model.pieces)
    gpu.fail_at_begin = 0 if graph.startswith("PIECE") else pieces
    gpu.fail_with = "CUDA error: invalid argument"


@pytest.mark.usefixtures("checks_pass")
@pytest.mark.parametrize(
    "options",
    [{}, {"more": ("FULL:4", "FULL:1")}, {"margin": 0}, {"verify": True}],
    ids=lambda options: "-".join(options) or "tops",
)
@pytest.mark.parametrize("graph", TOPS)
def test_before_ready_both_end_at_once(
    gpu: Any, together: Together, graph: str, options: dict[str, Any]
) -> None:
    failing = prepared(**options)
    break_cuda(gpu, failing, graph)
    with pytest.raises(RuntimeError, match="invalid argument"):
        failing.compile_or_warm_up_model()
    gpu.capturing = None  # CUDA gives up a capture that failed
    together.next_rank()
    with pytest.raises(RankFailedError, match="another rank failed"):
        prepared(**options).compile_or_warm_up_model()
    assert together.others == [], "the rank that failed would wait for an answer"


def test_where_none_fails_they_agree_to_the_end(together: Together) -> None:
    """Positive control."""
    prepared(more=("FULL:4",)).compile_or_warm_up_model()
    together.next_rank()
    wrapper = prepared(more=("FULL:4",))
    wrapper.compile_or_warm_up_model()
    assert together.others == [] and len(together.own) == 3
    assert {c.graph for c in rank.finish_start(wrapper)["captured"]} == {*TOPS, "FULL:4"}


@pytest.mark.parametrize("second", [(0, 0), (5, 0)], ids=["without one", "with one that stays"])
def test_where_one_ranks_workspace_grows_all_run_the_same_sizes(
    together: Together, monkeypatch: pytest.MonkeyPatch, second: tuple[int, int]
) -> None:
    """Each run has collectives: a rank that ran fewer would answer one of them with another."""
    from lazygraph_vllm.vllm.choose import current

    first = prepared()
    ran = first.worker.model_runner.model.ran
    monkeypatch.setattr(type(current()), "workspaces", lambda _: (1 + len(ran), 0))
    first.compile_or_warm_up_model()
    assert {1, 2, 4, 8, 16} <= set(ran)
    together.next_rank()
    other = prepared()
    monkeypatch.setattr(type(current()), "workspaces", lambda _: second)
    other.compile_or_warm_up_model()
    assert other.worker.model_runner.model.ran == ran
    assert together.others == []


def served(together: Together, verify: bool) -> tuple[Any, Any]:
    """Both ranks after their start, the failing one first."""
    wrappers = []
    for _ in range(2):
        together.next_rank()
        wrappers.append(prepared(verify=verify))
        wrappers[-1].compile_or_warm_up_model()
        rank.finish_start(wrappers[-1])
    together.others, together.own = None, []
    return wrappers[0], wrappers[1]


@pytest.mark.usefixtures("checks_pass")
def test_a_check_later_is_not_begun_by_a_rank_alone(gpu: Any, together: Together) -> None:
    failing, other = served(together, verify=True)
    break_cuda(gpu, failing, "PIECEWISE:4")
    answer = rank.capture(failing, "PIECEWISE:4")
    assert "invalid argument" in answer["error"] and not answer["another"]
    gpu.capturing = None
    together.next_rank()
    answer = rank.capture(other, "PIECEWISE:4")
    assert "another rank failed" in answer["error"] and answer["another"]
    assert together.others == []


def test_a_check_that_fails_itself_answers_no_question_that_nobody_asks(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, other = served(together, verify=True)
    worst = "lazygraph_vllm.rank.verify.relative_difference"
    with monkeypatch.context() as broken:
        broken.setattr(worst, lambda *_: 1 / 0)
        assert "ZeroDivisionError" in rank.capture(failing, "FULL:4")["error"]
    together.next_rank()
    monkeypatch.setattr(worst, lambda *_: 0.0)
    assert "captured" in rank.capture(other, "FULL:4")
    assert together.others == []


def test_without_checks_a_later_capture_asks_nobody(gpu: Any, together: Together) -> None:
    failing, other = served(together, verify=False)
    break_cuda(gpu, failing, "PIECEWISE:4")
    assert "invalid argument" in rank.capture(failing, "PIECEWISE:4")["error"]
    gpu.capturing = None
    assert "captured" in rank.capture(other, "PIECEWISE:4")
    assert together.own == []
