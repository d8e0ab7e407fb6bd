"""Weights that are replaced while the engine is up, by vLLM's own calls: no capture meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from builders import start
from lazygraph_vllm.protocol.messages import Capture, Edge, Result
from lazygraph_vllm.rank import calls as rank

pytestmark = pytest.mark.usefixtures("pristine", "gpu")

HIDDEN = 4


class Transfer:
    """A backend of vLLM's weight transfer that gets checkpoints, as most of them do."""

    supports_draft_weight_update = False

    def __init__(self, layer: Any) -> None:
        from vllm.model_executor.model_loader import reload

        self.layer = layer
        reload.record_metadata_for_reloading(layer)

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader import reload

        reload.initialize_layerwise_reload(self.layer)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        for name, value in update_info.items():
            parameter = getattr(self.layer, name)
            parameter.weight_loader(parameter, value)

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader import reload

        reload.finalize_layerwise_reload(self.layer, None)

    def reset_weight_update_target(self) -> None: ...


def with_weights(wrapper: Any) -> Any:
    """Give this rank vLLM's own ``Worker`` and a model with a layer whose weights can be replaced.

    Returns:
        That layer; forward runs read it.
    """
    import torch
    from vllm.v1.worker.gpu_worker import Worker

    layer = torch.nn.Linear(HIDDEN, HIDDEN, bias=False)
    layer.weight.weight_loader = lambda param, value: param.data.copy_(value)
    runner = wrapper.worker.model_runner
    model = type(runner.model)

    class Weighted(model):  # type: ignore[misc,valid-type]
        def parameters(self) -> Any:
            return layer.parameters()

        def buffers(self) -> Any:
            return layer.buffers()

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return layer(super().__call__(*args, **kwargs))

    runner.model.__class__ = Weighted
    worker = Worker.__new__(Worker)
    vars(worker).update(vars(wrapper.worker))
    worker.vllm_config = runner.vllm_config
    worker.model_config = runner.vllm_config.model_config
    worker.weight_transfer_engine = Transfer(layer)
    worker._weight_update_active = worker._weight_update_is_draft = False
    runner.reset_lora_state = lambda: None
    wrapper.worker = worker
    for name in ("start_weight_update", "update_weights", "finish_weight_update"):
        setattr(wrapper, name, getattr(worker, name))
    return layer


def utility(method: str, *args: Any) -> Any:
    """What a client's ``collective_rpc`` is in the engine's input queue."""
    from vllm.v1.engine import EngineCoreRequestType

    return EngineCoreRequestType.UTILITY, (0, 1, "collective_rpc", [method, None, args])


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it didn't come to that"
        time.sleep(0.005)


def told(controller: Any, command: int, graph: str) -> Result:
    controller.send(Capture(command=command, graph=graph, when_idle=True))
    return controller.wait_for(Result, where=lambda r: r.command == command)


@pytest.fixture
def weighted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Engines that are started in this test have weights that can be replaced."""
    import builders

    layers: list[Any] = []
    init = builders.Wrapper.__init__

    def with_layer(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        layers.append(with_weights(self))

    monkeypatch.setattr(builders.Wrapper, "__init__", with_layer)
    return layers


def test_a_capture_waits_until_the_weights_are_there(
    weighted: list[Any], serving: Any, controller: Any
) -> None:
    import torch

    engine = serving(mode="lazy")
    controller.wait_for(Edge, where=lambda e: e.state == "idle")
    queue, worker, [layer] = engine.core.input_queue, engine.wrapper.worker, weighted
    address = layer.weight.data_ptr()
    queue.put_nowait(utility("start_weight_update"))
    wait_until(lambda: worker._weight_update_active)
    assert layer.weight.is_meta, "positive control: a run in between would find no weights"
    result = told(controller, 1, "FULL:4")
    assert (result.outcome, result.reason) == (
        "deferred",
        "its weights are being replaced: finish_weight_update ends that",
    )
    queue.put_nowait(utility("update_weights", {"weight": torch.full((HIDDEN, HIDDEN), 2.0)}))
    queue.put_nowait(utility("finish_weight_update"))
    wait_until(lambda: not worker._weight_update_active)
    assert layer.weight.data_ptr() == address and bool((layer.weight == 2).all())
    assert told(controller, 2, "FULL:4").outcome == "captured"
    assert engine.agent.state.gone == {} and engine.error is None


def test_alone_it_loses_no_graph_by_an_update_and_fills_after_it(
    weighted: list[Any], serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builders
    from lazygraph_vllm.engine.lockstep import Lockstep

    asked: list[str] = []
    capture = Lockstep.capture

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = capture(self, *args, **kwargs)
        asked.append(result.outcome)
        return result

    make_core = builders.make_core

    def replacing(executor: Any, *args: Any) -> Any:
        executor.driver_worker.start_weight_update()
        return make_core(executor, *args)

    monkeypatch.setattr(Lockstep, "capture", noting)
    monkeypatch.setattr(builders, "make_core", replacing)
    engine = serving(connect=False)
    wait_until(lambda: bool(asked))
    assert set(asked) == {"deferred"}
    engine.core.input_queue.put_nowait(utility("finish_weight_update"))
    wait_until(lambda: len(engine.runner.lazygraph.state.captured) == 9)
    assert engine.agent.state.gone == {} and engine.error is None


@pytest.mark.parametrize("part", ["parameter", "buffer"])
def test_whoever_reloads_layers_without_vllms_flag_is_seen_by_the_layers(part: str) -> None:
    import torch

    wrapper, _ = start()
    layer = with_weights(wrapper)
    assert rank.preflight(wrapper, "FULL:4", 1)["reason"] is None
    if part == "parameter":
        Transfer(layer).start_weight_update()
    else:
        layer.register_buffer("scale", torch.empty(1, device="meta"))
    answer = rank.preflight(wrapper, "FULL:4", 1)
    assert answer["later"] and "on no device" in answer["reason"]


def test_a_drafters_weights_count_as_well() -> None:
    import torch

    wrapper, _ = start()
    with_weights(wrapper)
    drafter = torch.nn.Linear(2, 2, device="meta")
    wrapper.worker.model_runner.speculator = type("Speculator", (), {"model": drafter})()
    assert "on no device" in rank.preflight(wrapper, "FULL:4", 1)["reason"]


def test_what_was_on_no_device_from_the_start_is_nobodys_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    import builders

    layers: list[Any] = []
    init = builders.Wrapper.__init__

    def with_unused(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        layer = with_weights(self)
        layer.register_buffer("unused", torch.empty(1, device="meta"))
        layers.append(layer)

    monkeypatch.setattr(builders.Wrapper, "__init__", with_unused)
    wrapper, _ = start()
    assert rank.preflight(wrapper, "FULL:4", 1)["reason"] is None
    Transfer(layers[0]).start_weight_update()
    assert "on no device" in rank.preflight(wrapper, "FULL:4", 1)["reason"]
