"""vLLM's own EAGLE speculator beside its target, on the CPU: real managers, capture and propose.

What is in the place of something: the drafter's model, attention and its KV cache (who writes which
slot is written down), and what Triton would run: the same in Python. A replay runs again what was
recorded, with the buffers as they are then, so a graph of another shape shows in the drafts.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from builders import HIDDEN, Model, Wrapper, bring_up_rank, make_config, make_runner

VOCABULARY = 32
BLOCK = 64  # slots of one request in the stand-in of a KV cache
LAYER = "draft.layers.0"
PAD = -1


def make_draft_config(tokens: int, method: str = "eagle", requests: int = 8, **options: Any) -> Any:
    config = make_config(max_num_seqs=requests, **options)
    config.num_speculative_tokens = tokens
    model = config.model_config
    model.max_model_len = 1 << 10
    model.head_dtype = model.dtype
    draft = SimpleNamespace(get_vocab_size=lambda: VOCABULARY, get_hidden_size=lambda: HIDDEN)
    config.speculative_config = SimpleNamespace(
        method=method,
        num_speculative_tokens=tokens,
        draft_model_config=draft,
        draft_sample_method="greedy",
        enable_adaptive_verification=False,
        num_speculative_tokens_per_batch_size=None,
        parallel_drafting=False,
        draft_tensor_parallel_size=None,
        uses_dynamic_speculative_decoding=lambda: False,
        use_multi_module_mtp=lambda: False,
        use_gemma4_mtp=lambda: False,
    )
    config.watermark_config = None
    return config


class DraftModel(Model):
    """One layer: adds up what it reads; its attention writes a slot for each row that has one."""

    def __init__(self, config: Any, gpu: Any, piecewise: bool) -> None:
        super().__init__(config, piecewise)
        self.gpu = gpu
        self.written: set[int] = set()
        self.batches: list[tuple[int, Any]] = []
        self.skip_topk: list[bool] = []

    def __call__(  # type: ignore[override]
        self, input_ids: Any, positions: Any, hidden_states: Any, inputs_embeds: Any
    ) -> Any:
        from vllm.forward_context import get_forward_context

        assert inputs_embeds is None and len(input_ids) == len(positions) == len(hidden_states)
        context = get_forward_context()
        if self.gpu.capturing is None:
            self.batches.append((len(input_ids), context.attn_metadata))
            slots = (context.slot_mapping or {}).get(LAYER)
            if slots is not None:
                self.written.update(int(slot) for slot in slots.flatten() if int(slot) >= 0)
        x = hidden_states * 0.5 + input_ids.float()[:, None] + positions.float()[:, None] * 0.25
        for piece in self.pieces:
            x = piece(x)
        return x

    def compute_logits(self, hidden: Any) -> Any:
        import torch

        tokens = hidden.sum(dim=-1, keepdim=True).round().long() % VOCABULARY
        return torch.zeros(len(hidden), VOCABULARY).scatter_(1, tokens, 1.0)


class ModelWithLayers(Model):
    """A target that also gives the hidden states of some of its layers, as EAGLE3 reads them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = super().__call__(*args, **kwargs)
        return x, [x * 2, x * 3]


def module() -> Any:
    """Where vLLM's class of EAGLE and MTP drafters is."""
    package = "vllm.v1.worker.gpu.spec_decode"
    try:
        return importlib.import_module(f"{package}.target_dependent_ar.speculator")
    except ModuleNotFoundError:  # 0.31
        return importlib.import_module(f"{package}.autoregressive.speculator")


def install_kernels(patch: pytest.MonkeyPatch) -> None:
    """What Triton would run, in Python, by the parameters that vLLM passes."""
    from vllm.v1.worker.gpu.spec_decode import speculator as base

    def prepare_prefill_inputs(
        last_token_indices: Any, current_draft_step: Any, buffers: Any, batch: Any,
        num_sampled: Any, num_rejected: Any, last_sampled: Any, next_prefill: Any, limit: int,
    ) -> Any:  # fmt: skip
        starts = batch.query_start_loc
        for row in range(batch.num_reqs):
            begin, end = int(starts[row]), int(starts[row + 1]) - int(num_rejected[row])
            state = int(batch.idx_mapping[row])
            token = last_sampled[state] if int(num_sampled[row]) else next_prefill[state]
            buffers.input_ids[begin : end - 1] = batch.input_ids[begin + 1 : end]
            buffers.input_ids[end - 1] = token
            buffers.positions[begin:end] = batch.positions[begin:end]
            last_token_indices[row] = end - 1
        last_token_indices[batch.num_reqs : limit] = 0
        buffers.query_start_loc[: batch.num_reqs + 1] = starts[: batch.num_reqs + 1]
        buffers.query_start_loc[batch.num_reqs + 1 :] = starts[batch.num_reqs]
        current_draft_step.zero_()
        return last_token_indices

    def prepare_decode_inputs(
        drafts: Any, seq_lens: Any, rejected: Any, buffers: Any, sources: Any, max_len: int,
        limit: int, advance_draft_positions: bool = True,
    ) -> None:  # fmt: skip
        count = len(drafts)
        buffers.input_ids[:count] = drafts.int()
        sources[:count] += 1
        buffers.positions[:count] += int(advance_draft_positions)
        buffers.query_start_loc[: count + 1] = seq_lens.new_tensor(range(count + 1))
        buffers.query_start_loc[count + 1 :] = count
        buffers.seq_lens[:count] = seq_lens[:count] - rejected[:count] + 1
        buffers.seq_lens[count:] = 0

    def update_draft_inputs(
        drafts: Any, step: Any, hidden: Any, output: Any, next_hidden: Any, buffers: Any,
        sources: Any, num_reqs: int, max_len: int, steps: int,
        advance_draft_positions: bool = True,
    ) -> None:  # fmt: skip
        output[:num_reqs, int(step)] = drafts[:num_reqs]
        if int(step) >= steps - 1:
            return
        sources[:num_reqs] += 1
        buffers.input_ids[:num_reqs] = drafts[:num_reqs].int()
        next_hidden[:num_reqs] = hidden[:num_reqs]
        if advance_draft_positions:
            buffers.positions[:num_reqs] += 1
            buffers.seq_lens[:num_reqs] += 1

    def gumbel_sample(
        logits: Any, idx_mapping: Any, *_: Any, logits_cache: Any = None,
        logits_cache_col: Any = None, **__: Any,
    ) -> Any:  # fmt: skip
        for row, state in enumerate(idx_mapping.tolist()):
            if logits_cache is not None and state >= 0:
                logits_cache[state, int(logits_cache_col)] = logits[row]
        return logits.argmax(dim=-1)

    patch.setattr(module(), "prepare_prefill_inputs", prepare_prefill_inputs)
    patch.setattr(module(), "prepare_decode_inputs", prepare_decode_inputs)
    patch.setattr(module(), "update_draft_inputs", update_draft_inputs)
    patch.setattr(base, "gumbel_sample", gumbel_sample)


class BlockTables:
    """Each request's slots are its own, by its place among the requests' states."""

    cp_size = 1

    def __init__(self, requests: int, tokens: int) -> None:
        import torch

        self.input_block_tables = [torch.zeros(requests, 2, dtype=torch.int32)]
        self.slot_mappings = torch.full((1, tokens), PAD, dtype=torch.int64)

    def get_dummy_block_tables(self, count: int) -> Any:
        return tuple(table[:count].zero_() for table in self.input_block_tables)

    def get_dummy_slot_mappings(self, count: int) -> Any:
        return self.slot_mappings.fill_(PAD)[:, :count]

    def compute_slot_mappings(self, idx_mapping: Any, starts: Any, positions: Any, n: int) -> Any:
        self.slot_mappings.fill_(PAD)
        for row, state in enumerate(idx_mapping.tolist()):
            for at in range(int(starts[row]), int(starts[row + 1])):
                slot = state * BLOCK + int(positions[at]) % BLOCK
                self.slot_mappings[0, at] = slot if state >= 0 else PAD
        return self.slot_mappings[:, :n]


def make_speculator(runner: Any, gpu: Any, kind: str = "EagleSpeculator") -> Any:
    """vLLM's class without its constructor, which loads a model."""
    import numpy as np
    import torch
    from vllm.v1.worker.gpu.input_batch import InputBuffers

    config, device = runner.vllm_config, runner.device
    name = "eagle" if kind == "EagleSpeculator" else "mtp"
    package = importlib.import_module(f"vllm.v1.worker.gpu.spec_decode.{name}.speculator")
    cls = getattr(package, kind)
    speculator = cls.__new__(cls)
    requests = config.scheduler_config.max_num_seqs
    tokens = 2 * config.compilation_config.max_cudagraph_capture_size + 8
    steps = config.speculative_config.num_speculative_tokens
    mode = config.compilation_config.cudagraph_mode
    for attribute, value in {
        "vllm_config": config,
        "device": device,
        "speculative_config": config.speculative_config,
        "method": config.speculative_config.method,
        "num_speculative_steps": steps,
        "draft_model_config": config.speculative_config.draft_model_config,
        "max_num_reqs": requests,
        "max_num_tokens": tokens,
        "draft_max_seq_len": 64,
        "hidden_size": HIDDEN,
        "vocab_size": VOCABULARY,
        "dtype": torch.float32,
        "use_local_argmax_reduction": False,
        "use_fp64_gumbel": False,
        "dp_size": 1,
        "dp_rank": 0,
        "dcp_size": 1,
        "eplb_state": None,
        "pcp_manager": None,
        "acceptance_estimator": None,
        "draft_watermarker": None,
        "supports_mm_inputs": False,
        "supports_decode_metadata_update": True,
        "use_fused_multi_step_decode": True,  # its name in 0.31
        "share_mtp_topk_indices": False,
        "inputs_embeds": None,
        "input_buffers": InputBuffers(requests, tokens, device),
        "idx_mapping": torch.zeros(requests, dtype=torch.int64),
        "temperature": torch.zeros(requests),
        "seeds": torch.zeros(requests, dtype=torch.int64),
        "draft_tokens": torch.zeros(requests, steps, dtype=torch.int64),
        "draft_logits": None,
        "arange_np": np.arange(requests + 1, dtype=np.int32),
        "draft_is_prefilling": torch.zeros(requests, dtype=torch.bool),
        "hidden_states": torch.zeros(tokens, HIDDEN),
        "current_draft_step": torch.tensor(0),
        "last_token_indices": torch.zeros(requests, dtype=torch.int64),
        "sample_src_positions": torch.zeros(requests, dtype=torch.int64),
        "prefill_cudagraph_manager": None,
        "decode_cudagraph_manager": None,
        "draft_attn_layer_names": {LAYER},
        "model": DraftModel(config, gpu, mode.has_piecewise_cudagraphs()),
        "model_state": runner.model_state,
        "attn_groups": [[]],
        "block_tables": BlockTables(requests, tokens),
        "kv_cache_config": SimpleNamespace(kv_cache_groups=[SimpleNamespace(layer_names=[LAYER])]),
        "target_input_buffers": runner.input_buffers,
        "target_attn_groups": [],
    }.items():
        setattr(speculator, attribute, value)
    if not hasattr(cls, "max_model_len"):  # 0.31
        speculator.max_model_len = config.model_config.max_model_len
    speculator.init_cudagraph_manager(mode)
    return speculator


def replays(patch: pytest.MonkeyPatch) -> None:
    """Let a graph's replay run again what was recorded, a piece of one with what it is given."""
    import torch
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.config.compilation import CUDAGraphMode
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    capture, run = CudaGraphManager.capture, torch.cuda.CUDAGraph

    def recording(self: Any, create_forward_fn: Any, progress_bar_desc: str = "") -> None:
        recorded: dict[Any, Any] = {}

        def factory(desc: Any, warmup: bool) -> Any:
            forward = create_forward_fn(desc, warmup)
            if not warmup:
                recorded[desc] = forward
            return forward

        capture(self, factory, progress_bar_desc)
        for desc, forward in recorded.items():
            if desc in self.graphs:
                self.graphs[desc].forward = forward

    replay = run.replay

    def replayed(self: Any) -> None:
        replay(self)
        if hasattr(self, "forward"):
            self.forward(CUDAGraphMode.NONE)

    call = CUDAGraphWrapper.__call__

    def called(self: Any, *args: Any) -> Any:
        call(self, *args)  # a piece that is there is replayed, and gives what it gave when captured
        return self.runnable(*args)

    patch.setattr(CUDAGraphWrapper, "__call__", called)
    patch.setattr(CudaGraphManager, "capture", recording)
    patch.setattr(run, "replay", replayed)


def make_draft_runner(config: Any, gpu: Any, kind: str = "EagleSpeculator") -> Any:
    """A runner whose target has decode steps of several tokens, and its drafter."""
    import torch
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

    runner = make_runner(config)
    mode = config.compilation_config.cudagraph_mode
    runner.decode_query_len = 1 + config.num_speculative_tokens
    runner.cudagraph_manager = ModelCudaGraphManager(
        config, torch.device("cpu"), mode, runner.decode_query_len
    )
    runner._draft_workspace_lane = 0
    runner.speculator = make_speculator(runner, gpu, kind)
    return runner


def start_with_drafts(
    gpu: Any,
    tokens: int = 3,
    first: list[str] | None = None,
    tiers: tuple[tuple[str, ...], ...] = (),
    verify: bool = False,
    kind: str = "EagleSpeculator",
    guard_margin: int | None = None,
    aux: bool = False,
    **options: Any,
) -> Any:
    """One rank through start-up; the wrapper, as ``builders.start`` gives it."""
    wrapper = Wrapper(make_draft_runner(make_draft_config(tokens, **options), gpu, kind))
    if aux:
        runner = wrapper.worker.model_runner
        runner.use_aux_hidden_state_outputs = True
        runner.model.__class__ = ModelWithLayers
    bring_up_rank(wrapper, first, tiers, guard_margin, verify)
    return wrapper


class Served(SimpleNamespace):
    """What ran a step.

    Attributes:
        target: the descriptor that the target ran.
        prefill: that of the drafter's run over its batch.
        decode: that of its runs after it; ``None``: one token is drafted.
        drafts: the tokens that it drafted, by request.
    """

    def modes(self) -> tuple[str, ...]:
        ran = (self.target, self.prefill, self.decode)
        return tuple(each.cg_mode.name for each in ran if each is not None)


def _noting(asked: dict[str, Any], role: str, dispatch: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*args: Any, **kwargs: Any) -> Any:
        asked[role] = dispatch(*args, **kwargs)
        return asked[role]

    return noting


def draft_step(runner: Any, lengths: list[int], is_decode: bool = True) -> Served:
    """One step of these requests: the target's dispatch, then vLLM's own ``propose``."""
    import numpy as np
    import torch
    from vllm.v1.worker import utils
    from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp

    spec, count, total = runner.speculator, len(lengths), sum(lengths)
    uniform = utils.get_uniform_decode_token_count(count, total, max(lengths), is_decode)
    manager = runner.cudagraph_manager
    desc, _ = dispatch_cg_and_sync_dp(manager, count, total, uniform, dp_size=1, dp_rank=0)
    asked: dict[str, Any] = {}
    managers = {"prefill": spec.prefill_cudagraph_manager, "decode": spec.decode_cudagraph_manager}
    for role, each in managers.items():
        dispatch = type(each).dispatch

        each.dispatch = _noting(asked, role, functools.partial(dispatch, each))
    starts = torch.zeros(spec.max_num_reqs + 1, dtype=torch.int32)
    starts[1 : count + 1] = torch.tensor(lengths).cumsum(0)
    starts[count + 1 :] = total
    padded = max(total, desc.num_tokens)
    batch = SimpleNamespace(
        num_reqs=count,
        num_tokens=total,
        num_tokens_after_padding=padded,
        num_scheduled_tokens=np.array(lengths, dtype=np.int32),
        seq_lens_cpu_upper_bound=torch.full((spec.max_num_reqs,), 40, dtype=torch.int32),
        seq_lens=torch.full((spec.max_num_reqs,), 40, dtype=torch.int32),
        # Not in the order of their places, and not from the first on.
        idx_mapping=torch.arange(count, dtype=torch.int64).flip(0),
        query_start_loc=starts,
        input_ids=torch.arange(padded, dtype=torch.int32) * 7 % VOCABULARY,
        positions=torch.arange(padded, dtype=torch.int64) % 31,
        decode_graph_eligible=is_decode,
    )
    hidden = torch.arange(padded * HIDDEN).reshape(padded, HIDDEN).float() % 5
    hidden[total:] = 99.0  # what padding holds must be in no draft
    last = torch.arange(spec.max_num_reqs) * 3 % VOCABULARY
    metadata = SimpleNamespace(tokens=desc.num_tokens, requests=desc.num_reqs or count)
    try:
        with torch.inference_mode():
            drafts = spec.propose(
                batch, metadata, {}, hidden, None,
                torch.ones(count, dtype=torch.int32), torch.zeros(count, dtype=torch.int32),
                last, last, torch.zeros(spec.max_num_reqs), spec.seeds,
            )  # fmt: skip
    finally:
        for each in managers.values():
            del each.dispatch
    return Served(
        target=desc,
        prefill=asked["prefill"],
        decode=asked.get("decode"),
        drafts=drafts[:count].clone(),
    )


def mismatch(served: Served) -> str | None:
    """Why the drafter's runs don't fit the target's of the same step; ``None``: they do."""
    target, prefill = served.target, served.prefill
    if prefill.num_tokens != target.num_tokens:
        return f"{prefill.num_tokens} tokens with metadata of {target.num_tokens}"
    if prefill.cg_mode.name not in ("NONE", target.cg_mode.name):
        return f"{prefill.cg_mode.name} after {target.cg_mode.name}"
    if prefill.cg_mode.name == "FULL" and prefill != target:
        return f"{prefill} after {target}"
    return None
