"""Kinds of models and options that change what a graph records.

The families of ``allowed`` say nothing of them: a dense model with one of these would pass for a
dense model. Each is a trait of its own; most were tried on no GPU.

What is not here was looked at in 0.33's configuration and environment, and leaves a captured graph
as it is: it acts outside the model's run (scheduling, sampling, structured output, metrics, logs),
before the first capture (loading, compiling), or on models that are refused by another trait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .drafts import METHODS_WITH_GRAPHS

ATTENTION_FREE = "attention-free models"
DIFFUSION = "diffusion models"
TRANSFORMERS = "models in Transformers' code"
EMBEDS = "prompt embeddings"
MEDIA = "media on the GPU"
KV_FP8 = "a KV cache in fp8"
KV_TYPE = "a KV cache of another type than the model's"
TRITON = "attention by Triton"
BACKEND = "another attention backend than the default"
KERNELS = "kernels of another backend than the default"
BLOCKS = "fp8 quantisation by blocks"
PARTITION = "Inductor's graph partition"
ROUTED = "returned routed experts"
SYMMETRIC = "NCCL's symmetric memory"
PCIE = "FlashInfer's all-reduce over PCIe"
TWO_STREAMS = "LoRA on two streams"
SAMPLED = "drafts that are sampled"
OPTIONS = (
    *(ATTENTION_FREE, DIFFUSION, TRANSFORMERS, EMBEDS, MEDIA, KV_FP8, KV_TYPE, TRITON, BACKEND),
    *(KERNELS, BLOCKS, PARTITION, ROUTED, SYMMETRIC, PCIE, TWO_STREAMS, SAMPLED),
)

# Types of a KV cache that attention reads as the model's own.
PLAIN_TYPES = ("auto", "bfloat16", "float16")
# An H200's defaults, for ordinary and for latent attention.
BACKENDS = ("FLASH_ATTN", "FLASH_ATTN_MLA")
TRITON_BACKEND = "TRITON_ATTN"
FLASH_ATTENTION = 3
# Kernels not to use, what comes before Marlin's, and how Triton's load.
KERNEL_VARIABLES = ("VLLM_DISABLED_KERNELS", "VLLM_MARLIN_INPUT_DTYPE", "VLLM_TRITON_USE_TD")
# What was tried is vLLM's default.
KERNEL_SWITCHES = {
    "VLLM_MARLIN_USE_ATOMIC_ADD": "0",
    "VLLM_MOE_SKIP_PADDING": "1",
    "VLLM_USE_FUSED_MOE_GROUPED_TOPK": "1",
}
# How convolutions' states lie.
STATE_LAYOUT = "VLLM_SSM_CONV_STATE_LAYOUT"
# As the command line has it, not vLLM's other names for eight bits.
FP8 = "fp8"


def has_states(model: Any) -> bool:
    """Whether this model keeps recurrent states, beside attention or in its place.

    Args:
        model: vLLM's ``ModelConfig``.
    """
    return bool(getattr(model, "is_hybrid", False) or getattr(model, "is_attention_free", False))


def drafter(config: Any) -> Any:
    """The ``SpeculativeConfig`` where the drafter has graphs, else ``None``.

    It has a model of its own, maybe other kernels than its target's.

    Args:
        config: vLLM's ``VllmConfig``.
    """
    drafts = config.speculative_config
    return drafts if getattr(drafts, "method", None) in METHODS_WITH_GRAPHS else None


def untried(config: Any) -> Iterator[str]:
    """Which of ``OPTIONS`` this configuration has.

    Args:
        config: vLLM's ``VllmConfig``.
    """
    model, parallel = config.model_config, config.parallel_config
    several = parallel.tensor_parallel_size > 1
    cache, attention = config.cache_config, getattr(config, "attention_config", None)
    drafts = drafter(config)
    found = {
        # vLLM runs them by the state of hybrid models, and calls them otherwise.
        ATTENTION_FREE: getattr(model, "is_attention_free", False),
        DIFFUSION: getattr(model, "is_diffusion", False),
        # Asked for, or where vLLM has no class for the model; compiled or not as it turns out.
        TRANSFORMERS: any(
            getattr(each, "using_transformers_backend", bool)()
            for each in (model, getattr(drafts, "draft_model_config", None))
        ),
        # The graph then reads embeddings, not tokens.
        EMBEDS: getattr(model, "enable_prompt_embeds", False),
        # Its memory only looks free.
        MEDIA: _decodes_media(getattr(model, "multimodal_config", None)),
        KV_FP8: _is_fp8(cache),
        KV_TYPE: _other_types(cache) or _is_given(drafts, "kv_cache_dtype", PLAIN_TYPES),
        TRITON: _is_triton(attention),
        BACKEND: _other_attention(attention)
        or _needs_other_attention(model)
        or _is_given(drafts, "attention_backend", BACKENDS),
        # Workspaces and what is compiled at a first run are each one's own.
        KERNELS: _other_kernels(getattr(config, "kernel_config", None))
        or _is_given(drafts, "moe_backend", ("auto",))
        or any(_is_set(name) for name in KERNEL_VARIABLES)
        or any(_is_on(name, usual) != (usual == "1") for name, usual in KERNEL_SWITCHES.items())
        or (has_states(model) and _is_set(STATE_LAYOUT))
        or (has_states(model) and not _is_on("VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE", "1")),
        # Other kernels than those of a scale for each tensor, which are what was tried as fp8.
        BLOCKS: bool(getattr(getattr(config, "quant_config", None), "weight_block_size", None)),
        # Its later recordings take storage of earlier ones, as vLLM says where it profiles graphs.
        PARTITION: getattr(config.compilation_config, "use_inductor_graph_partition", False),
        # Each layer writes down its experts.
        ROUTED: getattr(getattr(config, "aux_output_config", None), "enabled", False),
        # Both register memory with other ranks by what is captured, and with each capture.
        SYMMETRIC: several and _is_on("VLLM_USE_NCCL_SYMM_MEM"),
        PCIE: several and _is_on("VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC"),
        TWO_STREAMS: config.lora_config is not None and _is_on("VLLM_LORA_ENABLE_DUAL_STREAM"),
        # The drafter's graphs then draw, and write down each request's probabilities.
        SAMPLED: _is_given(drafts, "draft_sample_method", ("greedy",)),
    }
    return (name for name, has in found.items() if has)


def chosen(runner: Any) -> set[str]:
    """What a loaded model has that was neither asked for nor tried: its own, or vLLM's choice."""
    config = runner.vllm_config
    layers = config.compilation_config.static_forward_context.values()
    backends = [each.get_attn_backend() for each in layers if hasattr(each, "get_attn_backend")]
    # Hybrid models have traits of theirs.
    known = {*BACKENDS, "GDN_ATTN", "KIMI_K3_KDA", "MAMBA2_ATTN"}
    known |= _attention(getattr(config, "attention_config", None))
    new = {f"attention by {name}" for name in {each.get_name() for each in backends} - known}
    # FlashAttention 3 has none: under the same name such layers run FlashAttention 2.
    impls = (getattr(each, "impl", None) for each in layers)
    if any(getattr(impl, "alibi_slopes", None) is not None for impl in impls):
        new.add("attention with ALiBi")
    # Kimi-Linear's is that of hybrids, but for a decode that it may have on Blackwell.
    plain = getattr(runner.model, "specialized_decode_config", NotImplemented) is None
    of_hybrids = plain and has_states(config.model_config)
    if hasattr(runner.model, "get_model_state_cls") and not of_hybrids:
        new.add("models with a state of their own")
    return new


def _decodes_media(media: Any) -> bool:
    on_gpu = getattr(media, "use_gpu_video_backend", bool)()
    return bool(on_gpu or getattr(media, "mm_ipc_gpu_memory_gb", 0))


def _attention(attention: Any) -> set[str]:
    """Names of what was chosen, for all layers or some."""
    chosen = [getattr(attention, "backend", None)]
    chosen += dict(getattr(attention, "backend_per_kind", None) or {}).values()
    return {str(getattr(each, "name", each)) for each in chosen if each is not None}


def _is_triton(attention: Any) -> bool:
    return _attention(attention) == {TRITON_BACKEND}


def _other_attention(attention: Any) -> bool:
    names, version = _attention(attention), getattr(attention, "flash_attn_version", None)
    other = not names <= set(BACKENDS) and not _is_triton(attention)
    return other or version not in (None, FLASH_ATTENTION)


def _needs_other_attention(model: Any) -> bool:
    """Of a model that looks both ways over an image, or at chosen tokens only (DeepSeek-V3.2).

    Or whose numbers or heads FlashAttention 3 doesn't take. vLLM then chooses another by itself.
    """
    chosen = getattr(getattr(model, "hf_text_config", None), "index_topk", None)
    wide = str(getattr(model, "dtype", None)) == "torch.float32"
    latent = getattr(model, "use_mla", False)
    head = 0 if latent else getattr(model, "get_head_size", int)()
    other = wide or head > 256 or head % 8 > 0 or getattr(model, "is_mm_prefix_lm", False)
    return bool(other) or chosen is not None


def _is_fp8(cache: Any) -> bool:
    """In all layers."""
    some = bool(getattr(cache, "kv_cache_dtype_skip_layers", None))
    return getattr(cache, "cache_dtype", "auto") == FP8 and not some


def _other_types(cache: Any) -> bool:
    """Of keys and values, or of recurrent states, which have no other plain type."""
    states = {getattr(cache, f"mamba_{name}cache_dtype", "auto") for name in ("", "ssm_")}
    plain = getattr(cache, "cache_dtype", "auto") in PLAIN_TYPES
    return not (plain or _is_fp8(cache)) or states != {"auto"}


def _other_kernels(kernels: Any) -> bool:
    names = {getattr(kernels, name, "auto") for name in ("moe_backend", "linear_backend")}
    return names != {"auto"} or bool(getattr(kernels, "linear_backend_per_quant", None))


def _is_given(drafts: Any, name: str, plain: tuple[str, ...]) -> bool:
    """Whether the drafter has something else here than these, which count as its target's."""
    value = getattr(drafts, name, None)
    return value is not None and str(getattr(value, "name", value)) not in plain


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip() != ""


def _is_on(variable: str, default: str = "0") -> bool:
    """As vLLM reads its switches: a number."""
    return os.environ.get(variable, default).strip() not in ("", "0")
