"""The allow-list against vLLM's own configuration classes, as its command line builds them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checks
import pytest
from model_shapes import SHAPES
from vllm.version import __version__

from lazygraph_vllm.vllm import options
from lazygraph_vllm.vllm.allowed import (
    BREAKABLE,
    DRAFTERS,
    GATED_DELTA,
    GATED_DELTA_FLASHINFER,
    HYBRID,
    KIMI_DELTA,
    LORA,
    MAMBA2,
    MLA,
    MOE,
    PIPELINE,
    TENSOR,
    TRIED,
    config_reason,
    traits,
)
from vllm_facts import AT

BENCH = Path(__file__).resolve().parents[3] / "bench" / "gpu"

tried = pytest.mark.skipif(AT < (0, 33), reason="not tried on this version")
# Up to 0.32 nothing was tried, and so no drafter.
UNTRIED_DRAFTER = "ngram" if AT < (0, 33) else "ngram_gpu"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "torch_dtype": "bfloat16",
}

MAMBA = {
    "architectures": ["MambaForCausalLM"],
    "model_type": "mamba",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "state_size": 16,
    "vocab_size": 128,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``vllm serve``'s way from options to ``VllmConfig``, on a host without a GPU."""
    from vllm.config import vllm as config_module
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "device_type", "cpu")
    monkeypatch.setattr(type(current_platform), "support_static_graph_mode", lambda *_: True)
    monkeypatch.setattr(config_module, "HAS_TRITON", True)
    # The launcher backend turns this off for the whole process.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def build(model: dict[str, Any] = LLAMA, **options: Any) -> Any:
        (tmp_path / "config.json").write_text(json.dumps(model))
        options = {"skip_tokenizer_init": True, "max_num_seqs": 64, **options}
        return EngineArgs(model=str(tmp_path), **options).create_engine_config()

    return build


def test_an_ordinary_dense_model_is_on_the_list(configure: Any) -> None:
    config = configure()
    assert config.use_v2_model_runner
    assert config_reason(config, __version__, allow_untested=False) is None


def test_two_ranks_are_on_the_list(configure: Any) -> None:
    config = configure(tensor_parallel_size=2)
    assert config.parallel_config.distributed_executor_backend == "mp"
    assert traits(config) == {TENSOR}
    if TENSOR not in TRIED[__version__].traits:
        pytest.skip("tensor parallelism was not tried on this version")
    assert config_reason(config, __version__, allow_untested=False) is None


@pytest.mark.skipif(AT < (0, 31), reason="captures on stages go wrong there")
def test_two_stages_are_vllms_v2_runner_with_several_steps_under_way(configure: Any) -> None:
    """As ``dense-8b-pp2`` of the GPU's checks asks for them."""
    families = json.loads((BENCH / "families.json").read_text())["families"]
    [family] = [each for each in families if each["name"] == "dense-8b-pp2"]
    assert family["gpus"] == 2 and "env" not in family
    config = configure(**checks.engine_arguments(family["args"]))
    assert config.use_v2_model_runner
    assert config.parallel_config.distributed_executor_backend == "mp"
    assert config.parallel_config.world_size == 2 and config.max_concurrent_batches == 3
    assert traits(config) == {PIPELINE}
    assert config_reason(config, __version__, allow_untested=__version__ not in TRIED) is None


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"enforce_eager": True}, "enforce_eager"),
        ({"enable_lora": True, "fully_sharded_loras": True}, "LoRA"),
        ({"pipeline_parallel_size": 2, "enable_lora": True}, "pipeline parallelism"),
        ({"data_parallel_size": 2}, "data parallelism"),
        ({"cpu_offload_gb": 1}, "offloading"),
        ({"offload_group_size": 2}, "offloading"),
        ({"kv_offloading_size": 1.0, "tensor_parallel_size": 2}, "KV offloading"),
        (
            {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
            "KV connector",
        ),
        (
            {"speculative_config": {"method": UNTRIED_DRAFTER, "num_speculative_tokens": 2}},
            "V1 model runner" if AT < (0, 30) else "speculative decoding",
        ),
        ({"distributed_executor_backend": "external_launcher"}, "external_launcher"),
        ({"compilation_config": {"mode": 0}}, "compilation mode"),
        ({"runner": "pooling"}, "doesn't generate text"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_on_the_list(configure: Any, options: dict[str, Any], what: str) -> None:
    reason = config_reason(configure(**options), __version__, allow_untested=False)
    assert reason is not None and what in reason


@tried
@pytest.mark.parametrize(
    ("options", "trait"),
    [
        ({"enable_lora": True}, LORA),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
            DRAFTERS["ngram"],
        ),
    ],
)
def test_what_was_tried_by_itself_is_on_the_list(
    configure: Any, options: dict[str, Any], trait: str
) -> None:
    config = configure(**options)
    assert traits(config) == {trait}
    assert config_reason(config, __version__, allow_untested=False) is None
    spread = config_reason(
        configure(**options, tensor_parallel_size=2), __version__, allow_untested=False
    )
    assert spread is not None and f"{trait} with {TENSOR}" in spread


@tried
def test_gated_delta_nets_are_known_by_the_kernels_of_their_prefill(
    configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Triton, as ``hybrid-24l`` of the GPU's checks runs them; vLLM itself prefers another."""
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "0")
    shape = SHAPES["qwen3-next-4l"]
    kinds = {"triton": GATED_DELTA, "flashinfer": GATED_DELTA_FLASHINFER}
    for cached in (True, False):
        for backend in ("triton", "flashinfer", None):
            options = {"enable_prefix_caching": cached, "max_model_len": 256}
            shown = configure(shape, gdn_prefill_backend=backend, **options)
            assert shown.cache_config.mamba_cache_mode == ("align" if cached else "none")
            assert traits(shown) == {kinds.get(str(backend), GATED_DELTA_FLASHINFER), MOE}
            assert config_reason(shown, __version__, allow_untested=False) is None


@tried
def test_mamba2_is_known_by_its_kernels(configure: Any) -> None:
    cached = {"max_model_len": 256}
    uncached = {"enable_prefix_caching": False, **cached}
    other = {"mamba_backend": "flashinfer", **uncached}
    for kind, given in ((MAMBA2, uncached), (MAMBA2, cached), (HYBRID, other)):
        config = configure(SHAPES["granite-4.0-h-micro"], **given)
        assert config.use_v2_model_runner and traits(config) == {kind}
        reason = config_reason(config, __version__, allow_untested=False)
        assert (reason is None) is (kind == MAMBA2)


@tried
def test_kimi_delta_attention_is_known_by_the_kernels_of_its_prefill(
    configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``kimi-linear-8l`` of the GPU's checks; vLLM turns breakable graphs on for it."""
    # It stays in the environment of this process.
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    shape = SHAPES["kimi-linear-4l"]
    for cached in (True, False):
        given = {"enable_prefix_caching": cached, "max_model_len": 256}
        shown = configure(shape, kda_prefill_backend="triton", **given)
        assert traits(shown) == {KIMI_DELTA, MOE, MLA, BREAKABLE}
        assert config_reason(shown, __version__, allow_untested=False) is None
        assert HYBRID in traits(configure(shape, gdn_prefill_backend="triton", **given))
        assert HYBRID in traits(configure(shape, **given))


@tried
def test_kimi_linear_has_no_more_of_its_own_once_loaded() -> None:
    from vllm.models.kimi_k3.nvidia.kda import KimiK3DeltaAttention
    from vllm.models.kimi_k3.nvidia.model import KimiLinearForCausalLM

    layer, model = (kind.__new__(kind) for kind in (KimiK3DeltaAttention, KimiLinearForCausalLM))
    compilation = SimpleNamespace(static_forward_context={"layer": layer})
    config = SimpleNamespace(compilation_config=compilation, model_config=SimpleNamespace())
    own = {"models with a state of their own"}
    # DeepSeek-V4.1 has no such decode either, and no state of hybrids.
    for decode, hybrid, new in ((None, True, set()), (None, False, own), ("its", True, own)):
        vars(model)["specialized_decode_config"] = decode
        config.model_config.is_hybrid = hybrid
        assert options.chosen(SimpleNamespace(model=model, vllm_config=config)) == new


def test_a_model_without_attention_is_no_dense_one(
    configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM runs it by the state of hybrid models, and captures through the tables of its states."""
    # To 0.28 vLLM chooses its V1 runner for it.
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    config = configure(MAMBA)
    assert config.use_v2_model_runner and not config.model_config.is_hybrid
    assert traits(config) == {options.ATTENTION_FREE}
    reason = config_reason(config, __version__, allow_untested=False)
    assert reason is not None and options.ATTENTION_FREE in reason
    permitted = config_reason(config, __version__, allow_untested=True)
    assert (permitted is None) is (AT >= (0, 31)), "0.26 writes through blocks of live requests"


@pytest.mark.parametrize(
    ("given", "trait"),
    [
        ({"kv_cache_dtype": "fp8_e5m2"}, options.KV_TYPE),
        ({"attention_backend": "FLASHINFER"}, options.BACKEND),
        ({"attention_config": {"flash_attn_version": 2}}, options.BACKEND),
        ({"hf_overrides": {"index_topk": 2048}}, options.BACKEND),
        ({"dtype": "float32"}, options.BACKEND),
        ({"mamba_ssm_cache_dtype": "float32"}, options.KV_TYPE),
        ({"compilation_config": {"use_inductor_graph_partition": True}}, options.PARTITION),
        ({"enable_prompt_embeds": True}, options.EMBEDS),
        ({"moe_backend": "triton"}, options.KERNELS),
        ({"linear_backend": "cutlass"}, options.KERNELS),
    ],
)
def test_what_changes_a_graph_is_seen_as_vllm_writes_it(
    configure: Any, given: dict[str, Any], trait: str
) -> None:
    config = configure(**given)
    assert trait in traits(config)
    assert config_reason(config, __version__, allow_untested=False) is not None


@tried
@pytest.mark.parametrize(
    "media",
    [{"mm_ipc_gpu_memory_gb": 1}, {"media_io_kwargs": {"video": {"backend": "pynvvideocodec"}}}],
)
def test_memory_that_servers_decode_media_in_is_not_ours(configure: Any, media: Any) -> None:
    from vllm.config.multimodal import MultiModalConfig

    config = configure()
    for given in ({}, media):
        config.model_config.multimodal_config = MultiModalConfig(**given)
        assert (options.MEDIA in traits(config)) is bool(given)


def test_fp8_by_blocks_is_not_the_fp8_that_was_tried(
    configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM calls both fp8: what tells them apart is in the checkpoint."""
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "supported_quantization", ["fp8"], raising=False)
    scales = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    blocks = {**scales, "weight_block_size": [128, 128]}
    whole = traits(configure({**LLAMA, "quantization_config": scales}))
    assert whole == {"fp8 quantisation"}
    parts = traits(configure({**LLAMA, "quantization_config": blocks}))
    assert parts == {"fp8 quantisation", options.BLOCKS}


def test_vllms_own_words_for_what_was_tried_are_no_traits(configure: Any) -> None:
    given = {"kv_cache_dtype": "auto", "attention_backend": "FLASH_ATTN"}
    assert traits(configure(**given)) == set()


LATER = {"hisparse_config", "aux_output_config", "linear_backend_per_quant"}
ABSENT = {"index_topk"} | (LATER if __version__.startswith("0.26.") else set())
"""What this version hasn't got yet, or not every model's own configuration."""


class Strict:
    """A configuration whose missing fields can't pass as absent features."""

    def __init__(self, value: Any, path: str) -> None:
        self.__dict__["of"] = (value, path)

    def __getattr__(self, name: str) -> Any:
        value, path = self.__dict__["of"]
        if not hasattr(value, name):
            raise (AttributeError if name in ABSENT else LookupError)(f"{path}.{name}")
        found = getattr(value, name)
        plain = found is None or isinstance(found, (int, float, str, dict))
        return found if plain or callable(found) else Strict(found, f"{path}.{name}")


def test_every_field_we_ask_for_exists(configure: Any) -> None:
    """A default for a field that was renamed would let its feature pass unseen."""
    assert config_reason(Strict(configure(), "config"), __version__, allow_untested=False) is None


def test_the_field_check_finds_a_renamed_field(configure: Any) -> None:
    """Positive control."""
    config = configure()
    fields = {n: getattr(config, n) for n in vars(config) if n != "ec_transfer_config"}
    fields["use_v2_model_runner"] = True
    with pytest.raises(LookupError, match="config.ec_transfer_config"):
        config_reason(Strict(SimpleNamespace(**fields), "config"), __version__, False)


def test_what_the_hand_shake_and_the_inventory_read_exists(configure: Any) -> None:
    from lazygraph_vllm.engine.agent import Agent
    from lazygraph_vllm.settings import Settings

    config = configure()
    agent = Agent(Settings(mode="idle", endpoint="tcp://127.0.0.1:1"), config, __version__)
    assert agent.state.unsupported is None
    hello = agent.session.hello(__version__)
    assert (hello.tensor_parallel, hello.pipeline_parallel) == (1, 1)
    assert hello.model
    agent.state.unsupported = "a test"
    config.cache_config.num_gpu_blocks = 10
    inventory = agent.session.inventory()
    assert inventory is not None
    assert (inventory.max_requests, inventory.max_batched_tokens) == (64, 2048)
    assert inventory.kv_cache_tokens == 10 * config.cache_config.block_size
    assert config.model_config.get_num_layers(config.parallel_config) == 2


# Vision's architecture can't be looked at without packages for images.
FAMILIES = [
    family
    for family in json.loads((BENCH / "families.json").read_text())["families"]
    if family["name"] != "vision-7b"
]


@tried
@pytest.mark.parametrize("family", FAMILIES, ids=[family["name"] for family in FAMILIES])
def test_a_family_overrides_the_list_only_while_it_waits_for_a_gpu(
    configure: Any, monkeypatch: pytest.MonkeyPatch, family: dict[str, Any]
) -> None:
    """Starts of all others show that they are let in, as nobody sees who overrides the list."""
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_sleep_mode_available", lambda *_: True)
    given = {"VLLM_USE_BREAKABLE_CUDAGRAPH": "0", **family.get("env", {})}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    options = {"max_model_len": 256, **checks.engine_arguments(family.get("args", []))}
    config = configure(SHAPES[family["shape"]], **options)
    reason = config_reason(config, __version__, allow_untested=False)
    assert (reason is None) is ("LAZYGRAPH_ALLOW_UNTESTED" not in given), reason
