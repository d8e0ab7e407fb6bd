"""What the plugin runs on: what was tried on a GPU, by version, family of models and GPU.

Everything else runs as stock, with one log line that says why. Being wrong here means wrong tokens
or a dead engine, so the lists grow only by trying: docs/vllm-versions.md says how.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import breakable, connectors, options
from .choose import KNOWN, adapter_for, plain
from .drafts import METHODS
from .v26 import V26


@dataclass(frozen=True)
class Tried:
    """What was seen to give right tokens on a GPU with one version of vLLM.

    Attributes:
        traits: what a model or its parallelism may have besides being dense, in ``traits``' words.
        alone: those of them that were tried on a dense model, on one GPU or as many as they are
            about, and together with no other trait.
        together: what else was tried, each in one model with the others of its set, on one GPU: a
            model has them all, and no trait beside these.
        gpus: names of GPUs, as CUDA has them.
    """

    traits: frozenset[str]
    alone: frozenset[str] = frozenset()
    together: tuple[frozenset[str], ...] = ()
    gpus: tuple[str, ...] = ("NVIDIA H200",)

    def shown(self) -> frozenset[str]:
        """What was tried, in whatever company."""
        return self.traits.union(*self.together)

    def combined(self) -> frozenset[str]:
        """What was tried in one model with others, and not by itself."""
        return frozenset().union(*self.together) - self.traits


NOWHERE = " (not tried on a GPU yet)"
TENSOR = "tensor parallelism"
PIPELINE = "pipeline parallelism"
EXPERT = "expert parallelism"
MOE = "mixture-of-experts models"
MLA = "multi-head latent attention"
HYBRID = "hybrid models"
GATED_DELTA = "hybrid models with gated delta nets by Triton"
GATED_DELTA_FLASHINFER = "hybrid models with gated delta nets by FlashInfer"
KIMI_DELTA = "hybrid models with Kimi delta attention by Triton"
MAMBA2 = "hybrid models with Mamba2 by Triton"
MULTIMODAL = "multimodal models"
QWEN_VL = "multimodal models of Qwen2.5-VL's architecture"
LORA = "LoRA"
SLEEP = "sleep mode"
DRAFTS = "speculative decoding"
BREAKABLE = "breakable CUDA graphs"
KV_OFFLOADING = "KV offloading to host memory"
# Each is shown by itself: what they have of graphs is not alike.
DRAFTERS = {
    "ngram": f"{DRAFTS} by n-gram",
    "ngram_gpu": f"{DRAFTS} by n-gram on the GPU",
    "draft_model": f"{DRAFTS} by a draft model",
    "eagle": f"{DRAFTS} by EAGLE",
    "eagle3": f"{DRAFTS} by EAGLE3",
    "mtp": f"{DRAFTS} by MTP",
}
# Nor have these in common who calls CUDA for them.
OFFLOADERS = {
    connectors.OFFLOADING: KV_OFFLOADING,
    connectors.SIMPLE: f"{KV_OFFLOADING} by {connectors.SIMPLE}",
}


ALONE_0_33 = frozenset(
    {LORA, SLEEP, BREAKABLE, PIPELINE, QWEN_VL, MAMBA2, options.KV_FP8, options.TRITON}
    | set(OFFLOADERS.values())
    | {DRAFTERS[method] for method in ("ngram", "draft_model", "eagle", "eagle3")}
)
TRIED: dict[str, Tried] = {
    "0.26.0": Tried(frozenset({TENSOR})),
    # bench/results: v033-checks.json, v033-more-checks.json.br, v033-first-run.json.br. Not here:
    # hybrid models beside STATE_MODELS, multimodal models with other buffers than Qwen2.5-VL's.
    "0.33.0": Tried(
        frozenset({TENSOR, EXPERT, MOE, MLA, "fp8 quantisation", "auto_gptq quantisation"})
        | ALONE_0_33,
        alone=ALONE_0_33,
        together=(
            frozenset({GATED_DELTA, MOE}),
            frozenset({GATED_DELTA_FLASHINFER, MOE}),
            # vLLM turns breakable graphs on for this model by itself.
            frozenset({KIMI_DELTA, MLA, MOE, BREAKABLE}),
            frozenset({DRAFTERS["mtp"], MLA, MOE}),
        ),
    ),
}

# By architecture: other models call other kernels, and their graphs read other buffers.
# With the option that chooses those kernels, and its values for them.
STATE_MODELS = {
    GATED_DELTA: ("Qwen3Next", "gdn_prefill_backend", ("triton",)),
    # An H200's default.
    GATED_DELTA_FLASHINFER: ("Qwen3Next", "gdn_prefill_backend", ("flashinfer", "auto")),
    KIMI_DELTA: ("KimiLinear", "kda_prefill_backend", ("triton",)),
    MAMBA2: ("GraniteMoeHybrid", "mamba_backend", ("triton",)),
}
# Where states may lie: with prefix caching ("align") in other blocks, and copied between steps.
STATE_MODES = ("none", "align")


def traits(config: Any) -> frozenset[str]:
    """What of a configuration decides whether it was tried.

    Args:
        config: vLLM's ``VllmConfig``.
    """
    model, parallel = config.model_config, config.parallel_config
    drafts = options.drafter(config)
    models = [model, getattr(drafts, "draft_model_config", None)]
    quantizations = {getattr(each, "quantization", None) for each in models}
    quantizations.add(getattr(drafts, "draft_lm_head_quantization", None))
    found = {
        TENSOR: parallel.tensor_parallel_size > 1,
        PIPELINE: parallel.pipeline_parallel_size > 1,
        EXPERT: getattr(parallel, "enable_expert_parallel", False),
        MOE: any(getattr(each, "is_moe", False) for each in models),
        MLA: any(getattr(each, "use_mla", False) for each in models),
        _hybrid_kind(config): getattr(model, "is_hybrid", False),
        _multimodal_kind(model): getattr(model, "is_multimodal_model", False),
        LORA: config.lora_config is not None,
        SLEEP: _sleeps(model),
        BREAKABLE: breakable.switched_on(),
        **{f"{each} quantisation": True for each in quantizations if each is not None},
    }
    found |= dict.fromkeys(options.untried(config), True)
    if config.speculative_config is not None:
        method = getattr(config.speculative_config, "method", None)
        found[DRAFTERS.get(str(method), DRAFTS)] = True
    if config.kv_transfer_config is not None:
        found[OFFLOADERS.get(str(connectors.name_of(config)), KV_OFFLOADING)] = True
    return frozenset(name for name, has in found.items() if has)


def _hybrid_kind(config: Any) -> str:
    """Which hybrid models this one would be of: states go wrong or not by the kernels' doing."""
    given = getattr(config, "additional_config", None)
    more: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    more["mamba_backend"] = getattr(getattr(config, "mamba_config", None), "backend", None)
    mode = getattr(config.cache_config, "mamba_cache_mode", "none")
    by_default = more.get("kda_decode_backend", "auto") == "auto"
    for kind, (name, option, values) in STATE_MODELS.items():
        chosen = more.get(option, "auto")
        shown = getattr(chosen, "value", chosen) in values and mode in STATE_MODES
        if by_default and shown and _is(config.model_config, f"{name}ForCausalLM"):
            return kind
    return HYBRID


def _multimodal_kind(model: Any) -> str:
    return QWEN_VL if _is(model, "Qwen2_5_VLForConditionalGeneration") else MULTIMODAL


def _is(model: Any, architecture: str) -> bool:
    names = getattr(model, "architectures", None)
    return isinstance(names, list) and set(names) == {architecture}


def version_reason(version: str, allow_untested: bool) -> str | None:
    """Why this version runs as stock, whatever it serves; ``None`` if it needn't."""
    if plain(version) in TRIED or allow_untested:
        return None
    # Its hooks are known where the contract suite and the drift check pass; a GPU says the rest.
    known = " on a GPU" if plain(version) in KNOWN else ""
    return (
        f"vLLM {version} was not tried{known} (tried: {', '.join(TRIED)}); "
        "LAZYGRAPH_ALLOW_UNTESTED=1 overrides this"
    )


def config_reason(config: Any, version: str, allow_untested: bool) -> str | None:
    """Why this configuration is not on the allow-list; ``None`` if it is.

    Args:
        config: vLLM's ``VllmConfig``.
        version: vLLM's version.
        allow_untested: accept versions and families that were not tried; what is known to go
            wrong stays refused.
    """
    if reason := version_reason(version, allow_untested):
        return reason
    try:
        if refused := _refused(config, version):
            return f"not supported: {refused}"
        return None if allow_untested else _untried(config, version)
    except AttributeError as error:
        # Only a version that was let in untested gets here.
        return f"this vLLM's configuration is another one: {error}"


def untried(found: Iterable[str], version: str) -> list[str]:
    """Of these traits what was not tried on this version, each alone or two together."""
    tried = TRIED[plain(version)]
    own = frozenset(found)
    if own in tried.together:
        return []
    if new := sorted(own - tried.shown()):
        return new
    if one := min(own & tried.combined(), default=None):
        return [_otherwise(one, own, tried)]
    apart = sorted(own & tried.alone)
    return [f"{one} with {min(own - {one})}" for one in apart if own != {one}][:1]


def _otherwise(one: str, own: frozenset[str], tried: Tried) -> str:
    """How a trait was not tried: with what is new beside it, or without what was there."""
    seen = [together for together in tried.together if one in together]
    nearest = min(seen, key=lambda together: len(own ^ together))
    extra, lacking = sorted(own - nearest), sorted(nearest - own)
    return f"{one} with {extra[0]}" if extra else f"{one} without {lacking[0]}"


def _untried(config: Any, version: str) -> str | None:
    new = untried(traits(config), version)
    if not new:
        return None
    elsewhere = [v for v, tried in TRIED.items() if new[0] in tried.shown()]
    where = f" (tried on {', '.join(elsewhere)})" if elsewhere else NOWHERE
    shown = TRIED[plain(version)].shown()
    of_states = new[0] in (HYBRID, *STATE_MODELS) and not elsewhere
    ways = [
        (option.replace("_", "-"), values[0])
        for kind, (name, option, values) in STATE_MODELS.items()
        if of_states and kind in shown and _is(config.model_config, f"{name}ForCausalLM")
    ]
    if ways:
        where = f" (tried with --{ways[0][0]} {' or '.join(value for _, value in ways)} alone)"
    return not_shown(new[0], version, where)


def not_shown(what: str, version: str, where: str = NOWHERE) -> str:
    """Why what was not tried on this version runs as stock, unless that is allowed."""
    return (
        f"not supported: {what} on vLLM {plain(version)}{where}; "
        "LAZYGRAPH_ALLOW_UNTESTED=1 overrides this"
    )


def gpu_reason(name: str, version: str) -> str | None:
    """Why this GPU is new to us; ``None`` if it was tried, or nothing was on this version."""
    tried = TRIED.get(plain(version))
    if tried is None or any(name.startswith(known) for known in tried.gpus):
        return None
    return f"graphs were not tried on {name} with vLLM {plain(version)}"


def _refused(config: Any, version: str) -> str | None:
    """What would go wrong, whatever anybody allows; ``None`` if nothing is known to."""
    parallel, model = config.parallel_config, config.model_config
    compilation = config.compilation_config
    attention = getattr(config, "attention_config", None)
    before_0_27 = isinstance(adapter_for(version), V26)
    checks: tuple[tuple[bool, str], ...] = (
        (model is None or model.runner_type != "generate", "the model doesn't generate text"),
        (bool(model and model.enforce_eager), "enforce_eager turns CUDA graphs off"),
        (not config.use_v2_model_runner, "vLLM uses its V1 model runner here"),
        # 0.26 captures through block ids of requests that are alive: wrong recurrent state.
        (before_0_27 and options.has_states(model), f"{_recurrent(model)} before vLLM 0.27"),
        (before_0_27 and getattr(model, "is_moe", False), f"{MOE} before vLLM 0.27"),
        (before_0_27 and getattr(model, "is_multimodal_model", False), MULTIMODAL),
        (bool(model and getattr(model, "is_encoder_decoder", False)), "encoder-decoder models"),
        (parallel.data_parallel_size > 1, "data parallelism"),
        *_pipeline_checks(config, before_0_27),
        (getattr(parallel, "prefill_context_parallel_size", 1) > 1, "context parallelism"),
        (getattr(parallel, "decode_context_parallel_size", 1) > 1, "context parallelism"),
        (getattr(parallel, "enable_dbo", False), "dual batch overlap"),
        (getattr(parallel, "ubatch_size", 0) > 1, "microbatches"),
        (getattr(parallel, "enable_elastic_ep", False), "elastic expert parallelism"),
        (getattr(parallel, "enable_eplb", False), "balancing of experts"),
        # It goes on after an exception, and ranks with different graphs must not.
        (
            not before_0_27 and getattr(parallel, "enable_fault_tolerance", False),
            "fault tolerance of the engine",
        ),
        # Encoder graphs are vLLM's own to capture, and in no forecast of ours.
        (
            not before_0_27 and getattr(compilation, "cudagraph_mm_encoder", False),
            "CUDA graphs of encoders",
        ),
        (
            parallel.distributed_executor_backend not in (None, "mp", "uni"),
            f"the executor backend {parallel.distributed_executor_backend!r}",
        ),
        (getattr(parallel, "nnodes", 1) > 1, "several nodes"),
        *_draft_checks(config, before_0_27),
        *_adapter_checks(config, before_0_27),
        *_sleep_checks(config, before_0_27),
        # It keeps the KV cache on the host by itself, whatever connector there is.
        (getattr(attention, "hisparse_config", None) is not None, "HiSparse"),
        *_connector_checks(config, before_0_27),
        (getattr(config, "ec_transfer_config", None) is not None, "encoder-cache connectors"),
        (_offloads_weights(config), "weight offloading"),
        # It dispatches a second time in a step, and needs that size captured.
        (getattr(config.cache_config, "kv_sharing_fast_prefill", False), "fast prefill"),
        # What is compiled while it serves then ends the engine, and steps without a graph meet it.
        (
            getattr(config.observability_config, "jit_monitor_mode", None) == "error",
            "--jit-monitor-mode error",
        ),
        (not _in_engine_process(), "VLLM_ENABLE_V1_MULTIPROCESSING=0, an in-process engine"),
        *_breakable_checks(config, before_0_27),
    )
    return next((what for refused, what in checks if refused), None)


def _adapter_checks(config: Any, old: bool) -> tuple[tuple[bool, str], ...]:
    """What of LoRA is refused: whatever was not thought through to the kernels' metadata."""
    lora, model = config.lora_config, config.model_config
    if lora is None:
        return ()
    return (
        (old, f"{LORA} before vLLM 0.31"),
        # vLLM counts a case's adapters without the base model's rows, its kernels with them: in a
        # step that has both, the graph's grid is one short and leaves an adapter out.
        (
            getattr(lora, "specialize_active_lora", False),
            f"{LORA} with graphs by the number of adapters (--specialize-active-lora)",
        ),
        (getattr(lora, "fully_sharded_loras", False), f"{LORA} with --fully-sharded-loras"),
        (getattr(model, "is_moe", False), f"{LORA} on {MOE}"),
        (options.has_states(model), f"{LORA} on {_recurrent(model)}"),
        (getattr(model, "is_multimodal_model", False), f"{LORA} on {MULTIMODAL}"),
        (_sleeps(model), f"{LORA} with {SLEEP}"),
    )


def _draft_checks(config: Any, old: bool) -> tuple[tuple[bool, str], ...]:
    """What of speculative decoding is refused."""
    drafts, model = config.speculative_config, config.model_config
    if drafts is None:
        return ()
    method = getattr(drafts, "method", None)
    several = method == "mtp" and drafts.use_multi_module_mtp()
    gemma = method == "mtp" and drafts.use_gemma4_mtp()
    own = getattr(drafts, "draft_tensor_parallel_size", None)
    return (
        (old, f"{DRAFTS} before vLLM 0.31"),
        (method not in METHODS, f"{DRAFTS} by the method {method!r}"),
        # Its graphs have a bound in the place of a length, and its costs are measured at a start.
        (getattr(drafts, "enable_adaptive_verification", False), "adaptive verification"),
        (
            getattr(drafts, "num_speculative_tokens_per_batch_size", None) is not None,
            f"{DRAFTS} with a number of tokens that depends on the batch",
        ),
        (getattr(drafts, "parallel_drafting", False), f"{DRAFTS} with parallel drafting"),
        (several, f"{DRAFTS} by several MTP modules"),
        (gemma, f"{DRAFTS} by Gemma 4's drafter, which reads the target's KV cache"),
        # Its ranks would run the drafter's collectives apart from the target's.
        (
            own is not None and own != config.parallel_config.tensor_parallel_size,
            f"{DRAFTS} with another tensor parallelism for the drafter",
        ),
        (getattr(config, "watermark_config", None) is not None, f"{DRAFTS} with watermarks"),
        (config.lora_config is not None, f"{DRAFTS} with {LORA}"),
        (options.has_states(model), f"{DRAFTS} on {_recurrent(model)}"),
        (getattr(model, "is_multimodal_model", False), f"{DRAFTS} on {MULTIMODAL}"),
        (_sleeps(model), f"{DRAFTS} with {SLEEP}"),
    )


def _breakable_checks(config: Any, old: bool) -> tuple[tuple[bool, str], ...]:
    """What of a model without vLLM's compiler is refused; breakable graphs turn it off."""
    mode = getattr(config.compilation_config, "mode", None)
    if not breakable.switched_on():
        return ((mode is not None and int(mode) != 3, f"compilation mode {mode}"),)
    return (
        (old, f"{BREAKABLE} before vLLM 0.31"),
        # A drafter's are recorded by a wrapper of its own, and not thought through to its pairs.
        (config.speculative_config is not None, f"{DRAFTS} with {BREAKABLE}"),
        (config.lora_config is not None, f"{LORA} with {BREAKABLE}"),
    )


def _pipeline_checks(config: Any, old: bool) -> tuple[tuple[bool, str], ...]:
    """What of pipeline parallelism is refused: whatever was not thought through stage by stage."""
    parallel, model = config.parallel_config, config.model_config
    if parallel.pipeline_parallel_size == 1:
        return ()
    passes = getattr(config.compilation_config, "pass_config", None)
    return (
        (old, f"{PIPELINE} before vLLM 0.31"),
        # Only the last stage drafts, so that its graphs alone would go in pairs.
        (config.speculative_config is not None, f"{PIPELINE} with {DRAFTS}"),
        (config.lora_config is not None, f"{PIPELINE} with {LORA}"),
        (_sleeps(model), f"{PIPELINE} with {SLEEP}"),
        (breakable.switched_on(), f"{PIPELINE} with {BREAKABLE}"),
        # A stage may have no recurrent layer to borrow a state of.
        (options.has_states(model), f"{PIPELINE} on {_recurrent(model)}"),
        (getattr(model, "is_multimodal_model", False), f"{PIPELINE} on {MULTIMODAL}"),
        # What a stage hands on is then a share of the rows (to 0.32).
        (bool(getattr(passes, "enable_sp", False)), f"{PIPELINE} with sequence parallelism"),
    )


def _sleep_checks(config: Any, old: bool) -> tuple[tuple[bool, str], ...]:
    """What of sleep mode is refused."""
    model = config.model_config
    if not _sleeps(model):
        return ()
    backend = getattr(model, "sleep_mode_backend", "cumem")
    return (
        (old, f"{SLEEP} before vLLM 0.31"),
        (backend != "cumem", f"{SLEEP} by the backend {backend!r}"),
        # Its pool takes the place of ours, and a graph's memory is none that we could count.
        (
            getattr(model, "sleep_mode_offload_cudagraph", False),
            f"{SLEEP} that moves graphs to the host (--sleep-mode-offload-cudagraph)",
        ),
        (
            getattr(model, "enable_nccl_comm_suspend", False),
            f"{SLEEP} that suspends NCCL, which graphs point to (--enable-nccl-comm-suspend)",
        ),
    )


def _connector_checks(config: Any, old: bool) -> tuple[tuple[bool, str], ...]:
    """What of KV connectors is refused: all but those that offload to host memory alone."""
    transfer, model = config.kv_transfer_config, config.model_config
    if transfer is None:
        # Where vLLM has resolved its configuration, a size has made a connector of it.
        size = getattr(config.cache_config, "kv_offloading_size", None)
        return ((bool(size), f"{KV_OFFLOADING} without a KV connector"),)
    foreign, tier = connectors.foreign(config), connectors.other_tier(config)
    return (
        (old, "KV connectors, or KV offloading, before vLLM 0.31"),
        (foreign is not None, str(foreign)),
        (tier is not None, f"KV offloading to another tier than host memory ({tier})"),
        # Its connector ends a step after the drafter, which was not thought through.
        (config.speculative_config is not None, f"{KV_OFFLOADING} with {DRAFTS}"),
        (_sleeps(model), f"{KV_OFFLOADING} with {SLEEP}"),
        # A check lends blocks to a dummy batch, which a copy may be reading.
        (options.has_states(model), f"{KV_OFFLOADING} on {_recurrent(model)}"),
        (getattr(model, "is_multimodal_model", False), f"{KV_OFFLOADING} on {MULTIMODAL}"),
    )


def _sleeps(model: Any) -> bool:
    """Its allocator alone makes sleep's calls work: vLLM doesn't ask for the mode."""
    return bool(
        getattr(model, "enable_sleep_mode", False)
        or getattr(model, "enable_cumem_allocator", False)
    )


def _recurrent(model: Any) -> str:
    """What a model with recurrent states is called."""
    return options.ATTENTION_FREE if getattr(model, "is_attention_free", False) else HYBRID


def _offloads_weights(config: Any) -> bool:
    offload = getattr(config, "offload_config", None)
    if offload is None:
        return False
    uva = getattr(getattr(offload, "uva", None), "cpu_offload_gb", 0)
    prefetch = getattr(getattr(offload, "prefetch", None), "offload_group_size", 0)
    return bool(uva) or bool(prefetch)


def _in_engine_process() -> bool:
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0"
