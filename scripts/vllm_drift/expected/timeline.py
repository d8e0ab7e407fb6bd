"""What a start's timeline puts a clock around. A name that is gone costs its phase."""

from __future__ import annotations

from ..hooks import Hook
from . import paths
from .paths import names

_WHY = "a phase of the start is timed"
_BACKENDS = "compilation/backends.py"

TIMELINE: tuple[Hook, ...] = (
    *names("engine/arg_utils.py", "EngineArgs", "create_engine_config", _WHY),
    *names("v1/engine/async_llm.py", "AsyncLLM", "__init__", _WHY),
    *names("v1/engine/async_llm.py", "", "renderer_from_config", _WHY),
    *names(paths.CORE, "EngineCoreProc", "__init__", _WHY),
    *names(paths.EXECUTOR, "Executor", "__init__", _WHY),
    *names("v1/worker/worker_base.py", "WorkerWrapperBase", "init_worker init_device", _WHY),
    *names(
        paths.WORKER,
        "Worker",
        "load_model determine_available_memory initialize_from_config compile_or_warm_up_model",
        _WHY,
    ),
    *names(
        paths.WORKER,
        "",
        "kernel_warmup warmup_kernels freeze_gc_heap init_worker_distributed_environment",
        _WHY,
    ),
    *names(paths.CORE, "EngineCore", "_initialize_kv_caches", _WHY),
    *names(
        paths.MODEL_RUNNER,
        "GPUModelRunner",
        "__init__ profile_run profile_cudagraph_memory capture_model model_memory_usage",
        _WHY,
    ),
    *names(_BACKENDS, "VllmBackend", "__call__", _WHY),
    *names(_BACKENDS, "CompilerManager", "compile load", _WHY),
    *names("compilation/decorators.py", "", "_try_load_aot_compiled_fn", _WHY),
)
SERVER_26 = names("entrypoints/openai/api_server.py", "", "build_app init_app_state", _WHY)
SERVER = (
    *names("entrypoints/launchers/api_server/entry.py", "", "build_app init_app_state", _WHY),
    *names(paths.WORKER, "Worker", "_maybe_activate_jit_monitor", _WHY),
)
