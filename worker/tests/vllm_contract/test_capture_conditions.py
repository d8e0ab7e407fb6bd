"""What must hold while a later capture is under way, and must not outside it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from builders import make_config, make_runner, start
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.rank import memory
from vllm_facts import FREEZES_HEAP, FULL_ON_CONTEXT_STREAM, WARMS_UP_ON_CAPTURE_STREAM

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

LATER = ["PIECEWISE:8", "FULL:4", "PIECEWISE:2", "FULL:1"]


@pytest.fixture
def frozen_heap() -> Iterator[int]:
    """What vLLM does at the end of start-up, and what a capture must not undo."""
    gc.freeze()
    yield gc.get_freeze_count()
    gc.unfreeze()


def test_garbage_collection_is_off_in_captures_and_on_after(gpu: Any) -> None:
    wrapper, _ = start()
    gpu.gc_during_capture.clear()
    for name in LATER:
        rank.capture(wrapper, name)
        assert gc.isenabled()
    assert len(gpu.gc_during_capture) == 2 * len(wrapper.worker.model_runner.model.pieces) + 2
    assert not any(gpu.gc_during_capture)


def test_vllms_own_capture_leaves_it_on_unless_it_freezes(gpu: Any) -> None:
    """Positive control: the stand-in sees a collector that is on."""
    make_runner(make_config()).capture_model()
    assert len(gpu.gc_during_capture) > 0
    assert set(gpu.gc_during_capture) == {not FREEZES_HEAP}


def test_a_collector_that_was_off_stays_off(gpu: Any) -> None:
    wrapper, _ = start()
    gc.disable()
    rank.capture(wrapper, "FULL:4")
    assert not gc.isenabled()


def test_the_frozen_heap_stays_frozen(frozen_heap: int) -> None:
    wrapper, _ = start()
    before = gc.get_freeze_count()
    assert before >= frozen_heap - 100, "the start-up above must not have thawed it"
    for name in LATER:
        rank.capture(wrapper, name)
    # What is freed leaves the count, one by one; a thaw leaves nothing in it.
    assert gc.get_freeze_count() > before // 2 > 0


@pytest.mark.skipif(not FREEZES_HEAP, reason="this vLLM leaves the heap alone")
def test_vllms_own_capture_thaws_it(frozen_heap: int) -> None:
    """Positive control, and what a forked engine would pay for: all that its launcher imported."""
    make_runner(make_config()).capture_model()
    assert gc.get_freeze_count() == 0 < frozen_heap


def test_one_context_and_stream_for_all_captures(gpu: Any) -> None:
    wrapper, _ = start()
    for name in LATER:
        rank.capture(wrapper, name)
    at_start = 2 if WARMS_UP_ON_CAPTURE_STREAM else 1
    assert len(gpu.contexts) == at_start + len(LATER), "the warm-up, and one for all first graphs"
    assert len({id(context.stream) for context in gpu.contexts}) == 1
    own = 0 if FULL_ON_CONTEXT_STREAM else 1
    assert gpu.streams == 1 + own, "ours, and torch's own for FULL graphs where it has one"


def test_vllms_own_context_is_new_each_time(gpu: Any) -> None:
    """Positive control: this is what would cost a workspace per capture."""
    runners = [make_runner(make_config()) for _ in range(3)]
    for runner in runners:
        runner.capture_model()
    assert len({id(context.stream) for context in gpu.contexts}) == 3


def test_later_captures_leave_the_allocators_caches_alone(gpu: Any) -> None:
    import torch

    wrapper, _ = start()
    assert gpu.count("flush") > 0, "start-up may flush"
    flush, host_flush = torch.cuda.empty_cache, torch._C._host_emptyCache
    before = gpu.count("flush"), gpu.count("host-flush")
    for name in LATER:
        rank.capture(wrapper, name)
        assert (torch.cuda.empty_cache, torch._C._host_emptyCache) == (flush, host_flush)
    assert (gpu.count("flush"), gpu.count("host-flush")) == before


@pytest.mark.parametrize("name", ["PIECEWISE:8", "FULL:4"])
def test_everything_is_put_back_after_a_failure(gpu: Any, name: str) -> None:
    import torch
    from vllm.compilation import monitor
    from vllm.utils import jit_monitor
    from vllm.v1.worker.gpu import cudagraph_utils

    wrapper, _ = start()
    state = lambda: (  # noqa: E731
        torch.cuda.empty_cache,
        torch._C._host_emptyCache,
        cudagraph_utils.tqdm,
        jit_monitor._mode,
        monitor.cudagraph_capturing_enabled,
        gc.isenabled(),
        gpu.inside_context,
        wrapper.worker.model_runner.cudagraph_manager._capture_descs,
        torch.is_inference_mode_enabled(),
    )
    before = state()
    wrapper.worker.model_runner.model.fail_in_piece = 1
    assert "piece 1 failed" in rank.capture(wrapper, name)["error"]
    assert state() == before
    assert memory.output_lock.acquire(blocking=False)
    memory.output_lock.release()


def test_a_first_kernel_compiled_in_a_capture_is_no_error(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--jit-monitor-mode error`` a late capture would otherwise end the engine."""
    from vllm.utils import jit_monitor

    monkeypatch.setattr(jit_monitor, "_mode", "error")
    wrapper, _ = start()
    seen: list[str] = []
    pieces = wrapper.worker.model_runner.model.pieces
    runnable = pieces[0].runnable

    def noting(x: Any) -> Any:
        seen.append(jit_monitor._mode)
        return runnable(x)

    pieces[0].runnable = noting
    rank.capture(wrapper, "PIECEWISE:8")
    assert seen == ["warn"]
    assert jit_monitor._mode == "error"


def test_waiting_for_outputs_on_another_thread_is_held_off(gpu: Any) -> None:
    """An event wait on another thread ends a capture in torch's default mode."""
    import threading

    from vllm.v1.worker.gpu.async_utils import AsyncOutput

    wrapper, _ = start()
    fetched = threading.Event()
    order: list[str] = []
    output = AsyncOutput.__new__(AsyncOutput)

    class CopyEvent:
        def synchronize(self) -> None:
            order.append("wait")
            raise LookupError  # the rest of get_output needs a real batch

    output.copy_event = CopyEvent()

    def fetch() -> None:
        with pytest.raises(LookupError):
            output.get_output()
        fetched.set()

    pieces = wrapper.worker.model_runner.model.pieces
    runnable = pieces[0].runnable

    def with_fetcher(x: Any) -> Any:
        threading.Thread(target=fetch).start()
        assert not fetched.wait(0.05), "it must not get through while we capture"
        order.append("capture")
        return runnable(x)

    pieces[0].runnable = with_fetcher
    assert "error" not in rank.capture(wrapper, "PIECEWISE:8")
    assert fetched.wait(60)
    assert order == ["capture", "wait"]


def test_dummy_inputs_never_name_a_slot_of_the_kv_cache(gpu: Any) -> None:
    """Every slot mapping that a captured run sees is PAD: nothing can write the cache."""
    from vllm.forward_context import get_forward_context

    wrapper, _ = start()
    runner = wrapper.worker.model_runner
    slots: list[Any] = []
    dummy = runner.block_tables.get_dummy_slot_mappings
    runner.block_tables.get_dummy_slot_mappings = lambda n: slots.append(dummy(n)) or slots[-1]
    runnable = runner.model.pieces[0].runnable
    padded: list[bool] = []

    def noting(x: Any) -> Any:
        padded.append(bool(get_forward_context().is_padding.all()))
        return runnable(x)

    runner.model.pieces[0].runnable = noting
    for name in LATER:
        rank.capture(wrapper, name)
    assert len(slots) >= len(LATER)
    assert all((mapping == -1).all() for mapping in slots)
    assert padded == [True] * len(LATER)
