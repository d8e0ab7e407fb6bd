"""Attributes of vLLM's configuration that the allow-list, the plan and the forecast read."""

from __future__ import annotations

from ..hooks import Body, Hook
from . import paths
from .paths import names

CONFIGURATION: tuple[Hook, ...] = (
    *names(
        "config/vllm.py",
        "VllmConfig",
        "model_config cache_config parallel_config scheduler_config compilation_config "
        "use_v2_model_runner lora_config speculative_config kv_transfer_config ec_transfer_config "
        "offload_config attention_config kernel_config quant_config additional_config mamba_config "
        "observability_config",
        "the allow-list",
    ),
    *names(
        "config/model.py",
        "ModelConfig",
        "runner_type enforce_eager is_moe is_hybrid is_encoder_decoder is_multimodal_model "
        "is_attention_free is_diffusion enable_prompt_embeds is_mm_prefix_lm architectures "
        "enable_sleep_mode served_model_name model dtype hf_text_config multimodal_config "
        "mm_ipc_gpu_memory_gb get_num_layers get_hidden_size get_vocab_size get_head_size "
        "get_num_kv_heads get_num_attention_heads using_transformers_backend",
        "the allow-list and the forecast",
    ),
    *names(
        "config/parallel.py",
        "ParallelConfig",
        "data_parallel_size data_parallel_index pipeline_parallel_size tensor_parallel_size "
        "prefill_context_parallel_size decode_context_parallel_size enable_dbo ubatch_size "
        "use_ubatching enable_elastic_ep distributed_executor_backend nnodes",
        "the allow-list",
    ),
    *names(
        "config/cache.py",
        "CacheConfig",
        "kv_offloading_size kv_cache_memory_bytes num_gpu_blocks block_size kv_cache_size_tokens "
        "kv_sharing_fast_prefill cache_dtype mamba_cache_dtype mamba_ssm_cache_dtype "
        "mamba_cache_mode kv_cache_dtype_skip_layers",
        "the allow-list and the KV cache's size",
    ),
    *names(
        paths.COMPILATION,
        "CompilationConfig",
        "mode cudagraph_mode cudagraph_capture_sizes static_forward_context cudagraph_mm_encoder "
        "use_inductor_graph_partition compile_sizes compile_ranges_endpoints",
        "the allow-list and the plan",
    ),
    *names(
        paths.COMPILATION,
        "CUDAGraphMode",
        "NONE PIECEWISE FULL FULL_DECODE_ONLY FULL_AND_PIECEWISE",
        "kinds of graphs",
    ),
    *names(
        "config/observability.py",
        "ObservabilityConfig",
        "jit_monitor_mode",
        "the allow-list",
    ),
    *names(
        "config/scheduler.py",
        "SchedulerConfig",
        "max_num_seqs max_num_batched_tokens",
        "the inventory",
    ),
    *names("config/offload.py", "OffloadConfig", "uva prefetch", "the allow-list"),
    *names("config/offload.py", "UVAOffloadConfig", "cpu_offload_gb", "the allow-list"),
    *names("config/offload.py", "PrefetchOffloadConfig", "offload_group_size", "the allow-list"),
    *names(
        "config/attention.py",
        "AttentionConfig",
        "flash_attn_max_num_splits_for_cuda_graph",
        "the forecast",
    ),
    *names(
        "config/attention.py",
        "AttentionConfig",
        "backend backend_per_kind flash_attn_version",
        "the allow-list",
    ),
    *names(
        "model_executor/layers/attention/attention.py",
        "Attention",
        "get_attn_backend impl",
        "attention that vLLM chose by itself",
    ),
    *names(paths.FLASH_ATTENTION, "FlashAttentionImpl", "alibi_slopes", "ALiBi is stock"),
    Body(
        paths.FLASH_ATTENTION,
        "FlashAttentionBackend.get_name",
        "attention that was tried",
        order=('return "FLASH_ATTN"',),
    ),
)

_KIMI = "models/kimi_k3/nvidia/"
# Shown on a GPU, of this version alone.
KIMI_LINEAR: tuple[Hook, ...] = (
    *names(
        f"{_KIMI}model.py",
        "KimiLinearForCausalLM",
        "specialized_decode_config get_model_state_cls",
        "its state is that of hybrids",
    ),
    Body(
        f"{_KIMI}kda_metadata.py",
        "KimiK3KDAAttentionBackend.get_name",
        "attention that was tried",
        order=('return "KIMI_K3_KDA"',),
    ),
)
