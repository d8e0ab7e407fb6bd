"""``lazygraph doctor -- vllm serve …`` with vLLM's own parser and its own configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vllm.version import __version__

from lazygraph_vllm.preflight import Answer, examine
from lazygraph_vllm.vllm import preflight as asks
from lazygraph_vllm.vllm.allowed import TRIED
from lazygraph_vllm.vllm.choose import adapter_for
from test_configuration import LLAMA
from vllm_facts import WARMS_UP_SEPARATELY

tried = pytest.mark.skipif(__version__ not in TRIED, reason="not tried on a GPU: always stock")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose platform has graphs, as far as configuration asks."""
    from vllm.config import vllm as config_module
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "device_type", "cpu")
    monkeypatch.setattr(type(current_platform), "support_static_graph_mode", lambda *_: True)
    monkeypatch.setattr(config_module, "HAS_TRITON", True)
    # The launcher backend turns this off for the whole process.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return str(tmp_path)


def ask(*words: str, **environment: str) -> Answer:
    return examine(words, environment)


@tried
def test_an_ordinary_command_is_captured_lazily(host: None, model: str) -> None:
    import torch

    answer = ask("serve", model, "--max-num-seqs", "8", "--max-model-len", "128", "--port", "8001")
    assert answer.lazily is True, answer.reason
    assert answer.reason == f"dense models: tried on a GPU with vLLM {__version__}"
    assert answer.adapter == getattr(adapter_for(__version__), "name", None)
    # At most 8 requests: 1, 2, 4 and 8 tokens; the mixed sizes go up to twice that.
    assert answer.planned is not None
    assert answer.planned["FULL"] == 4 and answer.planned["PIECEWISE"] >= 5
    assert (answer.gpus, answer.gpuReason) == ([], "vLLM's platform here is not CUDA")
    assert not torch.cuda.is_initialized()


@tried
def test_the_module_of_the_api_server_has_the_same_options(host: None, model: str) -> None:
    as_module = ask("--model", model, "--max-num-seqs", "8")
    assert as_module == ask("serve", model, "--max-num-seqs", "8")
    assert as_module.lazily is True


@tried
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--enforce-eager",), "enforce_eager"),
        (("--model-impl", "transformers"), "Transformers' code"),
        (("-cc.cudagraph_mode=NONE",), "cudagraph_mode NONE"),
        (("--enable-lora", "--fully-sharded-loras"), "LoRA"),
        (("-pp", "2", "--enable-lora"), "pipeline parallelism"),
        (("--compilation-config", '{"cudagraph_mode": "NONE"}'), "cudagraph_mode NONE"),
    ],
)
def test_what_runs_as_stock(host: None, model: str, options: tuple[str, ...], what: str) -> None:
    answer = ask("serve", model, *options)
    assert answer.lazily is False and what in answer.reason


@tried
def test_breakable_graphs_run_lazily_where_a_gpu_has_shown_them(
    host: None, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    answer = ask("serve", model)
    # vLLM itself turns its compiler off for them.
    assert answer.lazily is WARMS_UP_SEPARATELY, answer.reason
    if answer.lazily:
        assert "breakable CUDA graphs" in answer.traits and set(answer.planned) >= {"PIECEWISE"}
    else:
        assert answer.reason.startswith("not supported: breakable CUDA")


@tried
def test_kv_offloading_runs_lazily_by_both_connectors(
    host: None, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("serve", model, "--kv-offloading-size", "2")
    shown = ask(*words)
    assert shown.lazily is WARMS_UP_SEPARATELY, shown.reason
    if not shown.lazily:
        return
    assert "KV offloading to host memory" in shown.traits
    transfer = '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both", %s}'
    extra = '"kv_connector_extra_config": {"cpu_bytes_to_use": 1073741824%s}'
    named = transfer % (extra % "")
    same = ask("serve", model, "--kv-transfer-config", named)
    assert same.lazily is True and same.traits == shown.traits
    monkeypatch.setattr("vllm.envs.VLLM_USE_SIMPLE_KV_OFFLOAD", True, raising=False)
    simple = ask(*words)
    assert simple.lazily is True, simple.reason
    assert "KV offloading to host memory by SimpleCPUOffloadConnector" in simple.traits


@tried
@pytest.mark.parametrize(
    ("transfer", "what"),
    [
        (
            '{"kv_connector": "ExampleConnector", "kv_role": "kv_both"}',
            "the KV connector ExampleConnector, only OffloadingConnector and SimpleCPU",
        ),
        (
            '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both", '
            '"kv_connector_extra_config": {"spec_name": "TieringOffloadingSpec"}}',
            "KV offloading to another tier than host memory (TieringOffloadingSpec)",
        ),
    ],
)
def test_other_connectors_and_tiers_run_as_stock(
    host: None, model: str, transfer: str, what: str
) -> None:
    words = ("serve", model, "--kv-transfer-config", transfer)
    answer = ask(*words, LAZYGRAPH_ALLOW_UNTESTED="1")
    if not WARMS_UP_SEPARATELY:
        what = "KV connectors, or KV offloading, before vLLM 0.31"
    assert answer.lazily is False and what in answer.reason and "\n" not in answer.reason


@tried
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--no-such-option",), "unrecognized arguments: --no-such-option"),
        (("--max-num-seqs", "many"), "vLLM refuses these arguments: "),
        (("--max-model-len", "100000"), "vLLM makes no configuration of this: "),
        (("--gpu-memory-utilization", "1.5"), "gpu_memory_utilization Input should be less than"),
        (("--help",), "prints its help"),
        (("--config", "/nowhere.yaml"), "vLLM refuses these arguments: "),
    ],
)
def test_what_vllm_refuses_cant_be_told(
    host: None, model: str, words: tuple[str, ...], what: str
) -> None:
    answer = ask("serve", model, *words)
    assert answer.lazily is None and what in answer.reason and "\n" not in answer.reason
    assert "[type=" not in answer.reason and "errors.pydantic.dev" not in answer.reason


@tried
@pytest.mark.parametrize(
    ("line", "more", "ignored"),
    [
        ("enable-prefix-caching: false", (), ["no-enable-prefix-caching: true"]),
        ("async-scheduling: false", (), ["no-async-scheduling: true"]),
        ("enable_prefix_caching: false", (), ["no-enable-prefix-caching: true"]),
        # Positive control: what the sentence advises has the effect.
        ("no-enable-prefix-caching: true", (), []),
        ("enable-prefix-caching: true", (), []),
        # Off by itself, and said again behind the file.
        ("enable-lora: false", (), []),
        ("enable-prefix-caching: false", ("--no-enable-prefix-caching",), []),
        ("compilation-config: {pass_config: {fuse_norm_quant: false}}", (), []),
    ],
)
def test_what_a_file_turns_off_and_vllm_leaves_on(
    host: None, model: str, tmp_path: Path, line: str, more: tuple[str, ...], ignored: list[str]
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(f"max-num-seqs: 8\n{line}\n")
    words = ("serve", model, "--config", str(file), *more)
    answer = ask(*words)
    assert answer.lazily is True, answer.reason
    key = line.split(":")[0]
    in_vain = f"{key}: false in {file} has no effect with this vLLM"
    assert answer.ignored == [f"{in_vain}; {off} has it" for off in ignored]
    if "prefix" in line and "true" not in line.split(":")[1]:
        is_on = asks.engine_config(words).cache_config.enable_prefix_caching
        assert is_on is (not more)


@tried
def test_the_api_servers_module_takes_what_a_file_turns_off(
    host: None, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(f"model: {model}\nenable-prefix-caching: false\n")
    words = ("--config", str(file))
    answer = ask(*words)
    taken = asks.engine_config(words).cache_config.enable_prefix_caching is False
    assert answer.ignored == [] if taken else len(answer.ignored) == 1


@tried
@pytest.mark.parametrize(
    ("line", "is_said"), [("enforce-eager: true", True), ("seed: 0", False), ("a: [", True)]
)
def test_a_file_that_vllm_takes_the_name_of_and_does_not_read(
    host: None, model: str, tmp_path: Path, line: str, is_said: bool
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(f"{line}\n")
    answer = ask("serve", model, f"--config={file}")
    assert answer.lazily is True, answer.reason
    sentence = f"--config={file} has no effect with this vLLM; --config {file} has it"
    assert answer.ignored == [sentence] * is_said
    # Positive control: what the sentence advises has the effect.
    if line.startswith("enforce-eager"):
        assert ask("serve", model, "--config", str(file)).lazily is False


@tried
def test_without_a_gpu_nothing_can_be_told(model: str) -> None:
    answer = ask("serve", model)
    assert (answer.lazily, answer.vllm) == (None, __version__)
    assert answer.reason == "vLLM sees no GPU here, and makes no configuration without one"


@tried
def test_a_model_that_is_not_here_is_not_fetched(
    host: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    answer = ask("serve", "nobody/has-this-model")
    assert answer.lazily is None
    assert "nobody/has-this-model is not on this machine" in answer.reason


def test_a_version_that_was_not_tried_is_stock_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asks, "version", lambda: "0.99.0")
    answer = ask("serve", "anything")
    assert answer.lazily is False and "vLLM 0.99.0 was not tried" in answer.reason


def test_every_version_is_judged_where_it_is_let_in(host: None, model: str) -> None:
    """Their parser has moved in each of the last versions."""
    answer = ask("serve", model, LAZYGRAPH_ALLOW_UNTESTED="1")
    assert answer.lazily is True, answer.reason


def test_our_hooks_are_all_here() -> None:
    adapter = adapter_for(__version__)
    if adapter is None:
        pytest.skip("no adapter is for this version")
    assert asks.missing_hooks(adapter) is None


def test_a_renamed_hook_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control."""
    from vllm.v1.engine import core

    adapter = adapter_for(__version__)
    if adapter is None:
        pytest.skip("no adapter is for this version")
    monkeypatch.delattr(core.EngineCoreProc, "run_busy_loop")
    assert asks.missing_hooks(adapter) == "this vLLM lacks EngineCoreProc.run_busy_loop"


@pytest.mark.parametrize("mode", ["FULL", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"])
def test_graphs_are_counted_as_vllms_own_manager_counts(gpu: Any, mode: str) -> None:
    import builders

    config = builders.make_config(mode=mode, sizes=(1, 2, 4, 8, 16, 24), max_num_seqs=8)
    manager = builders.make_runner(config).cudagraph_manager
    counted = {kind.name: len(descs) for kind, descs in manager._capture_descs.items() if descs}
    assert asks.planned(config) == counted
    assert sum(counted.values()) >= 4
