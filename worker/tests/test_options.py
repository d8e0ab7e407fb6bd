"""What changes a graph and was tried on no GPU is told from a dense model that was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lazygraph_vllm.vllm import options
from lazygraph_vllm.vllm.allowed import (
    DRAFTERS,
    LORA,
    MLA,
    MOE,
    SLEEP,
    TENSOR,
    TRIED,
    config_reason,
    traits,
)
from test_support import supported
from test_table import put

SWITCHES = {
    options.SYMMETRIC: "VLLM_USE_NCCL_SYMM_MEM",
    options.PCIE: "VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC",
    options.TWO_STREAMS: "VLLM_LORA_ENABLE_DUAL_STREAM",
}
FLASHINFER = SimpleNamespace(name="FLASHINFER")
BY_TRITON = SimpleNamespace(name="TRITON_ATTN")
# On one GPU with 0.33.0.
SHOWN = (options.KV_FP8, options.TRITON)
EXAMPLES: list[tuple[str, str, Any]] = [
    (options.ATTENTION_FREE, "model_config.is_attention_free", True),
    (options.DIFFUSION, "model_config.is_diffusion", True),
    (options.TRANSFORMERS, "model_config.using_transformers_backend", lambda: True),
    (options.EMBEDS, "model_config.enable_prompt_embeds", True),
    (options.MEDIA, "model_config.multimodal_config", SimpleNamespace(mm_ipc_gpu_memory_gb=0.5)),
    (options.KV_FP8, "cache_config.cache_dtype", "fp8"),
    (options.KV_TYPE, "cache_config.cache_dtype", "fp8_e5m2"),
    (options.KV_TYPE, "cache_config.mamba_cache_dtype", "float32"),
    (options.KV_TYPE, "cache_config.mamba_ssm_cache_dtype", "float32"),
    (options.TRITON, "attention_config.backend", BY_TRITON),
    (options.BACKEND, "attention_config.backend", FLASHINFER),
    (options.BACKEND, "model_config.is_mm_prefix_lm", True),
    (options.BACKEND, "model_config.dtype", "torch.float32"),
    (options.BACKEND, "model_config.get_head_size", lambda: 320),
    (options.BACKEND, "model_config.hf_text_config", SimpleNamespace(index_topk=2048)),
    (options.BACKEND, "attention_config.backend_per_kind", {"sliding_window": FLASHINFER}),
    (options.BACKEND, "attention_config.flash_attn_version", 4),
    (options.KERNELS, "kernel_config", SimpleNamespace(moe_backend="triton")),
    (options.KERNELS, "kernel_config", SimpleNamespace(linear_backend="cutlass")),
    (options.KERNELS, "kernel_config", SimpleNamespace(linear_backend_per_quant={"fp8": "x"})),
    (options.BLOCKS, "quant_config", SimpleNamespace(weight_block_size=[128, 128])),
    (options.PARTITION, "compilation_config.use_inductor_graph_partition", True),
    (options.ROUTED, "aux_output_config", SimpleNamespace(enabled=True)),
]
# Of a drafter that has graphs.
OF_DRAFTER: list[tuple[str, str, Any]] = [
    (options.SAMPLED, "draft_sample_method", "probabilistic"),
    (options.BACKEND, "attention_backend", FLASHINFER),
    (options.BACKEND, "attention_backend", BY_TRITON),
    (options.KV_TYPE, "kv_cache_dtype", "fp8"),
    (options.KERNELS, "moe_backend", "triton"),
    ("fp8 quantisation", "draft_lm_head_quantization", "fp8"),
    ("fp8 quantisation", "draft_model_config", SimpleNamespace(quantization="fp8")),
    (MOE, "draft_model_config", SimpleNamespace(is_moe=True)),
    (MLA, "draft_model_config", SimpleNamespace(use_mla=True)),
]
HARMLESS: list[tuple[str, Any]] = [
    ("kernel_config", SimpleNamespace(moe_backend="auto", linear_backend="auto")),
    ("quant_config", SimpleNamespace(weight_block_size=None)),
    ("cache_config.cache_dtype", "auto"),
    ("cache_config.cache_dtype", "bfloat16"),
    ("attention_config.backend", SimpleNamespace(name="FLASH_ATTN")),
    ("attention_config.backend_per_kind", {"full": SimpleNamespace(name="FLASH_ATTN")}),
    ("attention_config.flash_attn_version", 3),
    ("compilation_config.use_inductor_graph_partition", None),
    ("aux_output_config", SimpleNamespace(enabled=False)),
]


@pytest.fixture(autouse=True)
def no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell that runs these tests has on."""
    for variable in (*SWITCHES.values(), *options.KERNEL_VARIABLES, *options.KERNEL_SWITCHES):
        monkeypatch.delenv(variable, raising=False)


def test_each_option_has_an_example() -> None:
    traits_of_drafters = {trait for trait, _, _ in OF_DRAFTER}
    shown = {trait for trait, _, _ in EXAMPLES} | SWITCHES.keys() | {options.SAMPLED}
    assert shown == set(options.OPTIONS) and options.SAMPLED in traits_of_drafters


@pytest.mark.parametrize(("trait", "name", "value"), OF_DRAFTER)
def test_what_a_drafter_has_of_its_own_counts_where_it_has_graphs(
    trait: str, name: str, value: Any
) -> None:
    config = supported()
    config.parallel_config.tensor_parallel_size = 1
    plain = {"draft_sample_method": "greedy", "attention_backend": None, "moe_backend": "auto"}
    config.speculative_config = SimpleNamespace(method="eagle", **plain)
    assert config_reason(config, "0.33.0", allow_untested=False) is None
    put(config, f"speculative_config.{name}", value)
    assert traits(config) == {DRAFTERS["eagle"], trait}
    reason = config_reason(config, "0.33.0", allow_untested=False)
    assert reason is not None and trait in reason
    config.speculative_config.method = "draft_model"  # vLLM runs it without graphs
    assert traits(config) == {DRAFTERS["draft_model"]}


@pytest.mark.parametrize("version", TRIED)
@pytest.mark.parametrize(("trait", "path", "value"), EXAMPLES)
def test_an_option_that_was_not_tried_waits_for_a_gpu(
    trait: str, path: str, value: Any, version: str
) -> None:
    config = supported()
    put(config, path, value)
    assert trait in traits(config)
    reason = config_reason(config, version, allow_untested=False)
    assert reason is not None and trait in reason and "\n" not in reason
    wrong = trait == options.ATTENTION_FREE and version == "0.26.0"
    assert (config_reason(config, version, allow_untested=True) is None) is not wrong


@pytest.mark.parametrize(("trait", "path", "value"), EXAMPLES)
def test_on_one_gpu_only_what_was_shown_there_is_let_in(trait: str, path: str, value: Any) -> None:
    config = supported()
    config.parallel_config.tensor_parallel_size = 1
    put(config, path, value)
    assert traits(config) == {trait}
    shown = config_reason(config, "0.33.0", allow_untested=False) is None
    assert shown is (trait in SHOWN)


def test_what_was_shown_in_all_layers_is_another_thing_in_some() -> None:
    config = supported()
    put(config, "cache_config.cache_dtype", "fp8")
    put(config, "cache_config.kv_cache_dtype_skip_layers", ["sliding_window"])
    assert traits(config) == {TENSOR, options.KV_TYPE}
    config = supported()
    put(config, "attention_config.backend", SimpleNamespace(name="FLASH_ATTN"))
    put(config, "attention_config.backend_per_kind", {"sliding_window": BY_TRITON})
    assert traits(config) == {TENSOR, options.BACKEND}


@pytest.mark.parametrize(("variable", "usual"), options.KERNEL_SWITCHES.items())
def test_a_kernels_switch_that_is_not_as_usual_was_not_tried(
    variable: str, usual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in "01":
        monkeypatch.setenv(variable, value)
        assert (options.KERNELS in traits(supported())) is (value != usual)


PACKED = "VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE"


@pytest.mark.parametrize(
    ("variable", "value", "other"),
    [
        (PACKED, "1", False),
        (PACKED, "0", True),
        (options.STATE_LAYOUT, "", False),
        (options.STATE_LAYOUT, "DS", True),
    ],
)
def test_recurrent_layers_run_otherwise_where_a_switch_says_so(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, other: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert options.KERNELS not in traits(supported())
    config = supported()
    put(config, "model_config.is_hybrid", True)
    assert (options.KERNELS in traits(config)) is other


@pytest.mark.parametrize("variable", options.KERNEL_VARIABLES)
def test_other_kernels_are_chosen_by_variables_as_well(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")
    assert options.KERNELS not in traits(supported())
    monkeypatch.setenv(variable, "fp8" if "DTYPE" in variable else "MarlinLinearKernel")
    assert options.KERNELS in traits(supported())
    assert config_reason(supported(), "0.33.0", allow_untested=False) is not None


@pytest.mark.parametrize(("path", "value"), HARMLESS)
def test_what_was_tried_under_another_spelling_is_let_in(path: str, value: Any) -> None:
    config = supported()
    put(config, path, value)
    assert traits(config) == {TENSOR}
    assert config_reason(config, "0.33.0", allow_untested=False) is None


@pytest.mark.parametrize("trait", SWITCHES)
def test_switches_count_where_they_do_something(
    trait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = supported()
    monkeypatch.setenv(SWITCHES[trait], "0")
    config.lora_config = SimpleNamespace()
    assert traits(config) == {TENSOR, LORA}
    monkeypatch.setenv(SWITCHES[trait], "1")
    assert traits(config) == {TENSOR, LORA, trait}
    config.parallel_config.tensor_parallel_size = 1
    config.lora_config = None
    assert traits(config) == set()


@pytest.mark.parametrize("by", ["sleep_mode", "cumem_allocator"])
def test_beside_what_was_tried_alone_they_are_a_second_trait(by: str) -> None:
    config = supported()
    config.parallel_config.tensor_parallel_size = 1
    put(config, f"model_config.enable_{by}", True)
    assert config_reason(config, "0.33.0", allow_untested=False) is None
    config.cache_config.cache_dtype = "fp8"
    assert traits(config) == {SLEEP, options.KV_FP8}
    assert options.KV_FP8 in str(config_reason(config, "0.33.0", allow_untested=False))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("lora_config", SimpleNamespace()),
        ("parallel_config.pipeline_parallel_size", 2),
        ("speculative_config", SimpleNamespace(method="ngram")),
    ],
)
def test_a_model_without_attention_is_refused_where_a_hybrid_one_is(path: str, value: Any) -> None:
    for name in ("is_hybrid", "is_attention_free"):
        config = supported()
        put(config, path, value)
        put(config, f"model_config.{name}", True)
        reason = config_reason(config, "0.33.0", allow_untested=True)
        assert reason is not None and "models" in reason
    assert options.ATTENTION_FREE in str(reason)
