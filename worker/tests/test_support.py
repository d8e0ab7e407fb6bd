from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from lazygraph_vllm.vllm.adapter import graph_mode_reason, missing_hook
from lazygraph_vllm.vllm.allowed import (
    DRAFTERS,
    DRAFTS,
    HYBRID,
    KV_OFFLOADING,
    LORA,
    MOE,
    OFFLOADERS,
    PIPELINE,
    SLEEP,
    TENSOR,
    TRIED,
    Tried,
    config_reason,
    gpu_reason,
    traits,
    untried,
)
from lazygraph_vllm.vllm.choose import KNOWN, adapter_for
from lazygraph_vllm.vllm.v26 import V26
from lazygraph_vllm.vllm.v31 import V31


def supported() -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(
            runner_type="generate",
            enforce_eager=False,
            quantization=None,
            use_mla=False,
            is_moe=False,
            is_hybrid=False,
            is_encoder_decoder=False,
            is_multimodal_model=False,
        ),
        parallel_config=SimpleNamespace(
            data_parallel_size=1,
            pipeline_parallel_size=1,
            tensor_parallel_size=2,
            prefill_context_parallel_size=1,
            decode_context_parallel_size=1,
            enable_dbo=False,
            enable_elastic_ep=False,
            distributed_executor_backend="mp",
            nnodes=1,
        ),
        compilation_config=SimpleNamespace(mode=3),
        observability_config=SimpleNamespace(jit_monitor_mode="warn"),
        attention_config=SimpleNamespace(hisparse_config=None),
        cache_config=SimpleNamespace(kv_offloading_size=None),
        offload_config=SimpleNamespace(
            uva=SimpleNamespace(cpu_offload_gb=0), prefetch=SimpleNamespace(offload_group_size=0)
        ),
        use_v2_model_runner=True,
        speculative_config=None,
        lora_config=None,
        kv_transfer_config=None,
        ec_transfer_config=None,
    )


def reason_of(config: Any, version: str = "0.33.0", allow: bool = False) -> str | None:
    return config_reason(config, version, allow_untested=allow)


def refusal(config: Any, version: str = "0.33.0", allow: bool = False) -> str:
    """Why it runs as stock, in one line."""
    reason = reason_of(config, version, allow)
    assert reason is not None and "\n" not in reason
    return reason


@pytest.mark.parametrize("version", TRIED)
def test_what_was_tried_is_supported(version: str) -> None:
    config = supported()
    config.parallel_config.tensor_parallel_size = 2 if TENSOR in TRIED[version].traits else 1
    assert reason_of(config, version) is None
    assert reason_of(config, f"{version}+cu130") is None


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("model_config", None, "doesn't generate text"),
        ("model_config.runner_type", "pooling", "doesn't generate text"),
        ("model_config.enforce_eager", True, "enforce_eager"),
        ("model_config.is_moe", True, "mixture-of-experts"),
        ("model_config.is_hybrid", True, "hybrid"),
        ("model_config.is_encoder_decoder", True, "encoder-decoder"),
        ("model_config.is_multimodal_model", True, "multimodal"),
        ("use_v2_model_runner", False, "V1 model runner"),
        ("parallel_config.data_parallel_size", 2, "data parallelism"),
        ("parallel_config.pipeline_parallel_size", 2, "pipeline parallelism before vLLM 0.31"),
        ("parallel_config.prefill_context_parallel_size", 2, "context parallelism"),
        ("parallel_config.decode_context_parallel_size", 2, "context parallelism"),
        ("parallel_config.enable_dbo", True, "dual batch overlap"),
        ("parallel_config.enable_elastic_ep", True, "elastic expert parallelism"),
        ("parallel_config.distributed_executor_backend", "ray", "the executor backend 'ray'"),
        ("parallel_config.nnodes", 2, "several nodes"),
        ("speculative_config", object(), "speculative decoding"),
        ("lora_config", object(), "LoRA before vLLM 0.31"),
        ("model_config.enable_sleep_mode", True, "sleep mode before vLLM 0.31"),
        ("kv_transfer_config", object(), "KV connectors, or KV offloading, before vLLM 0.31"),
        ("ec_transfer_config", object(), "encoder-cache connectors"),
        ("parallel_config.ubatch_size", 2, "microbatches"),
        ("parallel_config.enable_eplb", True, "balancing of experts"),
        ("cache_config.kv_sharing_fast_prefill", True, "fast prefill"),
        ("observability_config.jit_monitor_mode", "error", "--jit-monitor-mode error"),
        ("cache_config.kv_offloading_size", 4.0, "offloading"),
        ("offload_config.uva.cpu_offload_gb", 1, "offloading"),
        ("offload_config.prefetch.offload_group_size", 2, "offloading"),
        ("compilation_config.mode", 0, "compilation mode 0"),
    ],
)
def test_each_feature_that_was_not_tried_has_its_reason(path: str, value: Any, what: str) -> None:
    config = copy.deepcopy(supported())
    *owners, name = path.split(".")
    owner = config
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, value)
    assert what in refusal(config, "0.26.0", allow=True)


@pytest.mark.parametrize(
    ("owner", "field", "what"),
    [
        ("parallel_config", "enable_fault_tolerance", "fault tolerance of the engine"),
        ("compilation_config", "cudagraph_mm_encoder", "CUDA graphs of encoders"),
    ],
)
def test_features_that_0_26_has_not(owner: str, field: str, what: str) -> None:
    config = supported()
    setattr(getattr(config, owner), field, True)
    assert what in refusal(config, allow=True)


@pytest.mark.parametrize(
    ("drafts", "model", "what"),
    [
        ({"method": "suffix"}, {}, "by the method 'suffix'"),
        ({"method": "eagle", "enable_adaptive_verification": True}, {}, "adaptive verification"),
        ({"method": "eagle", "parallel_drafting": True}, {}, "parallel drafting"),
        (
            {"method": "eagle3", "num_speculative_tokens_per_batch_size": [(1, 8, 3)]},
            {},
            "a number of tokens that depends on the batch",
        ),
        ({"method": "mtp", "use_multi_module_mtp": lambda: True}, {}, "several MTP modules"),
        ({"method": "mtp", "use_gemma4_mtp": lambda: True}, {}, "Gemma 4"),
        ({"method": "eagle", "draft_tensor_parallel_size": 1}, {}, "another tensor parallelism"),
        ({"method": "ngram"}, {"is_hybrid": True}, "on hybrid models"),
        ({"method": "ngram"}, {"is_multimodal_model": True}, "on multimodal models"),
        ({"method": "ngram"}, {"enable_sleep_mode": True}, "with sleep mode"),
    ],
)
def test_what_of_drafts_is_refused_whatever_anybody_allows(
    drafts: dict[str, Any], model: dict[str, Any], what: str
) -> None:
    config = supported()
    no = {"use_multi_module_mtp": lambda: False, "use_gemma4_mtp": lambda: False}
    config.speculative_config = SimpleNamespace(**(no | {"method": "mtp"}))
    assert reason_of(config, allow=True) is None
    # Shown on one GPU: over two it runs as stock.
    assert "by MTP with tensor parallelism on vLLM 0.33.0 (not" in refusal(config)
    config.speculative_config = SimpleNamespace(**(no | drafts))
    for name, value in model.items():
        setattr(config.model_config, name, value)
    assert what in refusal(config, allow=True)


def offloading(connector: str | None = "OffloadingConnector", **more: Any) -> Any:
    """What vLLM makes of `--kv-offloading-size`, or of `--kv-transfer-config`."""
    return SimpleNamespace(
        **{
            "kv_connector": connector,
            "kv_connector_module_path": None,
            "kv_connector_extra_config": {"cpu_bytes_to_use": 4 << 30},
            "kv_role": "kv_both",
            **more,
        }
    )


def test_offloading_is_tried_alone_and_beside_no_other_trait() -> None:
    config = supported()
    config.kv_transfer_config = offloading()
    config.cache_config.kv_offloading_size = 4.0
    assert f"{KV_OFFLOADING} with {TENSOR}" in refusal(config)
    config.parallel_config.tensor_parallel_size = 1
    assert reason_of(config) is None
    config.kv_transfer_config = offloading("SimpleCPUOffloadConnector")
    assert traits(config) == {OFFLOADERS["SimpleCPUOffloadConnector"]}
    assert reason_of(config) is None
    config.parallel_config.tensor_parallel_size = 2
    assert reason_of(config) is not None


@pytest.mark.parametrize(
    ("transfer", "model", "what"),
    [
        (offloading("NixlConnector"), {}, "the KV connector NixlConnector, only OffloadingConn"),
        (offloading("MultiConnector"), {}, "the KV connector MultiConnector, only Offloading"),
        (offloading("LMCacheMPConnector"), {}, "the KV connector LMCacheMPConnector, only"),
        (offloading("P2pNcclConnector"), {}, "the KV connector P2pNcclConnector, only"),
        (offloading(None), {}, "the KV connector None, only"),
        (offloading(kv_connector_module_path="mine"), {}, "of a module of its own, only vLLM's"),
        (offloading(kv_role="kv_consumer"), {}, "in the role kv_consumer, expected kv_both"),
        (
            offloading(kv_connector_extra_config={"spec_name": "TieringOffloadingSpec"}),
            {},
            "another tier than host memory (TieringOffloadingSpec)",
        ),
        (
            offloading(
                "SimpleCPUOffloadConnector",
                kv_connector_extra_config={"kv_offload_backend": "disk"},
            ),
            {},
            "another tier than host memory (disk)",
        ),
        (offloading(), {"enable_sleep_mode": True}, "host memory with sleep mode"),
        (offloading(), {"is_hybrid": True}, "host memory on hybrid models"),
        (offloading(), {"is_multimodal_model": True}, "host memory on multimodal models"),
    ],
)
def test_what_of_connectors_is_refused_whatever_anybody_allows(
    transfer: Any, model: dict[str, Any], what: str
) -> None:
    config = supported()
    config.kv_transfer_config = transfer
    for name, value in model.items():
        setattr(config.model_config, name, value)
    assert what in refusal(config, allow=True)


def test_drafts_beside_offloading_are_refused() -> None:
    config = supported()
    config.kv_transfer_config = offloading()
    config.speculative_config = SimpleNamespace(method="ngram")
    assert "host memory with speculative decoding" in refusal(config, allow=True)


def test_sparse_attention_over_the_host_is_refused_with_or_without_a_connector() -> None:
    config = supported()
    assert reason_of(config, allow=True) is None
    config.attention_config.hisparse_config = object()
    for transfer in (None, offloading()):
        config.kv_transfer_config = transfer
        assert reason_of(config, allow=True) == "not supported: HiSparse"


def test_a_size_that_made_no_connector_is_refused() -> None:
    config = supported()
    config.cache_config.kv_offloading_size = 4.0
    assert "KV offloading to host memory without a KV connector" in refusal(config, allow=True)


def test_an_in_process_engine_has_no_loop_to_run_commands_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    assert "VLLM_ENABLE_V1_MULTIPROCESSING=0" in refusal(supported(), "0.26.0")


def test_another_version_needs_permission() -> None:
    reason = refusal(supported(), "0.99.0")
    assert "vLLM 0.99.0 was not tried (" in reason and "LAZYGRAPH_ALLOW_UNTESTED=1" in reason
    assert reason_of(supported(), "0.99.0", allow=True) is None


def test_a_version_whose_hooks_are_known_still_needs_a_gpu() -> None:
    assert "vLLM 0.32.0 was not tried on a GPU (" in refusal(supported(), "0.32.0")


def test_another_version_is_not_even_looked_at() -> None:
    assert reason_of(None, "0.99.0") is not None


def test_what_was_tried_has_an_adapter() -> None:
    assert set(TRIED) <= set(KNOWN)
    assert isinstance(adapter_for("0.33.0+cu130"), V31)
    assert adapter_for("0.99.0") is None


def test_a_family_needs_a_gpu_first() -> None:
    config = supported()
    config.parallel_config.tensor_parallel_size = 1
    config.model_config.is_moe = True
    config.model_config.quantization = "never-heard-of"
    assert "never-heard-of quantisation on vLLM 0.33.0" in refusal(config)
    assert reason_of(config, allow=True) is None
    config.model_config.quantization = None
    assert MOE in TRIED["0.33.0"].traits
    assert reason_of(config) is None


def with_adapters(**lora: Any) -> Any:
    config = supported()
    config.lora_config = SimpleNamespace(**lora)
    return config


def with_sleep(**model: Any) -> Any:
    config = supported()
    for name, value in {"enable_sleep_mode": True, **model}.items():
        setattr(config.model_config, name, value)
    return config


def one_gpu(config: Any) -> Any:
    config.parallel_config.tensor_parallel_size = 1
    return config


def with_drafts(method: str) -> Any:
    config = supported()
    no = {"use_multi_module_mtp": lambda: False, "use_gemma4_mtp": lambda: False}
    config.speculative_config = SimpleNamespace(method=method, **no)
    return config


def with_images() -> Any:
    config = supported()
    config.model_config.is_multimodal_model = True
    config.model_config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    return config


def with_stages() -> Any:
    config = one_gpu(supported())
    config.parallel_config.pipeline_parallel_size = 2
    return config


SHOWN = [
    with_adapters,
    with_sleep,
    *(lambda m=m: with_drafts(m) for m in ("ngram", "draft_model", "eagle")),
    with_images,
]


@pytest.mark.parametrize("make", SHOWN)
def test_adapters_sleep_and_drafts_are_let_in_by_themselves(make: Any) -> None:
    assert reason_of(one_gpu(make())) is None
    # Nothing was shown of them on another version, or together with anything else.
    assert reason_of(one_gpu(make()), "0.32.0") is not None
    assert " with tensor parallelism on vLLM 0.33.0 (not tried" in refusal(make())
    quantised = one_gpu(make())
    quantised.model_config.quantization = "fp8"
    assert " with fp8 quantisation on vLLM 0.33.0 (not tried" in refusal(quantised)
    assert reason_of(quantised, allow=True) is None


def hybrid(architecture: str, prefill: str | None) -> Any:
    config = one_gpu(supported())
    config.model_config.is_hybrid = True
    config.model_config.architectures = [architecture]
    config.additional_config = {} if prefill is None else {"gdn_prefill_backend": prefill}
    return config


@pytest.mark.parametrize(
    ("prefill", "by"), [("triton", "Triton"), ("flashinfer", "FlashInfer"), (None, "FlashInfer")]
)
def test_gated_delta_nets_are_let_in_by_the_kernels_that_were_shown(
    prefill: str | None, by: str
) -> None:
    config = hybrid("Qwen3NextForCausalLM", prefill)
    assert f"by {by} without mixture-of-experts models on" in refusal(config)
    config.model_config.is_moe = True
    assert reason_of(config) is None
    config.cache_config.mamba_cache_mode = "align"
    assert reason_of(config) is None, "with prefix caching"
    new, other = hybrid("Qwen3NextForCausalLM", prefill), hybrid("Qwen3NextForCausalLM", "cutedsl")
    new.cache_config.mamba_cache_mode = "a later one"
    for config_of in (new, other):
        assert "(tried with --gdn-prefill-backend triton or flashinfer alone); LAZY" in refusal(
            config_of
        )
    config.parallel_config.tensor_parallel_size = 2
    assert f"nets by {by} with tensor parallelism on vLLM 0.33.0 (not" in refusal(config)


def test_mamba2_is_let_in_by_the_kernels_that_were_shown() -> None:
    config = hybrid("GraniteMoeHybridForCausalLM", None)
    config.mamba_config = SimpleNamespace(backend="triton")
    assert reason_of(config) is None
    config.cache_config.mamba_cache_mode = "align"
    assert reason_of(config) is None, "with prefix caching"
    config.model_config.is_moe = True
    assert "Mamba2 by Triton with mixture-of-experts models on" in refusal(config)
    config.mamba_config.backend = "flashinfer"
    assert "(tried with --mamba-backend triton alone); LAZY" in refusal(config)


def test_kimi_delta_attention_is_let_in_as_it_was_shown() -> None:
    config = hybrid("KimiLinearForCausalLM", None)
    config.additional_config = {"kda_prefill_backend": "triton"}
    config.model_config.is_moe = config.model_config.use_mla = True
    assert "by Triton without breakable CUDA graphs on" in refusal(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
        config.compilation_config.mode = 0
        assert reason_of(config) is None
        config.cache_config.mamba_cache_mode = "align"
        assert reason_of(config) is None, "with prefix caching"
        decode = {"kda_prefill_backend": "triton", "kda_decode_backend": "flashinfer"}
        for more in ({}, decode):
            config.additional_config = more
            assert "(tried with --kda-prefill-backend triton alone)" in refusal(config)


@pytest.mark.parametrize("method", ["eagle", "mtp"])
def test_drafts_are_let_in_on_the_models_that_were_shown(method: str) -> None:
    config = one_gpu(with_drafts(method))
    config.model_config.is_moe = config.model_config.use_mla = True
    reason = reason_of(config)
    assert reason is None if method == "mtp" else " with mixture-of-experts" in str(reason)


def test_what_was_shown_in_parts_is_not_let_in_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = tuple(map(frozenset, ("ab", "bc", "ac")))
    monkeypatch.setitem(TRIED, "0.33.0", Tried(frozenset(), together=pairs))
    assert untried("ab", "0.33.0") == []
    assert untried("c", "0.33.0") == ["c without b"]
    assert untried("abc", "0.33.0") == ["a with c"]
    assert untried("abd", "0.33.0") == ["d"]


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (with_drafts("ngram_gpu"), DRAFTERS["ngram_gpu"]),
        (hybrid("Zamba2ForCausalLM", "triton"), HYBRID),
    ],
)
def test_what_no_gpu_has_shown_says_so_and_can_be_allowed(config: Any, what: str) -> None:
    assert reason_of(config) == (
        f"not supported: {what} on vLLM 0.33.0 (not tried on a GPU yet); "
        "LAZYGRAPH_ALLOW_UNTESTED=1 overrides this"
    )
    assert reason_of(config, allow=True) is None


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("speculative_config", with_drafts("ngram").speculative_config, f"with {DRAFTS}"),
        ("lora_config", SimpleNamespace(), f"with {LORA}"),
        ("model_config.enable_sleep_mode", True, f"with {SLEEP}"),
        ("model_config.is_hybrid", True, "on hybrid models"),
        ("model_config.is_multimodal_model", True, "on multimodal models"),
        (
            "compilation_config.pass_config",
            SimpleNamespace(enable_sp=True),
            "with sequence parallelism",
        ),
    ],
)
def test_stages_beside_another_feature_stay_refused(path: str, value: Any, what: str) -> None:
    config = with_stages()
    *owners, name = path.split(".")
    setattr(getattr(config, owners[0]) if owners else config, name, value)
    assert reason_of(config, allow=True) == f"not supported: {PIPELINE} {what}"
    config.parallel_config.pipeline_parallel_size = 1
    assert reason_of(config, allow=True) is None, "refused for its sake"


def test_stages_are_let_in_by_themselves() -> None:
    config = with_stages()
    assert reason_of(config) is None
    config.parallel_config.tensor_parallel_size = 2
    assert "pipeline parallelism with tensor parallelism" in refusal(config)


@pytest.fixture
def breakable(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As vLLM leaves it where breakable graphs are on."""
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    config = supported()
    config.compilation_config.mode = 0
    return config


def test_breakable_graphs_run_lazily_alone_from_031_on(breakable: Any) -> None:
    breakable.parallel_config.tensor_parallel_size = 1
    assert reason_of(breakable) is None
    before = "not supported: breakable CUDA graphs before vLLM 0.31"
    assert reason_of(breakable, "0.26.0", allow=True) == before
    breakable.parallel_config.tensor_parallel_size = 2
    assert reason_of(breakable) == (
        "not supported: breakable CUDA graphs with tensor parallelism on vLLM 0.33.0 "
        "(not tried on a GPU yet); LAZYGRAPH_ALLOW_UNTESTED=1 overrides this"
    )
    assert reason_of(breakable, allow=True) is None


def test_a_model_without_a_compiler_or_breakable_graphs_stays_refused(
    breakable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "0")
    assert reason_of(breakable, allow=True) == "not supported: compilation mode 0"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lora_config", "LoRA with breakable CUDA graphs"),
        ("speculative_config", "speculative decoding with breakable CUDA graphs"),
        ("pipeline", "pipeline parallelism with breakable CUDA graphs"),
    ],
)
def test_breakable_graphs_beside_another_feature_stay_refused(
    breakable: Any, name: str, what: str
) -> None:
    if name == "pipeline":
        breakable.parallel_config.pipeline_parallel_size = 2
    else:
        setattr(breakable, name, SimpleNamespace(method="ngram"))
    assert reason_of(breakable, allow=True) == f"not supported: {what}"


def test_an_older_adapter_leaves_breakable_graphs_to_vllm() -> None:
    def runner(breaks: bool) -> Any:
        return SimpleNamespace(cudagraph_manager=SimpleNamespace(use_breakable_cg=breaks))

    assert V26().breakable_reason(runner(True)) == "not supported: breakable CUDA graphs"
    assert V26().breakable_reason(runner(False)) is None


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (with_adapters(specialize_active_lora=True), "by the number of adapters"),
        (with_adapters(fully_sharded_loras=True), "--fully-sharded-loras"),
        (with_sleep(sleep_mode_backend="cuda_checkpoint"), "the backend 'cuda_checkpoint'"),
        (with_sleep(sleep_mode_offload_cudagraph=True), "moves graphs to the host"),
        (with_sleep(enable_nccl_comm_suspend=True), "suspends NCCL"),
    ],
)
def test_what_of_adapters_and_sleep_stays_refused(config: Any, what: str) -> None:
    assert what in refusal(config, allow=True)


@pytest.mark.parametrize(
    "trait", ["is_hybrid", "is_moe", "is_multimodal_model", "enable_sleep_mode"]
)
def test_adapters_are_let_in_on_a_dense_model_that_never_sleeps(trait: str) -> None:
    config = with_adapters()
    setattr(config.model_config, trait, True)
    assert "LoRA" in refusal(config, allow=True)


@pytest.mark.parametrize("trait", ["is_hybrid", "is_moe", "is_multimodal_model"])
def test_what_goes_wrong_on_0_26_stays_refused(trait: str) -> None:
    config = supported()
    setattr(config.model_config, trait, True)
    assert reason_of(config, "0.26.0", allow=True) is not None
    assert reason_of(config, allow=True) is None


def test_other_gpus_are_named() -> None:
    assert gpu_reason("NVIDIA H200", "0.33.0") is None
    reason = gpu_reason("NVIDIA GB10", "0.33.0")
    assert reason == "graphs were not tried on NVIDIA GB10 with vLLM 0.33.0"
    assert gpu_reason("NVIDIA GB10", "0.99.0") is None


def test_a_field_that_moved_is_a_reason_and_no_crash() -> None:
    config = supported()
    del config.parallel_config.data_parallel_size
    assert "data_parallel_size" in refusal(config, allow=True)


@pytest.mark.parametrize("name", ["FULL", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"])
def test_graph_modes(name: str) -> None:
    assert graph_mode_reason(SimpleNamespace(name=name)) is None


def test_a_mode_without_graphs() -> None:
    assert graph_mode_reason(SimpleNamespace(name="NONE")) == "not supported: cudagraph_mode NONE"


def test_missing_hook() -> None:
    class Owner:
        here = 1

    assert missing_hook(Owner, ("here",)) is None
    assert missing_hook(Owner, ("here", "gone")) == "this vLLM lacks Owner.gone"
    assert missing_hook(Owner(), ("gone",)) == "this vLLM lacks Owner.gone"
    assert missing_hook(None, ("gone",)) is not None


def test_missing_in_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = V31()
    monkeypatch.setattr(V31, "signatures", {"json:loads": ("s", "unknown")})
    monkeypatch.setattr(V31, "modules", {"json": ("loads",)})
    reason = adapter.missing()
    assert reason is not None and reason.startswith("this vLLM's loads takes (s, ")
    monkeypatch.setattr(V31, "signatures", {"json:JSONDecoder.gone": ("self",)})
    assert adapter.missing() == "this vLLM lacks json.JSONDecoder.gone"
    monkeypatch.setattr(V31, "modules", {"json": ("gone",)})
    assert adapter.missing() == "this vLLM lacks json.gone"
    monkeypatch.setattr(V31, "modules", {"no_such_module_at_all": ("x",)})
    assert adapter.missing() == "this vLLM lacks no_such_module_at_all"
