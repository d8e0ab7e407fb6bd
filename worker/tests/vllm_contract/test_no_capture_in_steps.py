"""No real step captures: vLLM's V2 runner leaves capturing allowed for ever, we don't."""

from __future__ import annotations

from typing import Any

import pytest

from builders import make_config, make_runner, start, step
from lazygraph_vllm.rank import calls as rank

pytestmark = pytest.mark.usefixtures("pristine", "gpu")


def piecewise_step(runner: Any, tokens: int) -> Any:
    """A real step that was sent to the PIECEWISE graph of so many tokens."""
    import torch
    from vllm.config.compilation import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor, set_forward_context

    with (
        torch.inference_mode(),
        set_forward_context(
            {},
            runner.vllm_config,
            num_tokens=tokens,
            cudagraph_runtime_mode=CUDAGraphMode.PIECEWISE,
            batch_descriptor=BatchDescriptor(num_tokens=tokens, has_lora=False),
        ),
    ):
        return runner.model(
            input_ids=runner.input_buffers.input_ids[:tokens],
            positions=runner.input_buffers.positions[:tokens],
        )


def test_a_step_of_a_missing_graph_raises_instead_of_capturing(gpu: Any) -> None:
    wrapper, _ = start()
    begun = gpu.count("begin")
    with pytest.raises(RuntimeError, match="capturing detected at an inappropriate time"):
        piecewise_step(wrapper.worker.model_runner, 4)
    assert gpu.count("begin") == begun


def test_it_raises_after_later_captures_too(gpu: Any) -> None:
    wrapper, _ = start()
    rank.capture(wrapper, "PIECEWISE:8")
    wrapper.worker.model_runner.model.fail_in_piece = 1
    assert "error" in rank.capture(wrapper, "PIECEWISE:2")
    wrapper.worker.model_runner.model.fail_in_piece = None
    begun = gpu.count("begin")
    with pytest.raises(RuntimeError, match="capturing detected at an inappropriate time"):
        piecewise_step(wrapper.worker.model_runner, 2)
    assert gpu.count("begin") == begun


def test_with_vllms_flag_left_on_the_same_step_captures(gpu: Any) -> None:
    """Positive control: without ``finish_start`` the step above captures, and returns garbage."""
    runner = make_runner(make_config())
    runner.capture_model()
    for wrapped in runner.model.pieces:
        for key in list(wrapped.concrete_cudagraph_entries):
            if key.num_tokens == 4:
                del wrapped.concrete_cudagraph_entries[key]
    begun = gpu.count("begin")
    piecewise_step(runner, 4)
    assert gpu.count("begin") == begun + len(runner.model.pieces)


def test_captures_themselves_are_allowed_and_off_around(gpu: Any) -> None:
    from vllm.compilation import monitor

    wrapper, _ = start()
    assert monitor.cudagraph_capturing_enabled is False
    gpu.flag_during_capture.clear()
    rank.capture(wrapper, "PIECEWISE:8")
    assert gpu.flag_during_capture == [True] * len(wrapper.worker.model_runner.model.pieces)
    assert monitor.cudagraph_capturing_enabled is False


def test_steps_between_captures_never_capture(gpu: Any) -> None:
    wrapper, _ = start()
    for graph in wrapper.graphs:
        begun = gpu.count("begin")
        for lengths in ([1], [1] * 3, [1] * 8, [5], [1, 2, 3], [16], [17]):
            wrapper.execute_model(step(*lengths))
            wrapper.sample_tokens(None)
        assert gpu.count("begin") == begun
        if graph.id not in wrapper.worker.model_runner.lazygraph.state.captured:
            rank.capture(wrapper, graph.id)
