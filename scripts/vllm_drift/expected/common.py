"""What is the same for all adapters so far."""

from __future__ import annotations

from ..hooks import Bases, Body, Called, Fields, Hook, Replaced
from . import paths
from .configuration import CONFIGURATION
from .paths import names
from .preflight import PREFLIGHT
from .timeline import TIMELINE

_ENGINE: tuple[Hook, ...] = (
    Replaced(paths.EXECUTOR, "Executor.__init__", "starts with the executor", "self, vllm_config"),
    Replaced(
        paths.EXECUTOR,
        "Executor.initialize_from_config",
        "the KV cache is there, nothing is captured yet",
        "self, kv_cache_configs",
    ),
    Replaced(
        paths.EXECUTOR,
        "Executor.determine_available_memory",
        "memory for graphs is kept back before the KV cache is sized",
        "self",
    ),
    Body(
        paths.EXECUTOR,
        "Executor.determine_available_memory",
        "the ranks size it in their own processes",
        order=('self.collective_rpc("determine_available_memory")',),
    ),
    *(
        Called(
            file,
            f"{owner}.collective_rpc",
            "every command to the ranks",
            "self, _, timeout=_, args=_",
        )
        for file, owner in (
            (paths.EXECUTOR, "Executor"),
            (paths.UNIPROC_EXECUTOR, "UniProcExecutor"),
            (paths.MULTIPROC_EXECUTOR, "MultiprocExecutor"),
        )
    ),
    *(
        Called(
            file, f"{owner}.collective_rpc", "step reports wait for nobody", "self, _, non_block=_"
        )
        for file, owner in (
            (paths.UNIPROC_EXECUTOR, "UniProcExecutor"),
            (paths.MULTIPROC_EXECUTOR, "MultiprocExecutor"),
        )
    ),
    Body(
        paths.UNIPROC_EXECUTOR,
        "UniProcExecutor.collective_rpc",
        "our functions get the worker's wrapper first",
        order=("run_method(self.driver_worker, method, args, kwargs)",),
    ),
    Bases(paths.UNIPROC_EXECUTOR, "UniProcExecutor", "our patches reach it", ("Executor",)),
    Bases(paths.MULTIPROC_EXECUTOR, "MultiprocExecutor", "our patches reach it", ("Executor",)),
    Replaced(paths.CORE, "EngineCoreProc.run_busy_loop", "the engine serves from here", "self"),
    Replaced(paths.CORE, "EngineCoreProc._process_input_queue", "the engine is idle", "self"),
    Replaced(paths.CORE, "EngineCoreProc._process_engine_step", "a step is over", "self"),
    Replaced(
        paths.CORE,
        "EngineCoreProc._handle_client_request",
        "commands run between steps",
        "self, request_type, request",
    ),
    Body(
        paths.CORE,
        "EngineCoreProc.run_busy_loop",
        "the loop calls what we replace",
        order=("self._process_input_queue()", "self._process_engine_step()"),
    ),
    Body(
        paths.CORE,
        "EngineCoreProc._process_input_queue",
        "our commands come through the engine's own queue",
        order=("self.has_work()", "self.input_queue.get(...)", "self._handle_client_request(*req)"),
    ),
    Body(
        paths.CORE,
        "EngineCoreProc._handle_client_request",
        "nobody else reads what a wake-up carries",
        order=("request_type == EngineCoreRequestType.WAKEUP",),
    ),
    Body(
        paths.CORE,
        "EngineCore.step_with_batch_queue",
        "steps in flight are waited for by the first of each entry",
        order=("batch_queue.appendleft((future, scheduler_output, exec_future))",),
    ),
    Bases(paths.CORE, "EngineCoreProc", "its methods are found where we look", ("EngineCore",)),
    Called(paths.CORE, "EngineCoreProc.has_work", "whether a capture holds anybody up", "self"),
    Called(paths.CORE, "EngineCoreProc.is_running", "no capture in a shutdown", "self"),
    Called(paths.CORE, "EngineCore.is_scheduler_paused", "no capture in a pause", "self"),
    *names(
        paths.CORE,
        "EngineCoreProc",
        "input_queue batch_queue model_executor scheduler",
        "commands and steps in flight",
    ),
    *names(paths.EXECUTOR, "Executor", "is_sleeping", "no capture while asleep"),
    *names("v1/engine/__init__.py", "EngineCoreRequestType", "WAKEUP", "carries our commands"),
    Called("v1/core/sched/interface.py", "SchedulerInterface.get_request_counts", "load", "self"),
    *names("plugins/__init__.py", "", "DEFAULT_PLUGINS_GROUP", "vLLM finds the plugin"),
    *names(
        "envs.py",
        "",
        "VLLM_WORKER_MULTIPROC_METHOD VLLM_BATCH_INVARIANT VLLM_ENABLE_V1_MULTIPROCESSING "
        "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS VLLM_DISABLED_KERNELS VLLM_MARLIN_INPUT_DTYPE",
        "settings that decide what we may do",
    ),
)

_CAPTURE: tuple[Hook, ...] = (
    Replaced(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.capture",
        "captures the first set, and later one graph at a time",
        "self, create_forward_fn, progress_bar_desc='Capturing CUDA graphs'",
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.capture",
        "the lists that we put in are captured, each graph after a warm-up run that we may skip",
        order=(
            "graph_capture(device=self.device)",
            "self._capture_descs[mode]",
            "tqdm(descs, desc=_)",
            "create_forward_fn(desc, warmup=True)",
            "forward_fn(CUDAGraphMode.NONE)",
            "create_forward_fn(desc, warmup=False)",
            "self.graphs[desc] = graph",
        ),
        times=(("create_forward_fn(...)", 2),),
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager.capture",
        "the closure that captures comes through the method that we replace",
        order=("super().capture(create_forward_fn, progress_bar_desc)",),
    ),
    Bases(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager",
        "our patches reach it",
        ("CudaGraphManager",),
    ),
    Called(paths.CUDAGRAPH_UTILS, "CudaGraphManager.run_fullgraph", "replays", "self, _"),
    Called(paths.CUDAGRAPH_UTILS, "CudaGraphManager.needs_capture", "replays", "self"),
    Replaced(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.run_pw_graph",
        "a check keeps what it returns",
        "self, model, model_inputs",
    ),
    *names(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager",
        "_capture_descs _candidates _graphs_captured graphs pool decode_query_len cudagraph_mode "
        "use_breakable_cg hidden_states",
        "what is captured, and where",
    ),
    *names(paths.CUDAGRAPH_UTILS, "", "graph_capture tqdm", "replaced in this module"),
    *names(
        paths.CUDAGRAPH_WRAPPER,
        "CUDAGraphWrapper",
        "_all_instances concrete_cudagraph_entries graph_pool",
        "PIECEWISE graphs are found, dropped and captured into tiers",
    ),
    *names(paths.CUDAGRAPH_WRAPPER, "CUDAGraphEntry", "cudagraph", "one piece's graph"),
    Body(
        paths.CUDAGRAPH_WRAPPER,
        "CUDAGraphWrapper.__call__",
        "no real step captures",
        order=(
            "batch_descriptor not in self.concrete_cudagraph_entries",
            "validate_cudagraph_capturing_enabled()",
            "torch.cuda.graph(..., pool=_, stream=current_stream())",
            "entry.cudagraph = cudagraph",
        ),
    ),
    Fields(
        "forward_context.py",
        "BatchDescriptor",
        "PIECEWISE graphs are dropped by their key",
        ("num_tokens", "num_reqs=None", "uniform=False", "has_lora=False", "num_active_loras=0"),
    ),
    Called(
        "compilation/monitor.py",
        "set_cudagraph_capturing_enabled",
        "capturing is off outside our captures",
        "_",
    ),
    *names("compilation/monitor.py", "", "cudagraph_capturing_enabled", "as above"),
    *names("utils/jit_monitor.py", "", "_mode", "a kernel compiled in a capture is no error"),
    Replaced(paths.ASYNC_UTILS, "AsyncOutput.get_output", "no event wait in a capture", "self"),
    Body(
        paths.ASYNC_UTILS,
        "AsyncOutput.get_output",
        "it waits for an event of the device",
        order=("self.copy_event.synchronize()",),
    ),
    Replaced(
        paths.PARALLEL_STATE,
        "GroupCoordinator.graph_capture",
        "entered with our persistent stream",
        "self, graph_capture_context=None",
    ),
    *names(paths.PARALLEL_STATE, "GraphCaptureContext", "stream", "our persistent stream"),
    *names(paths.PARALLEL_STATE, "", "get_tp_group get_pp_group get_dp_group", "its groups"),
    *names(
        paths.PARALLEL_STATE,
        "GroupCoordinator",
        "cpu_group world_size device_communicator",
        "ranks agree before a capture",
    ),
    Replaced(
        "distributed/device_communicators/custom_all_reduce.py",
        "CustomAllreduce.all_reduce",
        "in a tier it shares no memory with other ranks",
        "self, inp, *, out=None, registered=False",
    ),
    *names(
        "distributed/device_communicators/cuda_communicator.py",
        "CudaCommunicator",
        "ca_comm",
        "as above",
    ),
)

_RANK: tuple[Hook, ...] = (
    *names("envs.py", "", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "how long a rank may be silent"),
    *names(
        paths.MODEL_RUNNER,
        "GPUModelRunner",
        "cudagraph_manager device vllm_config input_buffers speculator decode_query_len "
        "model_memory_usage",
        "read on every rank",
    ),
    Called(
        paths.MODEL_RUNNER,
        "GPUModelRunner.execute_model",
        "steps are counted, dummy ones are not",
        "self, _, dummy_run=_",
    ),
    Called(paths.MODEL_RUNNER, "GPUModelRunner.sample_tokens", "a step's end", "self, _"),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner",
        "one dispatch a step",
        times=(("dispatch_cg_and_sync_dp(...)", 1),),
    ),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner.capture_model",
        "the manager's capture runs in it",
        order=("self.cudagraph_manager.capture(...)",),
    ),
    *names("v1/worker/gpu/input_batch.py", "InputBuffers", "input_ids positions", "model inputs"),
    *names(
        "v1/core/sched/output.py",
        "SchedulerOutput",
        "num_scheduled_tokens total_num_scheduled_tokens scheduled_cached_reqs",
        "a step's shape",
    ),
    *names("v1/core/sched/output.py", "CachedRequestData", "num_computed_tokens", "its context"),
    Bases(paths.WORKER, "Worker", "it has the runner", ("WorkerBase",)),
    *names(
        paths.WORKER,
        "Worker",
        "model_runner init_snapshot requested_memory peak_activation_memory "
        "cudagraph_memory_estimate",
        "what the KV cache was sized by",
    ),
    *names(
        paths.WORKER,
        "Worker",
        "_weight_update_active",
        "nothing is captured while weights are replaced",
    ),
    *names("v1/worker/worker_base.py", "WorkerWrapperBase", "worker global_rank", "the rank"),
    *names("utils/mem_utils.py", "MemorySnapshot", "free_memory torch_memory", "as above"),
    Called("v1/attention/backends/fa_utils.py", "get_flash_attn_version", "forecast", ""),
)

COMMON: tuple[Hook, ...] = (
    *_ENGINE,
    *_CAPTURE,
    *_RANK,
    *CONFIGURATION,
    *PREFLIGHT,
    *TIMELINE,
)
