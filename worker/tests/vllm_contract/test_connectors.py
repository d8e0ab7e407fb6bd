"""Captures while a KV cache is offloaded: copies, blocks and the connector's calls stay apart."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import builders
import connectors_bed as bed
from connectors_bed import OFFLOADING, SIMPLE, jobs, one_step
from lazygraph_vllm.rank import calls as rank
from lazygraph_vllm.vllm import connectors
from vllm_facts import AT

pytestmark = [
    pytest.mark.usefixtures("pristine", "gpu"),
    pytest.mark.skipif(AT < (0, 31), reason="KV offloading runs as stock before vLLM 0.31"),
]

BOTH = pytest.mark.parametrize("kind", [OFFLOADING, SIMPLE])
WAIT_SECONDS_MAX = 60


@pytest.fixture
def device(gpu: Any, pristine: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    return bed.install(gpu, monkeypatch)


def runner_of(wrapper: Any) -> Any:
    return wrapper.worker.model_runner


def missing(wrapper: Any) -> list[str]:
    held = runner_of(wrapper).lazygraph.state.captured
    return [g.id for g in wrapper.graphs if g.id not in held]


def submitted(wrapper: Any) -> None:
    """Wait until the connector's thread, if it has one, has begun what it was given."""
    assert connectors.why_not_now(runner_of(wrapper)) is None


# ------------------------------------------------------------------ copies and blocks


def fill_with_copies(kind: str, device: Any, wrapper: Any) -> tuple[list[int], list[str]]:
    """Offload three blocks, give them to others, and load them again and again among captures.

    Returns:
        How many copies were under way before each capture, and what is wrong of blocks and chunks.
    """
    runner = runner_of(wrapper)
    first = runner.cache.clone()
    runner.jobs.append(jobs(kind, store={5: 0, 6: 1, 7: 2}))
    one_step(wrapper)
    one_step(wrapper)  # a store may be put off to the next step
    submitted(wrapper)
    device.run()
    runner.cache[5:8] = 1  # somebody else's now
    expected = runner.cache.clone()
    counts, errors = [], []
    for turn, name in enumerate(missing(wrapper)):
        into = 8 + turn % 12
        runner.jobs.append(jobs(kind, load={turn % 3: into}, store={3: 4}))
        one_step(wrapper)
        expected[into] = first[5 + turn % 3]
        submitted(wrapper)
        counts.append(device.under_way)
        answer = rank.capture(wrapper, name)
        assert "error" not in answer, answer
        device.run()
        if not (runner.cache == expected).all():
            errors.append(f"blocks after {name}")
            expected = runner.cache.clone()
        one_step(wrapper)
        submitted(wrapper)
        device.run()
        if not (runner.host[4] == first[3]).all():
            errors.append(f"chunks after {name}")
    return counts, errors


@BOTH
def test_captures_among_copies_change_no_block_and_no_chunk(kind: str, device: Any) -> None:
    wrapper = bed.start(kind, device)
    device.in_capture.clear()
    counts, errors = fill_with_copies(kind, device, wrapper)
    assert len(counts) > 5 and min(counts) > 0, "copies were under way at each capture"
    assert errors == []
    assert device.in_capture == [] and missing(wrapper) == []


@BOTH
def test_a_capture_that_writes_a_live_block_is_found(
    kind: str, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: a dummy batch with the slots of the step before."""
    wrapper = bed.start(kind, device)
    tables = runner_of(wrapper).block_tables

    def stale(tokens: int) -> Any:
        return tables.slot_mappings.fill_(3 * bed.BLOCK_TOKENS)[:, :tokens]

    monkeypatch.setattr(tables, "get_dummy_slot_mappings", stale)
    _, errors = fill_with_copies(kind, device, wrapper)
    assert errors


@BOTH
def test_a_block_that_is_loaded_wrong_is_found(
    kind: str, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: what lies on the host is another thing than what was stored."""
    wrapper = bed.start(kind, device)
    runner, run = runner_of(wrapper), device.run

    def corrupting(until: int | None = None) -> None:
        run(until)
        runner.host[1] = 7

    monkeypatch.setattr(device, "run", corrupting)
    _, errors = fill_with_copies(kind, device, wrapper)
    assert errors


# ------------------------------------------------------------------ whose calls, and when


def test_the_offloading_connector_calls_cuda_on_the_models_thread_alone(device: Any) -> None:
    before = set(threading.enumerate())
    wrapper = bed.start(OFFLOADING, device)
    fill_with_copies(OFFLOADING, device, wrapper)
    assert set(threading.enumerate()) == before
    assert device.threads == {threading.get_ident()}


def test_the_simple_connector_calls_cuda_on_another_thread(device: Any) -> None:
    wrapper = bed.start(SIMPLE, device)
    fill_with_copies(SIMPLE, device, wrapper)
    assert len(device.threads - {threading.get_ident()}) == 1


def queue_slow_copies(device: Any, wrapper: Any, count: int) -> threading.Event:
    """Give the thread copies that it begins only some time later; ends when a capture is there."""
    gate = threading.Event()

    def wait() -> None:
        gate.wait(WAIT_SECONDS_MAX)

    device.before_copy = wait
    for _ in range(count):
        runner_of(wrapper).jobs.append(jobs(SIMPLE, load={0: 9}))
        one_step(wrapper)
    return gate


def test_a_copy_of_no_block_is_none() -> None:
    """What stands in for vLLM's copies does as they do."""
    from vllm.v1.simple_kv_offload import cuda_mem_ops

    nothing: Any = None  # no parameter is looked at
    assert cuda_mem_ops.copy_blocks([], [], nothing) is None
    with pytest.raises((AssertionError, AttributeError)):
        cuda_mem_ops.copy_blocks([1], [2], nothing)


@pytest.mark.parametrize("graph", ["FULL:4", "PIECEWISE:4"])
def test_a_capture_begins_when_the_thread_has_begun_all_copies(
    device: Any, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = bed.start(SIMPLE, device)
    gate = queue_slow_copies(device, wrapper, 3)
    begun = len(device.begun)
    threading.Timer(0.05, gate.set).start()
    assert "error" not in rank.capture(wrapper, graph)
    assert len(device.begun) == begun + 3 and device.in_capture == []


@pytest.mark.parametrize("graph", ["FULL:4", "PIECEWISE:4"])
def test_calls_of_the_thread_inside_a_capture_are_found(
    device: Any, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: nobody waits for the thread."""
    monkeypatch.setattr(connectors, "apart", lambda _: contextlib.nullcontext())
    wrapper = bed.start(SIMPLE, device)
    gate = queue_slow_copies(device, wrapper, 1)
    runner = runner_of(wrapper)
    piece = runner.model.pieces[-1]
    found = threading.Event()
    called = device.called

    def noting(name: str) -> None:
        called(name)
        if device.in_capture:
            found.set()

    def inside(x: Any) -> Any:
        if device.gpu.capturing is not None:
            gate.set()
            found.wait(WAIT_SECONDS_MAX)
        return own(x)

    own = piece.runnable
    monkeypatch.setattr(piece, "runnable", inside)
    monkeypatch.setattr(device, "called", noting)
    rank.capture(wrapper, graph)
    assert device.in_capture


# ------------------------------------------------------------------ attention's hooks


@BOTH
def test_their_hooks_in_attention_do_nothing_and_keep_full_graphs(kind: str) -> None:
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    connector_class: Any = KVConnectorFactory.get_connector_class_by_name(kind)
    assert not connector_class.requires_piecewise_for_cudagraph({})
    bare = connector_class.__new__(connector_class)  # no attribute that they could use
    assert bare.wait_for_layer_load(bed.LAYER) is None
    assert bare.save_kv_layer(bed.LAYER, None, None) is None


def hooks_called(wrapper: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers whose hook is called from now on."""
    connector = runner_of(wrapper).kv_connector.kv_connector
    called: list[str] = []
    monkeypatch.setattr(connector, "wait_for_layer_load", called.append)
    # As if a step's were left: only what is switched off calls nothing then.
    monkeypatch.setattr(connector, "has_connector_metadata", lambda: True)
    return called


@BOTH
def test_in_a_capture_no_hook_is_called_and_after_it_all_are(
    kind: str, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = bed.start(kind, device)
    called = hooks_called(wrapper, monkeypatch)
    told = rank.preflight(wrapper, "FULL:4", 1)
    assert "in the middle of a step" in told["reason"] and told["later"] is True
    monkeypatch.setattr(connectors, "why_not_now", lambda _: None)
    assert "error" not in rank.capture(wrapper, "FULL:4")
    assert "error" not in rank.capture(wrapper, "PIECEWISE:4")
    assert called == []
    one_step(wrapper, 5)
    assert called == [bed.LAYER], "positive control: a step calls it"


@BOTH
def test_a_connector_that_is_left_on_is_called_in_a_capture(
    kind: str, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: as vLLM's own capture at a start leaves it."""
    wrapper = bed.start(kind, device)
    called = hooks_called(wrapper, monkeypatch)
    monkeypatch.setattr(connectors, "apart", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(connectors, "why_not_now", lambda _: None)
    rank.capture(wrapper, "FULL:4")
    assert called


@BOTH
def test_a_capture_that_fails_switches_the_connector_on_again(kind: str, device: Any) -> None:
    from vllm.distributed.kv_transfer import kv_transfer_state

    wrapper = bed.start(kind, device)
    runner = runner_of(wrapper)
    runner.model.fail_in_piece = 1
    assert "piece 1 failed" in rank.capture(wrapper, "FULL:4")["error"]
    runner.model.fail_in_piece = None
    assert runner.kv_connector._disabled is False
    assert kv_transfer_state._KV_CONNECTOR_AGENT is runner.kv_connector.kv_connector
    runner.jobs.append(jobs(kind, store={5: 0}))
    one_step(wrapper)
    one_step(wrapper)
    submitted(wrapper)
    device.run()
    assert (runner.host[0] == runner.cache[5]).all(), "it goes on where it was"


# ------------------------------------------------------------------ a connector that fails


def break_thread(wrapper: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> threading.Event:
    """End the thread of copies by an error of CUDA's, or have it hang; sets it free again."""
    backend = runner_of(wrapper).kv_connector.kv_connector.worker_handler._backend
    gate = threading.Event()
    if how == "ended":
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        backend._queue.put("no copy")  # it can't be unpacked
        backend._thread.join(WAIT_SECONDS_MAX)
        assert not backend._thread.is_alive()
    else:
        monkeypatch.setattr(connectors, "FENCE_SECONDS_MAX", 0.05)
        monkeypatch.setattr(
            "vllm.v1.simple_kv_offload.copy_backend.copy_blocks",
            lambda *_: gate.wait(WAIT_SECONDS_MAX),
        )
    return gate


@pytest.mark.parametrize(
    ("how", "outcome", "sentence"),
    [
        ("ended", "refused", "thread of copies has ended"),
        ("hangs", "deferred", "didn't answer within 0.05 s"),
    ],
)
def test_a_thread_that_fails_is_one_sentence_and_the_engine_serves(
    serving: Any,
    controller: Any,
    device: Any,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    outcome: str,
    sentence: str,
) -> None:
    from lazygraph_vllm.protocol.messages import Capture, Edge, Result

    def make_runner(config: Any) -> Any:
        return bed.make_runner(SIMPLE, device)

    monkeypatch.setattr(builders, "make_runner", make_runner)
    monkeypatch.setenv("LAZYGRAPH_ALLOW_UNTESTED", "1")
    engine = serving()
    controller.wait_for(Edge, where=lambda e: e.state == "idle")

    def capture(command: int, graph: str) -> Any:
        controller.send(Capture(command=command, graph=graph, when_idle=False))
        return controller.wait_for(Result, where=lambda r: r.command == command)

    assert capture(1, "FULL:4").outcome == "captured"
    gate = break_thread(engine.wrapper, monkeypatch, how)
    try:
        held = dict(engine.runner.lazygraph.state.captured)
        result = capture(2, "FULL:2")
        assert result.outcome == outcome and sentence in result.reason
        assert "\n" not in result.reason
        again = capture(3, "PIECEWISE:2")
        assert again.outcome == outcome and "thread of copies" in again.reason
        assert engine.runner.lazygraph.state.captured == held, "nothing is lost"
        assert engine.runner.lazygraph.state.failed == {}, "and it may be tried again"
        before = engine.scheduler.steps
        engine.core.input_queue.put_nowait(builders.request("r", steps=3))
        engine.scheduler.wait_for_steps(before + 3)
        assert engine.error is None and engine.thread.is_alive()
    finally:
        gate.set()
    if how == "hangs":
        backend = engine.runner.kv_connector.kv_connector.worker_handler._backend
        assert backend.lazygraph_fence.passed.wait(WAIT_SECONDS_MAX)
        assert capture(4, "FULL:2").outcome == "captured", "it answers again"


def test_a_thread_that_ended_before_the_start_leaves_the_engine_to_vllm(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = builders.Wrapper(bed.make_runner(SIMPLE, device))
    break_thread(wrapper, monkeypatch, "ended")
    told = rank.describe(wrapper)
    assert told == {"unsupported": "the KV connector's thread of copies has ended"}


@BOTH
def test_a_capture_past_the_preflight_fails_alone(
    kind: str, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = bed.start(kind, device)
    active = runner_of(wrapper).kv_connector
    before = rank.preflight(wrapper, "FULL:2", 1)["hash"]
    with monkeypatch.context() as patch:
        patch.setattr(active.kv_connector, "has_connector_metadata", lambda: True)
        answer = rank.capture(wrapper, "FULL:4")
    assert answer["error"] == "ConnectorError: the KV connector is in the middle of a step"
    assert answer["hash"] == before
    assert "error" not in rank.capture(wrapper, "FULL:2")


# ------------------------------------------------------------------ is it the vLLM we know?


@BOTH
def test_what_is_known_is_supported(kind: str, device: Any) -> None:
    wrapper = builders.Wrapper(bed.make_runner(kind, device))
    assert "unsupported" not in rank.describe(wrapper)


def test_other_classes_behind_a_known_connector_run_as_stock(device: Any) -> None:
    runner = bed.make_runner(OFFLOADING, device)
    runner.kv_connector.kv_connector.connector_worker.worker = SimpleNamespace()
    assert connectors.missing(runner) == (
        "this vLLM offloads by SimpleNamespace, expected CPUOffloadingWorker"
    )
    runner.kv_connector.kv_connector = SimpleNamespace(has_connector_metadata=lambda: False)
    assert connectors.missing(runner) == "not supported: the KV connector SimpleNamespace"
    runner.kv_connector = SimpleNamespace()
    assert connectors.missing(runner) == (
        "this vLLM's KV connector of a model runner lacks set_disabled"
    )
    other = bed.make_runner(SIMPLE, device)
    other.kv_connector.kv_connector.worker_handler._backend = SimpleNamespace()
    assert connectors.missing(other) == (
        "this vLLM offloads by SimpleNamespace, expected DmaCopyBackend"
    )
    other.kv_connector.kv_connector.worker_handler = None
    assert connectors.missing(other) is None, "without prefix caching it does nothing"


def resolved(monkeypatch: pytest.MonkeyPatch, backend: str = "native", simple: bool = False) -> Any:
    """What vLLM itself makes of ``--kv-offloading-size 2``."""
    import vllm.envs as envs
    from vllm.config.vllm import VllmConfig

    monkeypatch.setattr(envs, "VLLM_USE_SIMPLE_KV_OFFLOAD", simple, raising=False)
    config = SimpleNamespace(
        cache_config=SimpleNamespace(kv_offloading_size=2.0, kv_offloading_backend=backend),
        kv_transfer_config=None,
    )
    VllmConfig._post_init_kv_transfer_config(config)
    return config


def test_vllms_own_options_make_a_connector_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for simple, name in ((False, OFFLOADING), (True, SIMPLE)):
        config = resolved(monkeypatch, simple=simple)
        assert connectors.name_of(config) == name
        assert connectors.foreign(config) is None and connectors.other_tier(config) is None
        assert config.kv_transfer_config.kv_connector_extra_config["cpu_bytes_to_use"] == 2 << 30
    foreign = connectors.foreign(resolved(monkeypatch, "lmcache"))
    assert foreign is not None and "the KV connector LMCacheMPConnector, only" in foreign


def test_every_other_connector_of_vllm_is_refused_by_its_name() -> None:
    from vllm.config import KVTransferConfig
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    names = set(KVConnectorFactory._registry)
    assert set(connectors.CONNECTORS) < names and len(names) > 8
    for name in names:
        made = KVTransferConfig(kv_connector=name, kv_role="kv_both")
        reason = connectors.foreign(SimpleNamespace(kv_transfer_config=made))
        assert (reason is None) == (name in connectors.CONNECTORS)
        assert reason is None or reason.startswith(f"the KV connector {name}, only ")


def test_vllms_other_tiers_are_told_by_their_names() -> None:
    from vllm.config import KVTransferConfig
    from vllm.v1.kv_offload.factory import OffloadingSpecFactory

    assert connectors.HOST_SPEC in OffloadingSpecFactory._registry
    for name in OffloadingSpecFactory._registry:
        made = KVTransferConfig(
            kv_connector=OFFLOADING,
            kv_role="kv_both",
            kv_connector_extra_config={"spec_name": name},
        )
        tier = connectors.other_tier(SimpleNamespace(kv_transfer_config=made))
        assert tier == (None if name == connectors.HOST_SPEC else name)
