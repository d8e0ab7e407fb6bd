"""vLLM 0.31 to 0.33: a warm-up of its own, a profile by capturing, a stream made inside."""

from __future__ import annotations

from ..hooks import Body, Called, Fields, Hook, Property, Replaced
from . import paths
from .common import COMMON
from .paths import names
from .timeline import SERVER

_DISPATCH = (
    "num_reqs, num_tokens, uniform_token_count, num_active_loras, max_query_len, num_ubatches"
)

HOOKS: tuple[Hook, ...] = (
    *COMMON,
    *SERVER,
    Body(
        paths.EXECUTOR,
        "Executor.initialize_from_config",
        "the warm-up is no part of it",
        order=('self.collective_rpc("initialize_from_config", args=_)',),
        never=('self.collective_rpc("compile_or_warm_up_model")',),
    ),
    Replaced(
        paths.EXECUTOR,
        "Executor.compile_or_warm_up_model",
        "we stand between the KV cache and the capture",
        "self",
    ),
    Body(
        paths.EXECUTOR,
        "Executor.compile_or_warm_up_model",
        "the ranks capture in it",
        order=('self.collective_rpc("compile_or_warm_up_model")',),
    ),
    Body(
        paths.CORE,
        "EngineCore._initialize_kv_caches",
        "sizing, KV cache and warm-up in this order, each once",
        order=(
            "self.model_executor.determine_available_memory()",
            "self.model_executor.initialize_from_config(_)",
            "self.model_executor.compile_or_warm_up_model()",
        ),
        times=(("self.model_executor.compile_or_warm_up_model()", 1),),
    ),
    Property(paths.EXECUTOR, "Executor.is_sleeping", "asleep is who has a tag that sleeps"),
    Replaced(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.dispatch",
        "every step's graph",
        "self, num_reqs, num_tokens, uniform_token_count, num_active_loras, "
        "max_query_len=None, num_ubatches=1",
    ),
    Called(
        paths.CUDAGRAPH_UTILS,
        "_is_compatible",
        "vLLM's own rule which graph can serve a step",
        "_, " + ", ".join(f"{name}=_" for name in _DISPATCH.split(", ")),
    ),
    Fields(
        paths.CUDAGRAPH_UTILS,
        "BatchExecutionDescriptor",
        "a graph's identity",
        (
            "cg_mode",
            "num_tokens",
            "num_reqs",
            "uniform_token_count=None",
            "max_query_len=None",
            "num_active_loras=0",
            "num_ubatches=1",
        ),
    ),
    Called(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager.__init__",
        "says before the KV cache is sized which graphs there will be",
        "self, _, _, _, _, lora_capture_cases=_",
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.capture",
        "FULL graphs are captured on the stream of the context around",
        order=("torch.cuda.graph(graph, _, stream=self._capture_stream(desc))",),
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager._capture_stream",
        "as above",
        order=("return current_stream()",),
    ),
    Replaced(
        paths.PARALLEL_STATE,
        "graph_capture",
        "makes a stream at every call, so we enter the groups ourselves",
        "device",
    ),
    Body(
        paths.PARALLEL_STATE,
        "graph_capture",
        "enters the tp, the pp and the dp group, and no other",
        order=("get_tp_group()", "get_pp_group()", "get_dp_group()"),
        times=(("_.graph_capture(context)", 3),),
    ),
    Replaced(
        paths.MODEL_RUNNER,
        "GPUModelRunner.capture_model",
        "what graphs took",
        "self, *, profile_only=False",
    ),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner.capture_model",
        "no workspace grows once it is over",
        order=(
            "freeze_gc_for_cudagraph_capture()",
            "self.cudagraph_manager.capture(...)",
            "self.kv_connector.reset_capture_state()",
            "lock_workspace()",
        ),
    ),
    Replaced(
        paths.MODEL_RUNNER,
        "GPUModelRunner.profile_cudagraph_memory",
        "answers instead of vLLM's throw-away capture",
        "self",
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "profile_cudagraph_memory",
        "the throw-away capture that never runs: it captures in no other way",
        order=("runner.capture_model(profile_only=True)",),
    ),
    Body(
        paths.WORKER,
        "Worker.determine_available_memory",
        "asked after the profile run; the activation peak holds what we answer",
        order=(
            "maybe_apply_startup_plan(self)",
            "memory_profiling(...)",
            "self.model_runner.profile_run(...)",
            "self.model_runner.profile_cudagraph_memory()",
            "profile_result.transient_peak_headroom + cudagraph_memory_estimate_applied",
        ),
    ),
    Body(
        paths.WORKER,
        "Worker",
        "kernels and steps are warm before the capture",
        order=(
            "kernel_warmup(self)",
            "warmup_kernels(...)",
            "self.model_runner.capture_model()",
        ),
    ),
    *names(
        "utils/mem_utils.py",
        "MemoryProfilingResult",
        "total_consumed transient_peak_headroom",
        "what vLLM counted",
    ),
    *names("config/vllm.py", "VllmConfig", "aux_output_config", "the allow-list"),
    *names(
        "config/parallel.py",
        "ParallelConfig",
        "enable_fault_tolerance",
        "an engine that goes on after an error is left alone",
    ),
    *names(
        "config/speculative.py",
        "SpeculativeConfig",
        "enable_adaptive_verification",
        "graphs of several query lengths are left alone",
    ),
    Body(
        "model_executor/layers/quantization/utils/marlin_utils.py",
        "get_marlin_workspace",
        "its locks belong to a stream: another stream than ours has none",
        order=("current_stream()",),
    ),
    *names(
        "v1/worker/workspace.py",
        "",
        "current_workspace_manager lock_workspace",
        "what a size asks for before it is locked",
    ),
    Called(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager._resolve_effective_loras",
        "the adapter case of a step",
        "self, _",
    ),
    Body(
        "v1/worker/gpu/lora_utils.py",
        "create_lora_capture_hook",
        "a capture's adapters are selected by the runner's own method",
        order=("runner.maybe_select_dummy_loras(...)",),
    ),
    Replaced(
        "v1/worker/lora_model_runner_mixin.py",
        "LoRAModelRunnerMixin._set_active_loras",
        "between steps no adapter is activated for a capture",
        "self, prompt_lora_mapping, token_lora_mapping, lora_requests, "
        "mapping_type=LoRAMappingType.LANGUAGE",
    ),
    Body(
        "v1/worker/lora_model_runner_mixin.py",
        "LoRAModelRunnerMixin.maybe_select_dummy_loras",
        "activates in no other way",
        order=("self._set_active_loras(...)",),
    ),
    Body(
        "lora/model_manager.py",
        "LoRAModelManager.set_adapter_mapping",
        "a step sets its mapping where another one was set last",
        order=("self._last_mapping != mapping", "self._set_adapter_mapping(mapping)"),
    ),
    Called(
        "lora/model_manager.py",
        "LoRAModelManager._set_adapter_mapping",
        "writes the kernels' metadata of a capture",
        "self, _",
    ),
    Fields(
        "lora/layers/utils.py",
        "LoRAMapping",
        "which adapter each row has",
        (
            "index_mapping",
            "prompt_mapping",
            "is_prefill=False",
            "type=LoRAMappingType.LANGUAGE",
        ),
    ),
    *names(
        "config/lora.py",
        "LoRAConfig",
        "specialize_active_lora fully_sharded_loras",
        "the allow-list",
    ),
    *names(
        "config/model.py",
        "ModelConfig",
        "sleep_mode_backend enable_nccl_comm_suspend",
        "the allow-list",
    ),
    Called(paths.CORE, "EngineCore.sleep", "puts the engine to sleep", "self, _, _"),
    Body(
        paths.CORE,
        "EngineCore.sleep",
        "pauses first; without work it sleeps at once, else when its future ends",
        order=(
            "self.pause_scheduler(...)",
            "model_executor.sleep(level)",
            "pause_future.add_done_callback(pause_complete)",
        ),
    ),
    Called(paths.CORE, "EngineCore.wake_up", "wakes it", "self, _"),
    Called(paths.CORE, "EngineCore.resume_scheduler", "after a sleep that failed", "self"),
    *names(paths.EXECUTOR, "Executor", "sleeping_tags", "what of the engine sleeps"),
    Replaced(paths.EXECUTOR, "Executor.sleep", "who gave the weights up", "self, level=1"),
    Replaced(paths.EXECUTOR, "Executor.wake_up", "who woke the weights", "self, tags=None"),
    *names(paths.WORKER, "Worker", "reload_weights", "weights that a sleep gave up"),
    Body(
        "v1/worker/gpu/model_states/__init__.py",
        "resolve_model_state_cls",
        "a model's own state runs as stock",
        order=('hasattr(model, "get_model_state_cls")',),
    ),
)
