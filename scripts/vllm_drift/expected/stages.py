"""Stages of a pipeline, from 0.31 on: what one takes in, what it hands on, and in which order."""

from __future__ import annotations

from ..hooks import Body, Called, Hook
from . import paths
from .paths import names

STAGES: tuple[Hook, ...] = (
    *names(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager",
        "is_last_pp_rank intermediate_tensors",
        "what a stage's FULL graph writes",
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager.capture",
        "a stage answers into buffers that its first run sizes, and reads from the runner's",
        order=(
            "self.is_last_pp_rank",
            "self.intermediate_tensors = IntermediateTensors.empty_like(intermediate_tensors)",
            "self.intermediate_tensors[k][:num_tokens] = v",
            "self.is_first_pp_rank",
            "model_inputs['intermediate_tensors'] = intermediate_tensors[:num_tokens]",
        ),
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager.run_fullgraph",
        "those buffers are what it hands on",
        order=("self.is_last_pp_rank", "self.intermediate_tensors[:desc.num_tokens]"),
    ),
    *names(
        paths.MODEL_RUNNER,
        "GPUModelRunner",
        "is_first_pp_rank intermediate_tensors",
        "what a stage reads",
    ),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner.execute_model",
        "a step copies what it is handed into the buffers that graphs read, by its padded size",
        order=(
            "dispatch_cg_and_sync_dp(...)",
            "n = input_batch.num_tokens_after_padding",
            "v[:n].copy_(intermediate_tensors.tensors[k][:n])",
            "self.cudagraph_manager.run_fullgraph(batch_desc)",
        ),
    ),
    Body(
        paths.WORKER,
        "Worker.execute_model",
        "stages talk outside the model's run, and the next step waits for what is being sent",
        order=(
            "self._pp_send_work",
            "handle.wait()",
            "get_pp_group().irecv_tensor_dict(...)",
            "self.model_runner.execute_model(scheduler_output, intermediate_tensors)",
            "get_pp_group().isend_tensor_dict(...)",
        ),
    ),
    Called("sequence.py", "IntermediateTensors.__init__", "buffers for the largest graph", "_, _"),
    *names("sequence.py", "IntermediateTensors", "tensors items", "what is handed on"),
    Called(paths.PARALLEL_STATE, "get_world_group", "all stages agree before a capture", ""),
    Body(
        paths.MULTIPROC_EXECUTOR,
        "MultiprocExecutor.collective_rpc",
        "each rank gets every call, in one order, and without a rank's number all answer",
        order=(
            "self.rpc_broadcast_mq.enqueue((send_method, args, kwargs, output_rank))",
            "self.response_mqs",
            "if output_rank is not None:\n    response_mqs = (response_mqs[output_rank],)",
        ),
    ),
)
