"""Fixtures of the contract tests: vLLM's own classes, our hooks, no GPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest


def pytest_collect_file() -> None:
    """vLLM's own classes are the test bed."""
    pytest.importorskip("vllm", reason="vLLM isn't installed here")


@pytest.fixture(autouse=True)
def as_if_tried() -> Iterator[None]:
    """A version whose hooks are known is let in here: these tests are about hooks, not GPUs."""
    from vllm.version import __version__

    from lazygraph_vllm.vllm.allowed import TRIED
    from lazygraph_vllm.vllm.choose import KNOWN

    known = __version__ in TRIED
    if not known:
        twin = next(v for v in TRIED if KNOWN[v] is KNOWN.get(__version__))
        TRIED[__version__] = TRIED[twin]
    yield
    if not known:
        del TRIED[__version__]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The CUDA stand-in, installed."""
    import cuda_stand_in

    gpu = cuda_stand_in.Gpu()
    cuda_stand_in.install(gpu, monkeypatch)
    return gpu


@pytest.fixture
def pristine() -> Iterator[None]:
    """Undo our hooks after a test: classes of vLLM are one per process."""
    import gc

    from vllm.compilation import monitor
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.v1.engine import core
    from vllm.v1.executor import abstract
    from vllm.v1.worker.gpu import async_utils, cudagraph_utils

    from lazygraph_vllm.vllm import choose
    from lazygraph_vllm.vllm import engine_hooks as hooks

    owners = (
        abstract.Executor,
        core.EngineCoreProc,
        cudagraph_utils,
        cudagraph_utils.CudaGraphManager,
        async_utils.AsyncOutput,
    )
    before = [dict(vars(owner)) for owner in owners]
    flag = monitor.cudagraph_capturing_enabled
    CUDAGraphWrapper._all_instances.clear()
    choose.current.cache_clear()  # its capture stream is the last stand-in's
    yield
    for owner, attributes in zip(owners, before, strict=True):
        for name, value in vars(owner).copy().items():
            if attributes.get(name) is not value and not name.startswith("__"):
                setattr(owner, name, attributes[name]) if name in attributes else delattr(
                    owner, name
                )
        if "__init__" in attributes and vars(owner).get("__init__") is not attributes["__init__"]:
            owner.__init__ = attributes["__init__"]
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, hooks._EnginePatches)]
    monitor.set_cudagraph_capturing_enabled(flag)
    gc.enable()


@pytest.fixture
def controller() -> Iterator[Any]:
    from fake_controller import FakeController

    controller = FakeController()
    yield controller
    controller.close()


@pytest.fixture
def serving(
    gpu: Any, pristine: None, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Starts an engine through our real entry point: ``serving(mode=…)`` gives its parts."""
    from types import SimpleNamespace

    import builders
    from lazygraph_vllm import plugin
    from lazygraph_vllm.vllm import engine_hooks as hooks

    running: list[Any] = []

    def run(*, connect: bool = True, in_flight: int = 2, mode: str = "idle", **config: Any) -> Any:
        monkeypatch.setenv("LAZYGRAPH_MODE", mode)
        if connect:
            monkeypatch.setenv("LAZYGRAPH_ENDPOINT", controller.endpoint)
            monkeypatch.setenv("LAZYGRAPH_HANDSHAKE_MS", "10000")
            controller.mode = mode
        plugin.register()
        assert any(isinstance(f, hooks._EnginePatches) for f in sys.meta_path)
        settings = builders.make_config(**config)
        wrapper = builders.Wrapper(builders.make_runner(settings))
        executor = builders.make_executor(settings, wrapper)
        builders.bring_up(executor)
        core = builders.make_core(executor, gpu.events, in_flight)
        engine = SimpleNamespace(
            core=core,
            executor=executor,
            agent=executor.lazygraph,
            scheduler=core.scheduler,
            wrapper=wrapper,
            runner=wrapper.worker.model_runner,
            error=None,
        )

        def loop() -> None:
            try:
                core.run_busy_loop()
            except SystemExit:
                pass
            except BaseException as error:
                engine.error = error

        engine.thread = threading.Thread(target=loop)
        engine.thread.start()
        running.append(engine)
        return engine

    yield run
    for engine in running:
        stop(engine)


def stop(engine: Any) -> None:
    """Shut down as vLLM's signal handler does, and wait for the loop to end."""
    from vllm.v1.engine import EngineCoreRequestType
    from vllm.v1.engine.core import EngineShutdownState

    engine.core.shutdown_state = EngineShutdownState.REQUESTED
    engine.core.input_queue.put_nowait((EngineCoreRequestType.WAKEUP, None))
    engine.thread.join(10)
    assert not engine.thread.is_alive()
