"""What is captured lazily and what is left to vLLM, as a table to be read.

Made from ``allowed.TRIED`` and ``choose.KNOWN``, which decide; a test holds the copy that README
and ``lazygraph doctor`` show to it. ``python -m lazygraph_vllm.vllm.table`` prints that copy.
"""

from __future__ import annotations

import json
from typing import Any

from .allowed import (
    BREAKABLE,
    DRAFTERS,
    DRAFTS,
    EXPERT,
    HYBRID,
    KV_OFFLOADING,
    LORA,
    MLA,
    MOE,
    MULTIMODAL,
    OFFLOADERS,
    PIPELINE,
    QWEN_VL,
    SLEEP,
    STATE_MODELS,
    TENSOR,
    TRIED,
    Tried,
)
from .choose import KNOWN
from .options import ATTENTION_FREE, OPTIONS
from .v26 import V26

FAMILIES = (
    *(TENSOR, PIPELINE, EXPERT, MOE, MLA, *STATE_MODELS, HYBRID),
    *(QWEN_VL, MULTIMODAL, LORA, SLEEP),
    *DRAFTERS.values(),
    BREAKABLE,
    *OFFLOADERS.values(),
    *OPTIONS,
)
# What ``allowed`` refuses there whatever anybody allows: a test holds it to that.
WRONG: dict[type[Any], tuple[str, ...]] = {
    V26: (
        *(PIPELINE, MOE, HYBRID, ATTENTION_FREE, MULTIMODAL),
        *(LORA, SLEEP, DRAFTS, BREAKABLE, KV_OFFLOADING),
    )
}
# On every version, in the words of ``allowed``.
ALWAYS_STOCK = (
    "enforce_eager",
    "the V1 model runner",
    "pooling models",
    "encoder-decoder models",
    "data parallelism",
    "context parallelism",
    "dual batch overlap",
    "microbatches",
    "elastic expert parallelism",
    "balancing of experts",
    "Ray",
    "several nodes",
    "speculative decoding by other methods than n-gram, EAGLE, EAGLE3, MTP with one module and "
    "draft models",
    "adaptive verification",
    "speculative decoding with a number of tokens by the batch, or parallel drafting",
    "speculative decoding with LoRA, sleep mode or watermarks, on hybrid or multimodal models",
    "LoRA on other models than dense ones, by the number of adapters, or fully sharded",
    "LoRA with sleep mode",
    "sleep mode by another backend than cuMem",
    "sleep mode that moves graphs to the host or suspends NCCL",
    "KV connectors other than OffloadingConnector and SimpleCPUOffloadConnector",
    "KV offloading to other tiers than host memory",
    "KV offloading with speculative decoding or sleep mode, on hybrid or multimodal models",
    "encoder-cache connectors",
    "HiSparse",
    "weight offloading",
    "fast prefill",
    "--jit-monitor-mode error",
    "in-process engines",
    "vllm snapshot",
    "breakable CUDA graphs with LoRA or speculative decoding",
    "pipeline parallelism with LoRA, speculative decoding, sleep mode, breakable CUDA graphs or "
    "sequence parallelism, on hybrid or multimodal models",
    "models with CUDA graphs inside",
    "other compilation modes than 3 without breakable graphs",
)


def document() -> dict[str, Any]:
    """The table, as JSON has it."""
    return {
        "versions": [_row(version) for version in KNOWN],
        "otherVersions": "nobody has looked at their hooks",
        "always": list(ALWAYS_STOCK),
    }


def _row(version: str) -> dict[str, Any]:
    tried = TRIED.get(version)
    if tried is None:
        why = "its hooks are known, but nothing was tried on a GPU"
        return _as_row(version, [], (), [("everything", why)])
    wrong = WRONG.get(KNOWN[version], ())
    left = [(what, "captures go wrong there") for what in wrong]
    kinds = {
        DRAFTS: DRAFTERS.values(),
        KV_OFFLOADING: OFFLOADERS.values(),
        HYBRID: STATE_MODELS,
        MULTIMODAL: [QWEN_VL],
    }
    of_wrong = [name for what in wrong for name in kinds.get(what, ())]
    known = (*wrong, *of_wrong, *tried.traits, *tried.combined())
    new = [what for what in FAMILIES if what not in known]
    if not any("quantisation" in trait for trait in tried.traits):
        new.append("quantisation")
    left += [(what, "not shown to be right on a GPU") for what in new]
    # One by one, and not beside one another: ALWAYS_STOCK's like says no more than that.
    alone = [f"{what} (dense models, {_gpus(what)})" for what in sorted(tried.alone)]
    lazily = ["dense models", *sorted(tried.traits - tried.alone), *alone, *_combined(tried)]
    return _as_row(version, lazily, tried.gpus, left)


def _combined(tried: Tried) -> list[str]:
    """What was tried beside traits that are free to combine, with these."""
    combined = tried.combined()
    return [
        f"{', '.join(sorted(seen & combined))} (one GPU, with {_listed(seen - combined)})"
        for seen in tried.together
    ]


def _listed(names: frozenset[str]) -> str:
    *most, last = sorted(names)
    return f"{', '.join(most)} and {last}" if most else last


def _gpus(what: str) -> str:
    """On how many something was tried by itself."""
    return "a GPU for each stage" if what == PIPELINE else "one GPU"


def _as_row(
    version: str, lazily: list[str], gpus: tuple[str, ...], left: list[tuple[str, str]]
) -> dict[str, Any]:
    reasons = dict.fromkeys(why for _, why in left)
    return {
        "vllm": version,
        "lazily": lazily,
        "gpus": list(gpus),
        "asStock": [
            {"what": [what for what, because in left if because == why], "why": why}
            for why in reasons
        ],
    }


if __name__ == "__main__":
    print(json.dumps(document()))
