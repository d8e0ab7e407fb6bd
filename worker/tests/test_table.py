"""The table that people read is what the allow-list decides."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazygraph_vllm.vllm.allowed import (
    BREAKABLE,
    DRAFTS,
    HYBRID,
    KV_OFFLOADING,
    LORA,
    MOE,
    MULTIMODAL,
    PIPELINE,
    SLEEP,
    TRIED,
    config_reason,
)
from lazygraph_vllm.vllm.choose import KNOWN
from lazygraph_vllm.vllm.options import ATTENTION_FREE
from lazygraph_vllm.vllm.table import ALWAYS_STOCK, WRONG, document
from test_support import offloading, supported

COPY = Path(__file__).parents[2] / "docs" / "vllm-versions.json"

# One configuration for each word of ``ALWAYS_STOCK``: what is set, where, to which value.
EXAMPLES: dict[str, tuple[str, Any]] = {
    "enforce_eager": ("model_config.enforce_eager", True),
    "the V1 model runner": ("use_v2_model_runner", False),
    "pooling models": ("model_config.runner_type", "pooling"),
    "encoder-decoder models": ("model_config.is_encoder_decoder", True),
    "data parallelism": ("parallel_config.data_parallel_size", 2),
    "context parallelism": ("parallel_config.decode_context_parallel_size", 2),
    "dual batch overlap": ("parallel_config.enable_dbo", True),
    "microbatches": ("parallel_config.ubatch_size", 2),
    "elastic expert parallelism": ("parallel_config.enable_elastic_ep", True),
    "balancing of experts": ("parallel_config.enable_eplb", True),
    "Ray": ("parallel_config.distributed_executor_backend", "ray"),
    "several nodes": ("parallel_config.nnodes", 2),
    "speculative decoding by other methods than n-gram, EAGLE, EAGLE3, MTP with one module and "
    "draft models": ("speculative_config", SimpleNamespace(method="suffix")),
    "adaptive verification": (
        "speculative_config",
        SimpleNamespace(method="ngram", enable_adaptive_verification=True),
    ),
    "speculative decoding with a number of tokens by the batch, or parallel drafting": (
        "speculative_config",
        SimpleNamespace(method="ngram", num_speculative_tokens_per_batch_size=[(1, 8, 3)]),
    ),
    "speculative decoding with LoRA, sleep mode or watermarks, on hybrid or multimodal models": (
        "speculative_config",
        SimpleNamespace(method="ngram"),
    ),
    "LoRA on other models than dense ones, by the number of adapters, or fully sharded": (
        "lora_config",
        SimpleNamespace(specialize_active_lora=True),
    ),
    "LoRA with sleep mode": ("lora_config", SimpleNamespace()),
    "sleep mode by another backend than cuMem": ("model_config.sleep_mode_backend", "criu"),
    "sleep mode that moves graphs to the host or suspends NCCL": (
        "model_config.sleep_mode_offload_cudagraph",
        True,
    ),
    "KV connectors other than OffloadingConnector and SimpleCPUOffloadConnector": (
        "kv_transfer_config",
        offloading("NixlConnector"),
    ),
    "KV offloading to other tiers than host memory": (
        "kv_transfer_config",
        offloading(kv_connector_extra_config={"spec_name": "TieringOffloadingSpec"}),
    ),
    "KV offloading with speculative decoding or sleep mode, on hybrid or multimodal models": (
        "kv_transfer_config",
        offloading(),
    ),
    "encoder-cache connectors": ("ec_transfer_config", object()),
    "HiSparse": ("attention_config.hisparse_config", object()),
    "weight offloading": ("offload_config.uva.cpu_offload_gb", 1),
    "fast prefill": ("cache_config.kv_sharing_fast_prefill", True),
    "--jit-monitor-mode error": ("observability_config.jit_monitor_mode", "error"),
    "breakable CUDA graphs with LoRA or speculative decoding": ("lora_config", SimpleNamespace()),
    "pipeline parallelism with LoRA, speculative decoding, sleep mode, breakable CUDA graphs or "
    "sequence parallelism, on hybrid or multimodal models": (
        "compilation_config.pass_config",
        SimpleNamespace(enable_sp=True),
    ),
    "other compilation modes than 3 without breakable graphs": ("compilation_config.mode", 0),
}
# What the configuration doesn't tell: tests with vLLM's own classes hold it to that.
ON_A_RANK = ("models with CUDA graphs inside", "vllm snapshot")
# What only goes wrong together with it.
WITH = {what: ("model_config.enable_sleep_mode", True) for what in EXAMPLES if "sleep" in what}
WITH |= {
    what: ("parallel_config.pipeline_parallel_size", 2)
    for what in EXAMPLES
    if what.startswith(PIPELINE)
}
TRAITS: dict[str, tuple[str, Any]] = {
    PIPELINE: ("parallel_config.pipeline_parallel_size", 2),
    MOE: ("model_config.is_moe", True),
    HYBRID: ("model_config.is_hybrid", True),
    ATTENTION_FREE: ("model_config.is_attention_free", True),
    MULTIMODAL: ("model_config.is_multimodal_model", True),
    LORA: ("lora_config", SimpleNamespace()),
    SLEEP: ("model_config.enable_sleep_mode", True),
    DRAFTS: ("speculative_config", SimpleNamespace(method="ngram")),
    BREAKABLE: ("compilation_config.mode", 0),
    KV_OFFLOADING: ("kv_transfer_config", offloading()),
}


@pytest.fixture(autouse=True)
def no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell that runs these tests has on."""
    monkeypatch.delenv("VLLM_USE_BREAKABLE_CUDAGRAPH", raising=False)


def put(config: Any, path: str, value: Any) -> None:
    *owners, name = path.split(".")
    owner = config
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, value)


def one_rank() -> Any:
    config = supported()
    config.parallel_config.tensor_parallel_size = 1
    return config


def test_the_copy_that_people_read_is_up_to_date() -> None:
    """`python -m lazygraph_vllm.vllm.table > ../docs/vllm-versions.json` in worker/ makes it."""
    assert json.loads(COPY.read_text()) == document()


def test_every_known_version_has_a_row_and_what_was_tried_is_in_it() -> None:
    rows = {row["vllm"]: row for row in document()["versions"]}
    assert list(rows) == list(KNOWN)
    for version, row in rows.items():
        tried = TRIED.get(version)
        told = {re.split(r" \((?:dense models|one GPU), ", what)[0] for what in row["lazily"][1:]}
        assert told == (tried.traits | tried.combined() if tried else set())
        alone = {what for what in row["lazily"] if " (dense models, " in what}
        assert len(alone) == (len(tried.alone) if tried else 0)
        assert bool(row["lazily"]) == bool(row["gpus"]) == (tried is not None)
        left = {what for group in row["asStock"] for what in group["what"]}
        assert left and not left & set(row["lazily"])


@pytest.mark.parametrize("version", KNOWN)
@pytest.mark.parametrize("what", [what for what in ALWAYS_STOCK if what not in ON_A_RANK])
def test_what_is_always_stock_is_refused_on_every_version(
    what: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_rank()
    if what == "in-process engines":
        monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    else:
        if what.startswith(BREAKABLE):
            monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
        for path, value in (EXAMPLES[what], WITH.get(what, EXAMPLES[what])):
            put(config, path, value)
    assert config_reason(config, version, allow_untested=True) is not None


@pytest.mark.parametrize("version", KNOWN)
@pytest.mark.parametrize("trait", TRAITS)
def test_what_goes_wrong_is_refused_and_nothing_else_is(
    trait: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_rank()
    if trait == BREAKABLE:
        monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    put(config, *TRAITS[trait])
    refused = config_reason(config, version, allow_untested=True) is not None
    assert refused == (trait in WRONG.get(KNOWN[version], ()))


def test_the_example_alone_is_allowed() -> None:
    """Positive control: what is refused above is refused for its own sake."""
    assert all(config_reason(one_rank(), v, allow_untested=True) is None for v in KNOWN)
