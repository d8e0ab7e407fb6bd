"""Breakable CUDA graphs: who records them, into which pool, and what a failure leaves."""

from __future__ import annotations

from ..hooks import Body, Hook
from . import paths
from .paths import names

_BREAKABLE = "compilation/breakable_cudagraph.py"
_STATES = "v1/worker/gpu/model_states/interface.py"

BREAKABLE: tuple[Hook, ...] = (
    *names(
        _BREAKABLE,
        "BreakableCUDAGraphWrapper",
        "_all_instances entries graph_pool",
        "breakable graphs are found, dropped and captured into tiers",
    ),
    *names(_BREAKABLE, "_BreakableEntry", "capture output", "goes with its entry"),
    *names(_BREAKABLE, "BreakableCUDAGraphCapture", "segments", "a check's control kills one"),
    Body(
        _BREAKABLE,
        "BreakableCUDAGraphWrapper.__call__",
        "an entry is there before its recording, under the batch or a tuple that begins with it",
        order=(
            "batch_descriptor = forward_context.batch_descriptor",
            "_BreakableEntry(batch_descriptor=batch_descriptor)",
            "self._capture(entry, args, kwargs)",
            "self._replay(entry, args, kwargs)",
        ),
    ),
    Body(
        _BREAKABLE,
        "BreakableCUDAGraphWrapper._capture",
        "no real step captures, and no cache is emptied where the collector is off",
        order=(
            "validate_cudagraph_capturing_enabled()",
            "gc.isenabled()",
            "torch.accelerator.empty_cache()",
            "BreakableCUDAGraphCapture(pool=_)",
            "self.runnable(*args, **kwargs)",
            "entry.capture = capture",
        ),
        times=(("torch.accelerator.empty_cache()", 1),),
    ),
    Body(
        _BREAKABLE,
        "BreakableCUDAGraphCapture.__enter__",
        "a failure to begin leaves it the thread's current one: we end it",
        order=("BreakableCUDAGraphCapture._tls.active = self", "self._begin_segment()"),
    ),
    Body(
        _BREAKABLE,
        "BreakableCUDAGraphCapture.__exit__",
        "no recording is current afterwards, as after ours",
        order=("self._end_segment()", "BreakableCUDAGraphCapture._tls.active = None"),
    ),
    Body(
        "model_executor/layers/attention/attention.py",
        "unified_attention_with_output",
        "attention ends a recording: its function is the decorator's",
        order=("eager_break_during_capture",),
    ),
    *names(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager",
        "breakable_cg_runner",
        "the wrapper of the target's graphs",
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.capture",
        "asks for a breakable graph's run twice, so that the warm-up can be left out",
        order=(
            "not self.use_breakable_cg",
            "forward_fn(CUDAGraphMode.PIECEWISE)",
            "create_forward_fn(desc, warmup=False)",
            "forward_fn(CUDAGraphMode.PIECEWISE)",
        ),
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "ModelCudaGraphManager.capture",
        "the wrapper is there before our capture",
        order=(
            "self.init_breakable_cg_runner(model)",
            "super().capture(create_forward_fn, progress_bar_desc)",
        ),
    ),
    Body(
        paths.CUDAGRAPH_UTILS,
        "CudaGraphManager.run_pw_graph",
        "a step and a check replay by it",
        order=("self.breakable_cg_runner(**model_inputs)",),
    ),
    *names("envs.py", "", "VLLM_USE_BREAKABLE_CUDAGRAPH", "the allow-list"),
    Body(
        "config/vllm.py",
        "VllmConfig._maybe_enable_breakable_cudagraph",
        "the switch is a variable of the process, and turns the compiler off",
        order=(
            'os.environ["VLLM_USE_BREAKABLE_CUDAGRAPH"] = "1"',
            "self.compilation_config.mode = CompilationMode.NONE",
        ),
    ),
)
# From 0.32 on a model may keep graphs of its own inside, which are left to vLLM.
INSIDE: tuple[Hook, ...] = (
    *names(_STATES, "ModelState", "capture_inner_cudagraphs", "who overrides it runs as stock"),
    Body(
        paths.MODEL_RUNNER,
        "GPUModelRunner.capture_model",
        "graphs inside of a model are captured by its state, and in no other way",
        order=(
            "self.cudagraph_manager.capture(...)",
            "self.model_state.capture_inner_cudagraphs(...)",
        ),
    ),
)
