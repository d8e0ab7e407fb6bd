"""vLLM 0.26: the ranks warm up as a part of ``initialize_from_config``."""

from __future__ import annotations

from ..hooks import Body, Called, Fields, Hook, Replaced
from . import paths
from .common import COMMON
from .paths import names
from .timeline import SERVER_26

HOOKS: tuple[Hook, ...] = (
    *COMMON,
    *SERVER_26,
    Body(
        paths.EXECUTOR,
        "Executor.initialize_from_config",
        "we stand between the KV cache and the warm-up",
        order=(
            'self.collective_rpc("initialize_from_config", args=_)',
            'self.collective_rpc("compile_or_warm_up_model")',
        ),
    ),
    Body(
        paths.CORE,
        "EngineCore._initialize_kv_caches",
        "sizing first, and nobody else warms up",
        order=(
            "self.model_executor.determine_available_memory()",
            "self.model_executor.initialize_from_config(_)",
        ),
        never=("self.model_executor.compile_or_warm_up_model()",),
    ),
    Replaced(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.dispatch",
        "every step's graph",
        "self, num_reqs, num_tokens, uniform_token_count, num_active_loras",
    ),
    Called(
        paths.CUDAGRAPH_UTILS,
        "_is_compatible",
        "vLLM's own rule which graph can serve a step",
        "_, num_reqs=_, num_tokens=_, uniform_token_count=_, num_active_loras=_",
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
            "num_active_loras=0",
        ),
    ),
    Called(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager.__init__",
        "says before the KV cache is sized which graphs there will be",
        "self, _, _, _, _",
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.capture",
        "FULL graphs are captured on torch's own stream",
        order=("torch.cuda.graph(graph, self.pool)",),
    ),
    Called(
        paths.PARALLEL_STATE,
        "graph_capture",
        "takes our persistent stream",
        "_, _",
    ),
    Body(
        paths.PARALLEL_STATE,
        "graph_capture",
        "enters the tp and the pp group",
        order=("get_tp_group()", "get_pp_group()"),
        times=(("_.graph_capture(context)", 2),),
    ),
    Replaced(paths.MODEL_RUNNER, "GPUModelRunner.capture_model", "what graphs took", "self"),
    Replaced(
        paths.MODEL_RUNNER,
        "GPUModelRunner.profile_cudagraph_memory",
        "memory for graphs, which vLLM takes off its KV cache",
        "self",
    ),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner.profile_cudagraph_memory",
        "vLLM keeps nothing back itself",
        order=("return 0",),
    ),
    Body(
        paths.WORKER,
        "Worker.determine_available_memory",
        "the profile run is over, its activations are free again, and its sum leaves out what "
        "torch has allocated outside of the weights",
        order=(
            "memory_profiling(...)",
            "self.model_runner.profile_run()",
            "self.model_runner.profile_cudagraph_memory()",
            "self.peak_activation_memory = profile_result.torch_peak_increase",
        ),
    ),
    Body(
        paths.WORKER,
        "Worker.compile_or_warm_up_model",
        "captures first, warm-up steps are counted and then forgotten",
        order=(
            "kernel_warmup(self)",
            "self.model_runner.capture_model()",
            "warmup_kernels(...)",
        ),
    ),
    *names(paths.WORKER, "Worker", "_reserve_mm_ipc_gpu_memory", "off the KV cache as well"),
    Body(
        "v1/worker/gpu/model_states/__init__.py",
        "init_model_state",
        "a model's own state runs as stock",
        order=('hasattr(model, "get_model_state_cls")',),
    ),
)
