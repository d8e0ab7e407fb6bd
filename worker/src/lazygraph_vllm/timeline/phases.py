"""Which functions of vLLM are a phase of its start, for all versions that we know.

A function of a module that a version hasn't got is never looked for; one that is gone from its
module costs that phase, which is then part of what is around it.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Phase(NamedTuple):
    """One function.

    Attributes:
        module: where its caller finds it.
        path: its name there.
        name: of the phase.
        leaf: nothing inside it is told apart.
    """

    module: str
    path: str
    name: str
    leaf: bool = False


JIT = "JIT"
CONFIG = "config"
ENGINE = "engine core"
_CORE = "vllm.v1.engine.core"
_WORKER = "vllm.v1.worker.gpu_worker"
_RUNNER = "vllm.v1.worker.gpu.model_runner"
_BASE = "vllm.v1.worker.worker_base"
_BACKENDS = "vllm.compilation.backends"
_SERVER = "vllm.entrypoints.launchers.api_server.entry"
_SERVER_26 = "vllm.entrypoints.openai.api_server"

PHASES = (
    Phase("vllm.engine.arg_utils", "EngineArgs.create_engine_config", "config"),
    Phase("vllm.v1.engine.async_llm", "AsyncLLM.__init__", "engine client"),
    Phase("vllm.v1.engine.async_llm", "renderer_from_config", "tokenizer"),
    Phase(_CORE, "EngineCoreProc.__init__", "engine core"),
    Phase("vllm.v1.executor.abstract", "Executor.__init__", "executor"),
    Phase(_BASE, "WorkerWrapperBase.init_worker", "worker"),
    Phase(_BASE, "WorkerWrapperBase.init_device", "device"),
    Phase(_WORKER, "init_worker_distributed_environment", "distributed"),
    Phase(_RUNNER, "GPUModelRunner.__init__", "model runner"),
    Phase(_WORKER, "Worker.load_model", "weights"),
    Phase(_CORE, "EngineCore._initialize_kv_caches", "memory and KV cache"),
    Phase(_WORKER, "Worker.determine_available_memory", "memory sizing"),
    Phase(_RUNNER, "GPUModelRunner.profile_run", "profile run"),
    # From vLLM 0.29 on it captures graphs and throws them away: that is no capture of the start.
    Phase(_RUNNER, "GPUModelRunner.profile_cudagraph_memory", "graph profiling", leaf=True),
    Phase(_BACKENDS, "VllmBackend.__call__", "compile"),
    Phase(_BACKENDS, "CompilerManager.compile", "Inductor", leaf=True),
    Phase(_BACKENDS, "CompilerManager.load", "load compiled", leaf=True),
    Phase("vllm.compilation.decorators", "_try_load_aot_compiled_fn", "load compiled", leaf=True),
    Phase(_WORKER, "Worker.initialize_from_config", "KV cache"),
    Phase(_WORKER, "Worker.compile_or_warm_up_model", "warm-up"),
    Phase(_WORKER, "kernel_warmup", "kernel warm-up", leaf=True),
    Phase(_WORKER, "warmup_kernels", "warm-up requests", leaf=True),
    Phase(_RUNNER, "GPUModelRunner.capture_model", "captures", leaf=True),
    Phase("torch._inductor.fx_passes.joint_graph", "lazy_init", "Inductor patterns", leaf=True),
    # It imports every compiler of kernels that is installed.
    Phase(_WORKER, "Worker._maybe_activate_jit_monitor", "JIT monitor", leaf=True),
    Phase(_WORKER, "freeze_gc_heap", "garbage", leaf=True),
    # Kernels compiled on their first use: in serving a stall that no capture explains. During a
    # start they are told apart where no leaf is around them.
    Phase("triton.runtime.jit", "JITFunction._do_compile", JIT, leaf=True),
    Phase("flashinfer.jit.core", "JitSpec.build", JIT, leaf=True),
    *(
        Phase(module, path, "API server", leaf=True)
        for module in (_SERVER, _SERVER_26)
        for path in ("build_app", "init_app_state")
    ),
)


def detail(phase: Phase, owner: Any) -> dict[str, Any]:
    """What else is known of a phase, from the object whose method it is."""
    if phase.path != "Worker.load_model":
        return {}
    used = getattr(getattr(owner, "model_runner", None), "model_memory_usage", 0)
    config = getattr(owner, "load_config", None)
    loader = str(getattr(config, "load_format", "unknown"))
    strategy = getattr(config, "safetensors_load_strategy", None)
    return {"bytes": int(used), "loader": f"{loader}, {strategy}" if strategy else loader}
