"""Captures beside LoRA adapters: each case its own graph, and no adapter is touched."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from adapters_bed import (
    adapter,
    adapter_state,
    answer,
    kernel_metadata,
    start_with_adapters,
)
from lazygraph_vllm.rank import calls as rank
from vllm_facts import AT

pytestmark = [
    pytest.mark.usefixtures("pristine", "gpu"),
    pytest.mark.skipif(AT < (0, 31), reason="LoRA runs as stock before vLLM 0.31"),
]

CASE = 3  # of two adapters: any number of them, and the base model's rows


def names(wrapper: Any) -> set[str]:
    return set(wrapper.worker.model_runner.lazygraph.state.captured)


def test_each_case_has_its_graphs_and_its_tops() -> None:
    wrapper = start_with_adapters()
    assert {g.loras for g in wrapper.graphs} == {0, CASE}
    assert names(wrapper) == {"FULL:8", f"FULL:8:l{CASE}", "PIECEWISE:16", f"PIECEWISE:16:l{CASE}"}


def test_the_start_leaves_no_dummy_behind() -> None:
    runner = start_with_adapters().worker.model_runner
    assert adapter_state(runner)["registered"] == []
    assert "_set_active_loras" not in vars(runner)


def test_a_step_gets_the_graph_of_its_own_case_or_none() -> None:
    wrapper = start_with_adapters(first=["FULL:8", "PIECEWISE:16"])
    runner = wrapper.worker.model_runner
    one, two = adapter(1, 2.0), adapter(2, 3.0)
    assert answer(runner, [None, None])[1].num_active_loras == 0
    _, ungraphed = answer(runner, [one, None])
    assert (ungraphed.cg_mode.name, ungraphed.num_tokens) == ("NONE", 2)
    assert "error" not in rank.capture(wrapper, f"FULL:4:l{CASE}")
    for requests in ([one, None], [one, two], [one, one, two, None]):
        _, desc = answer(runner, requests)
        assert (desc.cg_mode.name, desc.num_tokens, desc.num_active_loras) == ("FULL", 4, CASE)
    _, plain = answer(runner, [None, None])
    assert (plain.cg_mode.name, plain.num_tokens, plain.num_active_loras) == ("FULL", 8, 0)


def test_a_graph_of_a_case_records_the_adapters_kernels_and_a_plain_one_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernels return at once where the metadata says that there is no adapter."""
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    answer(runner, [None])
    recorded: dict[str, Any] = {}
    model = runner.model.__call__

    def noting(**inputs: Any) -> Any:
        meta = kernel_metadata(runner)
        slots = {int(s) for s in meta.active_lora_ids if int(s) >= 0}
        state = runner.lazygraph.capturer.in_capture
        recorded[state] = (bool(meta.no_lora_flag_cpu[0]), slots)
        return model(**inputs)

    monkeypatch.setattr(type(runner.model), "__call__", lambda _, **inputs: noting(**inputs))
    for name in ("FULL:2", f"FULL:2:l{CASE}", "PIECEWISE:2", f"PIECEWISE:2:l{CASE}"):
        assert "error" not in rank.capture(wrapper, name)
    assert recorded["FULL:2"][0] is recorded["PIECEWISE:2"][0] is True
    assert recorded[f"FULL:2:l{CASE}"] == recorded[f"PIECEWISE:2:l{CASE}"] == (False, {0, 1})


# More adapters than slots: 3 and 4 are in slots, 1 and 2 on the host, under the dummies' numbers.
USERS = [adapter(n, 10.0 + n) for n in (1, 2, 3, 4)] if AT >= (0, 31) else []


def serve_all(runner: Any) -> list[float]:
    """Every user's adapter once, one after the other: the last ones stay in the slots."""
    return [answer(runner, [user])[0][0] for user in USERS]


def test_a_hundred_captures_between_steps_change_no_adapter() -> None:
    wrapper = start_with_adapters(first=["FULL:8", f"FULL:8:l{CASE}"])
    runner = wrapper.worker.model_runner
    assert serve_all(runner) == [11.0, 12.0, 13.0, 14.0]
    before = adapter_state(runner)
    assert before["slots"] == [3, 4] and before["registered"] == [1, 2, 3, 4]
    todo = [g.id for g in wrapper.graphs if g.id not in names(wrapper)]
    for turn in range(100):
        name = todo[turn % len(todo)]
        if name in names(wrapper):
            rank.purge(wrapper, {name: "to be captured anew"})
            runner.lazygraph.state.failed.clear()
        assert "error" not in rank.capture(wrapper, name)
        assert adapter_state(runner) == before
        # The same batch as before the capture: its metadata must be its own again.
        assert answer(runner, [USERS[3], USERS[2], None])[0] == [14.0, 13.0, 0.0]
        before = adapter_state(runner)
    assert serve_all(runner) == [11.0, 12.0, 13.0, 14.0]


def test_a_pinned_adapter_stays_pinned_where_it_is() -> None:
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    serve_all(runner)
    assert runner.pin_lora(3)
    before = adapter_state(runner)
    assert "error" not in rank.capture(wrapper, f"FULL:1:l{CASE}")
    assert adapter_state(runner) == before and before["pinned"] == [3]


def test_a_capture_that_fails_leaves_the_adapters_alone_too() -> None:
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    serve_all(runner)
    before = adapter_state(runner)
    runner.model.fail_in_piece = 1
    assert "error" in rank.capture(wrapper, f"PIECEWISE:2:l{CASE}")
    runner.model.fail_in_piece = None
    assert "_set_active_loras" not in vars(runner)
    assert adapter_state(runner) == before
    assert serve_all(runner) == [11.0, 12.0, 13.0, 14.0]


def test_vllms_own_dummies_between_steps_fail_the_same_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Positive control: what vLLM does around its own capture unloads every user's adapter."""
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    serve_all(runner)
    before = adapter_state(runner)
    adapter_class = type(runner.lazygraph.state.adapter)

    def as_at_the_start(_: Any, runner: Any) -> Any:
        return runner.maybe_setup_dummy_loras(runner.lora_config)

    monkeypatch.setattr(adapter_class, "between_steps", as_at_the_start)
    assert "error" not in rank.capture(wrapper, f"FULL:2:l{CASE}")
    after = adapter_state(runner)
    assert after["registered"] == [] != before["registered"]
    assert after["slots"] == [None, None] != before["slots"]


def test_metadata_that_is_left_as_the_capture_had_it_fails_the_same_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Positive control: vLLM skips a mapping that it has set last, and ours would be in place."""
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    serve_all(runner)
    batch = [USERS[3], USERS[2], None]  # not in the order of their slots, as the dummies are
    expected = answer(runner, batch)[0]
    manager = runner.lora_manager._adapter_manager
    last = manager._last_mapping
    assert "error" not in rank.capture(wrapper, f"FULL:2:l{CASE}")
    assert manager._last_mapping is None
    manager._last_mapping = last
    assert answer(runner, batch)[0] != expected
    manager._last_mapping = None
    assert answer(runner, batch)[0] == expected


def test_each_size_with_adapters_warms_up_once_and_plain_sizes_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LoRA's kernels are compiled by size: none may run for the first time inside a capture."""
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner

    def runs_of(name: str) -> int:
        at = len(runner.model.ran)
        assert "error" not in rank.capture(wrapper, name)
        return len(runner.model.ran) - at

    assert runs_of("FULL:4") == 1  # the capture itself
    assert runs_of(f"FULL:4:l{CASE}") == 2
    assert runs_of(f"PIECEWISE:4:l{CASE}") == 1  # FULL has run its kernels
    assert runs_of(f"PIECEWISE:2:l{CASE}") == 2
    assert runs_of(f"FULL:2:l{CASE}") == 1
    assert runs_of("PIECEWISE:2") == 1


def test_a_manager_that_changed_makes_the_engine_run_as_stock() -> None:
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    del runner.lora_manager._adapter_manager._last_mapping
    reason = runner.lazygraph.state.adapter.unsupported_runner(runner)
    assert reason == "this vLLM's manager of LoRA adapters lacks _last_mapping"


def test_the_planned_graphs_are_counted_by_case() -> None:
    from adapters_bed import make_adapter_config
    from lazygraph_vllm.vllm import preflight

    config = make_adapter_config(2, 4)
    assert preflight.planned(config) == {"FULL": 8, "PIECEWISE": 10}
    wrapper = start_with_adapters()
    adapter_ = wrapper.worker.model_runner.lazygraph.state.adapter
    manager = adapter_.planning_manager(wrapper.worker.model_runner)
    planned = {m.name: len(d) for m, d in adapter_.planned(manager).items()}
    assert planned == preflight.planned(config)


def test_a_check_of_a_new_graph_leaves_the_adapters_alone() -> None:
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    serve_all(runner)
    before = adapter_state(runner)
    runner.lazygraph.capturer.verify = True
    name = f"PIECEWISE:4:l{CASE}"
    with contextlib.suppress(RuntimeError):
        rank.capture(wrapper, name)
    assert name in runner.lazygraph.state.verified
    assert adapter_state(runner) == before
    assert serve_all(runner) == [11.0, 12.0, 13.0, 14.0]


def test_a_graph_that_is_there_is_not_captured_again() -> None:
    wrapper = start_with_adapters()
    runner = wrapper.worker.model_runner
    runs = len(runner.model.ran)
    answer_ = rank.capture(wrapper, f"FULL:8:l{CASE}")
    assert answer_["captured"].graph == f"FULL:8:l{CASE}" and "error" not in answer_
    assert len(runner.model.ran) == runs
