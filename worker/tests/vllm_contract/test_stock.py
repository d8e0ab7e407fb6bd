"""What we don't know how to handle runs as stock: all graphs, vLLM's dispatch, one log line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from builders import Wrapper, bring_up, make_config, make_executor, make_runner
from lazygraph_vllm import plugin
from lazygraph_vllm.vllm import adapter, engine_hooks
from lazygraph_vllm.vllm.choose import current

pytestmark = pytest.mark.usefixtures("pristine", "gpu")


@pytest.fixture
def lines() -> Iterator[Any]:
    """Our warnings so far, from a handler of our own: vLLM decides where its logger sends them."""
    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    logger, handler = logging.getLogger("vllm.lazygraph"), Keep(logging.WARNING)
    logger.addHandler(handler)
    yield lambda: kept
    logger.removeHandler(handler)


def started(monkeypatch: pytest.MonkeyPatch, config: Any = None, runner: Any = None) -> Any:
    """An executor after start-up in idle mode, in a process where our plugin was registered."""
    monkeypatch.setenv("LAZYGRAPH_MODE", "idle")
    plugin.register()
    config = config or make_config()
    wrapper: Any = Wrapper(runner or make_runner(config))
    wrapper.determine_available_memory = lambda: 5
    executor = make_executor(config, wrapper)
    if hasattr(executor, "determine_available_memory"):
        executor.determine_available_memory()
    bring_up(executor)
    return executor


def assert_stock(executor: Any) -> None:
    runner = executor.driver_worker.worker.model_runner
    manager = runner.cudagraph_manager
    assert not hasattr(runner, "lazygraph") and not hasattr(manager, "lazygraph")
    assert manager._graphs_captured
    full = [d for descs in manager._capture_descs.values() for d in descs if d.num_reqs]
    assert len(manager.graphs) == len(full) > 1
    assert manager.dispatch(4, 4, 1, 0).num_tokens == 4


def test_the_check_of_this_file_fails_for_an_engine_that_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Positive control."""
    executor = started(monkeypatch)
    with pytest.raises(AssertionError):
        assert_stock(executor)


@pytest.mark.parametrize("hook", engine_hooks.CORE_HOOKS)
def test_without_a_hook_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, lines: Any, hook: str
) -> None:
    from vllm.v1.engine import core

    for owner in core.EngineCoreProc.__mro__:
        if hook in vars(owner):
            monkeypatch.delattr(owner, hook)
    assert_stock(started(monkeypatch))
    assert lines() == [f"lazygraph: running as stock: this vLLM lacks EngineCoreProc.{hook}"]


def test_without_an_engine_class(monkeypatch: pytest.MonkeyPatch, lines: Any) -> None:
    from vllm.v1.engine import core

    monkeypatch.delattr(core, "EngineCoreProc")
    assert_stock(started(monkeypatch))
    assert len(lines()) == 1 and "running as stock: this vLLM lacks" in lines()[0]


def test_without_a_hook_of_the_executor(monkeypatch: pytest.MonkeyPatch, lines: Any) -> None:
    """What sizes the KV cache, under another name; vLLM itself calls it under neither here."""
    from vllm.v1.executor import abstract

    monkeypatch.delattr(abstract.Executor, "determine_available_memory")
    assert_stock(started(monkeypatch))
    assert lines() == [
        "lazygraph: running as stock: this vLLM lacks Executor.determine_available_memory"
    ]


@pytest.mark.parametrize("hook", adapter.MANAGER_HOOKS[1:] + adapter.MANAGER_FIELDS)
def test_without_a_hook_of_the_manager(
    monkeypatch: pytest.MonkeyPatch, lines: Any, hook: str
) -> None:
    """On a rank: the engine asks before anything is changed."""
    missing = adapter.missing_hook
    monkeypatch.setattr(
        adapter,
        "missing_hook",
        lambda owner, names: missing(owner, tuple(f"_no{n}" if n == hook else n for n in names)),
    )
    assert_stock(started(monkeypatch))
    expected = f"lazygraph: running as stock: this vLLM lacks ModelCudaGraphManager._no{hook}"
    assert lines() == [expected]


@pytest.mark.parametrize(
    ("module", "name"), [(m, n) for m, names in current().modules.items() for n in names]
)
def test_every_module_hook_is_there_and_asked_for(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    import importlib

    assert current().missing() is None
    monkeypatch.delattr(importlib.import_module(module), name)
    assert current().missing() == f"this vLLM lacks {module}.{name}"


def test_without_a_hook_of_a_ranks_modules(monkeypatch: pytest.MonkeyPatch, lines: Any) -> None:
    modules = {**current().modules, "vllm.compilation.monitor": ("no_such_name",)}
    monkeypatch.setattr(type(current()), "modules", modules)
    assert_stock(started(monkeypatch))
    assert lines() == [
        "lazygraph: running as stock: this vLLM lacks vllm.compilation.monitor.no_such_name"
    ]


@pytest.mark.parametrize(
    "fault",
    [
        *("engine.startup.gpu_reason", "rank.sizing.reserve"),
        "engine.headroom.Headroom.after_sizing",
        *("engine.headroom.Headroom.planned", "rank.calls.watch_steps"),
    ],
)
def test_a_start_that_cant_be_prepared(
    monkeypatch: pytest.MonkeyPatch, lines: Any, fault: str
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("a test")

    monkeypatch.setattr(f"lazygraph_vllm.{fault}", fails)
    assert_stock(started(monkeypatch))
    why = "can't prepare its graphs: ValueError: a test"
    assert lines() == [f"lazygraph: running as stock: {why}"]


def test_an_engine_for_a_snapshot(monkeypatch: pytest.MonkeyPatch, lines: Any) -> None:
    """vLLM dumps its processes, and none that is connected to another."""
    monkeypatch.setattr("sys.argv", ["/lib/vllm/snapshot/server.py", "--ready-file", "x"])
    assert not hasattr(started(monkeypatch), "lazygraph")
    assert lines() == ["lazygraph: running as stock: not supported: vllm snapshot"]


def test_another_version(monkeypatch: pytest.MonkeyPatch, lines: Any) -> None:
    import vllm.version

    monkeypatch.setattr(vllm.version, "__version__", "0.27.0")
    assert_stock(started(monkeypatch))
    assert len(lines()) == 1 and "vLLM 0.27.0 was not tried" in lines()[0]
    assert "LAZYGRAPH_ALLOW_UNTESTED=1" in lines()[0]


def test_another_version_whose_configuration_differs(
    monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    """Let in untested, it must still not die of a field that moved."""
    import vllm.version

    monkeypatch.setattr(vllm.version, "__version__", "9.9.9")
    monkeypatch.setenv("LAZYGRAPH_ALLOW_UNTESTED", "1")
    config = make_config()
    runner = make_runner(config)
    del config.kv_transfer_config
    assert_stock(started(monkeypatch, config, runner))
    assert len(lines()) == 1
    assert "configuration is another one" in lines()[0] and "kv_transfer_config" in lines()[0]


@pytest.mark.parametrize("allowed", ["0", "1"])
def test_what_only_a_loaded_model_tells(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    from vllm.model_executor.models.longcat_flash_ngram import LongcatFlashNgramForCausalLM as Own
    from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend as Triton

    from lazygraph_vllm.rank import calls as rank

    runner = make_runner(config := make_config())
    impl = Triton.get_impl_cls()(8, 64, 0.125, 8, [0.5] * 8, None, "auto")
    layer = SimpleNamespace(get_attn_backend=lambda: Triton, impl=impl)
    config.compilation_config.static_forward_context["layer"] = layer
    runner.model.get_model_state_cls = Own.get_model_state_cls
    new = {"attention by TRITON_ATTN", "attention with ALiBi", "models with a state of their own"}
    assert rank.identify(Wrapper(runner))["chosen"] == new
    monkeypatch.setenv("LAZYGRAPH_ALLOW_UNTESTED", allowed)
    reason = started(monkeypatch, config, runner).lazygraph.state.unsupported
    assert ("attention by TRITON_ATTN" in str(reason)) is (allowed == "0")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lora_config": SimpleNamespace(fully_sharded_loras=True)}, "LoRA"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"use_v2_model_runner": False}, "V1 model runner"),
    ],
)
def test_a_feature_that_is_not_on_the_list(
    monkeypatch: pytest.MonkeyPatch, lines: Any, change: dict[str, Any], what: str
) -> None:
    config = make_config()
    runner = make_runner(config)
    for name, value in change.items():
        setattr(config, name, value)
    assert_stock(started(monkeypatch, config, runner))
    assert len(lines()) == 1 and what in lines()[0]


@pytest.mark.parametrize(
    ("attribute", "value", "what"),
    [
        ("speculator", object(), "speculative decoding"),
        ("cudagraph_manager.cudagraph_mode", "NONE", "cudagraph_mode NONE"),
        ("cudagraph_manager._capture_descs", {}, "no graph to capture"),
    ],
)
def test_what_only_a_rank_can_know(attribute: str, value: Any, what: str) -> None:
    from vllm.config.compilation import CUDAGraphMode

    from lazygraph_vllm.rank import calls as rank

    wrapper = Wrapper(make_runner(make_config()))
    *path, name = attribute.split(".")
    owner = wrapper.worker.model_runner
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, CUDAGraphMode[value] if value == "NONE" else value)
    assert what in rank.describe(wrapper)["unsupported"]


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"LAZYGRAPH_DISABLE": "1"}, None),
        ({"LAZYGRAPH_MODE": ""}, None),
        ({"LAZYGRAPH_MODE": "sometimes"}, "expected LAZYGRAPH_MODE to be eager, lazy or idle"),
    ],
    ids=["kill switch", "nothing asked", "bad value"],
)
def test_the_environment(
    monkeypatch: pytest.MonkeyPatch, lines: Any, env: dict[str, str], line: str | None
) -> None:
    from vllm.v1.engine import core
    from vllm.v1.executor import abstract

    before = dict(vars(abstract.Executor)), dict(vars(core.EngineCoreProc))
    monkeypatch.setenv("LAZYGRAPH_MODE", "idle")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    plugin.register()
    assert (dict(vars(abstract.Executor)), dict(vars(core.EngineCoreProc))) == before
    config = make_config()
    executor = make_executor(config, Wrapper(make_runner(config)))
    bring_up(executor)
    assert_stock(executor)
    assert len(lines()) == (0 if line is None else 1)
    assert line is None or line in lines()[0]


def test_a_stock_engine_tells_its_controller_why(
    serving: Any, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm.version

    from builders import request
    from lazygraph_vllm.protocol.messages import Capture, Inventory, Result

    monkeypatch.setattr(vllm.version, "__version__", "0.27.0")
    engine = serving()
    inventory = controller.wait_for(Inventory)
    assert inventory.phase == "stock" and "0.27.0" in inventory.unsupported
    engine.core.input_queue.put_nowait(request("r", steps=3))
    engine.scheduler.wait_for_steps(3)
    controller.send(Capture(command=1, graph="FULL:4", when_idle=False))
    assert "running as stock" in controller.wait_for(Result).reason
    assert engine.executor.driver_worker.worker.model_runner.cudagraph_manager.graphs
