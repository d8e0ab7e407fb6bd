"""Speculative decoding: the drafter's managers, what it captures and how it dispatches."""

from __future__ import annotations

from ..hooks import Bases, Body, Called, Hook
from . import paths
from .paths import names

_SPEC = "v1/worker/gpu/spec_decode"
_DP = "v1/worker/gpu/dp_utils.py"


def drafts(folder: str, drafter: str, draft_model: tuple[str, str]) -> tuple[Hook, ...]:
    """What is expected where the base class of EAGLE and MTP is in ``folder``.

    Args:
        folder: of vLLM's package of speculators.
        drafter: that class.
        draft_model: folder and class of draft models.
    """
    file = f"{_SPEC}/{folder}/speculator.py"
    return (
        Bases(
            f"{_SPEC}/eagle/speculator.py",
            "EagleSpeculator",
            "what EAGLE captures",
            (drafter,),
        ),
        Bases(f"{_SPEC}/mtp/speculator.py", "MTPSpeculator", "what MTP captures", (drafter,)),
        Bases(file, drafter, "its buffers and its attention", ("DraftModelSpeculator",)),
        Bases(
            f"{_SPEC}/{folder}/cudagraph_utils.py",
            "SpeculatorCudaGraphManager",
            "our capture and dispatch reach a drafter's graphs",
            ("CudaGraphManager",),
        ),
        Body(
            file,
            f"{drafter}.init_cudagraph_manager",
            "one manager with the target's mode and query length, one for single tokens",
            order=(
                "self.prefill_cudagraph_manager = SpeculatorCudaGraphManager(self.vllm_config, "
                "self.device, cudagraph_mode, self.num_speculative_steps + 1)",
                "self.decode_cudagraph_manager = SpeculatorCudaGraphManager(self.vllm_config, "
                "self.device, cudagraph_mode, decode_query_len=1)",
            ),
            times=(("SpeculatorCudaGraphManager(...)", 2),),
        ),
        Called(file, f"{drafter}.capture", "captures again between steps", "self"),
        Body(
            file,
            f"{drafter}.capture",
            "points dummy rows at request 0 before it asks the managers, and at nobody after",
            order=(
                "self.last_token_indices.zero_()",
                "self.idx_mapping.zero_()",
                "self.on_prefill_begin(self.max_num_reqs)",
                "self.prefill_cudagraph_manager.capture(...)",
                "self.on_prefill_end(self.max_num_reqs)",
                "self.on_multi_step_decode_begin(self.max_num_reqs)",
                "self.decode_cudagraph_manager.capture(...)",
                "self.on_multi_step_decode_end(self.max_num_reqs)",
            ),
            times=(("self.idx_mapping.zero_()", 1),),
        ),
        Body(
            file,
            f"{drafter}.propose",
            "the first run has the target's padded batch and metadata, the others their own",
            order=(
                "num_tokens_padded = input_batch.num_tokens_after_padding",
                "dispatch_cg_and_sync_dp(self.prefill_cudagraph_manager, num_reqs, "
                "num_tokens_padded, uniform_token_count, ...)",
                "self.prefill_cudagraph_manager.run_fullgraph(prefill_batch_desc)",
                "self._prefill(num_reqs, prefill_batch_desc.num_tokens, attn_metadata, "
                "slot_mappings, ...)",
                "dispatch_cg_and_sync_dp(self.decode_cudagraph_manager, num_reqs, "
                "num_batch_tokens, ...)",
            ),
            times=(("dispatch_cg_and_sync_dp(...)", 2),),
        ),
        Body(
            _DP,
            "dispatch_cg_and_sync_dp",
            "one rank of data parallelism asks a manager once",
            order=("cudagraph_manager.dispatch(...)", "return (batch_desc, None)"),
        ),
        *names(
            f"{_SPEC}/speculator.py",
            "DraftModelSpeculator",
            "idx_mapping draft_tokens input_buffers num_speculative_steps draft_attn_layer_names "
            "draft_logits",
            "what a check fills and reads, and what no capture may write",
        ),
        *names(
            file,
            drafter,
            "hidden_states current_draft_step last_token_indices sample_src_positions",
            "what a check fills and reads",
        ),
        Body(
            paths.MODEL_RUNNER,
            "GPUModelRunner.capture_model",
            "the drafter captures after its target, in its lane of workspaces",
            order=(
                "self.cudagraph_manager.capture(...)",
                "use_workspace_lane(self._draft_workspace_lane)",
                "self.speculator.capture()",
            ),
            times=(("self.speculator.capture()", 1),),
        ),
        *names("v1/worker/workspace.py", "", "use_workspace_lane", "as above"),
        Body(
            "v1/worker/gpu/block_table.py",
            "_compute_slot_mappings_kernel",
            "a row that is nobody's has no slot",
            order=("is_real_req = req_state_idx >= 0",),
        ),
        Body(
            "v1/worker/gpu/sample/gumbel.py",
            "gumbel_block_argmax",
            "a row that is nobody's keeps no probabilities of a draft",
            order=(
                "is_valid_req = req_state_idx >= 0",
                "tl.store(_, _, mask=mask & is_valid_req)",
            ),
            times=(("tl.store(...)", 1),),
        ),
        Body(
            f"{_SPEC}/{draft_model[0]}/speculator.py",
            f"{draft_model[1]}.capture",
            "drafts without graphs",
            never=("_.capture(...)",),
        ),
        *names(
            "config/speculative.py",
            "SpeculativeConfig",
            "method num_speculative_tokens num_speculative_tokens_per_batch_size "
            "parallel_drafting draft_tensor_parallel_size use_multi_module_mtp use_gemma4_mtp "
            "draft_model_config attention_backend kv_cache_dtype moe_backend draft_sample_method",
            "the allow-list",
        ),
    )


# Of 0.31, and from 0.32 on.
AUTOREGRESSIVE = drafts(
    "autoregressive", "AutoRegressiveSpeculator", ("draft_model", "PlainDraftModelSpeculator")
)
TARGET_DEPENDENT = (
    *drafts(
        "target_dependent_ar",
        "TargetDependentARSpeculator",
        ("standalone_ar", "StandaloneARSpeculator"),
    ),
    Body(
        f"{_SPEC}/ngram/speculator.py",
        "NgramGPUSpeculator.capture",
        "drafts without graphs",
        never=("_.capture(...)",),
    ),
)
