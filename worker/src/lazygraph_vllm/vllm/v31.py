"""vLLM 0.31 to 0.33: warm-up is a call of its own, and graphs are captured twice by default."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from . import breakable
from .adapter import Adapter, StepCall, missing_hook
from .v26 import CAPTURE, UTILS

STEP = (
    "num_reqs",
    "num_tokens",
    "uniform_token_count",
    "num_active_loras",
    "max_query_len",
    "num_ubatches",
)


class V31(Adapter):
    """vLLM 0.31.0, 0.32.0 and 0.33.0."""

    name = "v31"
    captures_twice = True
    captures_on_one_stream = True
    modules: ClassVar = {
        "vllm.compilation.breakable_cudagraph": (
            "BreakableCUDAGraphCapture",
            "BreakableCUDAGraphWrapper",
        ),
        "vllm.compilation.cuda_graph": ("CUDAGraphWrapper",),
        "vllm.compilation.monitor": ("set_cudagraph_capturing_enabled",),
        "vllm.distributed.parallel_state": (
            "GraphCaptureContext",
            "get_tp_group",
            "get_pp_group",
            "get_dp_group",
            "get_world_group",
        ),
        "vllm.utils.jit_monitor": ("_mode",),
        "vllm.v1.worker.gpu.async_utils": ("AsyncOutput",),
        "vllm.v1.worker.workspace": ("current_workspace_manager",),
        UTILS: ("CudaGraphManager", "ModelCudaGraphManager", "graph_capture", "tqdm"),
    }
    signatures: ClassVar = {
        f"{UTILS}:CudaGraphManager.capture": CAPTURE,
        f"{UTILS}:CudaGraphManager.dispatch": ("self", *STEP),
        f"{UTILS}:_is_compatible": ("desc", *STEP),
        "vllm.distributed.parallel_state:graph_capture": ("device",),
    }
    descriptor_fields = (
        "cg_mode",
        "num_tokens",
        "num_reqs",
        "uniform_token_count",
        "max_query_len",
        "num_active_loras",
        "num_ubatches",
    )

    # -------------------------------------------------------------- EngineCore's process

    def warm_up_hook(self, executor_class: Any) -> str | None:
        """EngineCore calls the executor's own method, after the KV cache is there."""
        return missing_hook(executor_class, ("compile_or_warm_up_model", "collective_rpc"))

    def wrap_warm_up(self, executor_class: Any, around: Callable[[Any, Any], Any]) -> None:
        """Replace that method."""
        warm_up = executor_class.compile_or_warm_up_model

        @functools.wraps(warm_up)
        def patched_warm_up(self: Any, *args: Any, **kwargs: Any) -> Any:
            return around(self, functools.partial(warm_up, self, *args, **kwargs))

        executor_class.compile_or_warm_up_model = patched_warm_up

    # -------------------------------------------------------------- is it the vLLM we know?

    def breakable_reason(self, runner: Any) -> str | None:
        """They are captured as all others are."""
        return breakable.missing(runner)

    # -------------------------------------------------------------- graphs

    def wrappers(self) -> list[Any]:
        """Of both classes: a drafter may have one, and its target the other."""
        return [*super().wrappers(), *breakable.wrappers()]

    def recorded(self) -> list[dict[Any, Any]]:
        """Of both classes."""
        compiled = [wrapper.concrete_cudagraph_entries for wrapper in super().wrappers()]
        return [*compiled, *(wrapper.entries for wrapper in breakable.wrappers())]

    # -------------------------------------------------------------- steps

    def serves(self, desc: Any, call: StepCall) -> bool:
        """As ``_is_compatible``: a prefill never gets a graph that limits the query length."""
        limit, longest = desc.max_query_len, call.query_length
        return bool(
            desc.num_tokens >= call.tokens
            and (desc.num_reqs is None or desc.num_reqs >= call.requests)
            and desc.uniform_token_count in (None, call.uniform)
            and (limit is None or (longest is not None and limit >= longest))
            and desc.num_active_loras == call.loras
            and desc.num_ubatches == call.microbatches
        )

    def ungraphed(self, desc: Any, call: StepCall) -> Any:
        """A descriptor without padding."""
        return type(desc)(
            cg_mode=type(desc.cg_mode).NONE,
            num_tokens=call.tokens,
            num_reqs=call.requests,
            num_active_loras=call.loras,
            num_ubatches=call.microbatches,
        )

    # -------------------------------------------------------------- memory

    def activation_peak(self, worker: Any) -> int:
        """VLLM's figure has what it was told of graphs in it: that is theirs, not activations'."""
        peak = getattr(worker, "peak_activation_memory", None)
        if peak is None:  # the KV cache's size was given, by a start-up plan for example
            return super().activation_peak(worker)
        applied = self.subtracts_estimate()
        graphs = int(getattr(worker, "cudagraph_memory_estimate", 0)) if applied else 0
        return max(0, int(peak) - graphs)

    def workspaces(self) -> tuple[int, int]:
        """By vLLM's own manager of them."""
        from vllm.v1.worker import workspace

        if not workspace.is_workspace_manager_initialized():
            return (0, 0)
        manager = workspace.current_workspace_manager()
        scratch = sum(manager._workspace_size_bytes(w) for w in manager._current_workspaces)
        return scratch, sum(len(kept) for kept in manager._persistent_resources)

    def uncounted_bytes(self, worker: Any, allocated: int) -> int:
        """Nothing: vLLM subtracts all that the device has less than at first."""
        return 0

    # -------------------------------------------------------------- capture

    @contextlib.contextmanager
    def capturing(self, runner: Any) -> Iterator[None]:
        """As for all, and a recording that failed holds up no other."""
        with breakable.none_left_open(), super().capturing(runner):
            yield

    @contextlib.contextmanager
    def graph_capture(self, device: Any) -> Iterator[Any]:
        """VLLM's own context makes a stream each time: enter what it enters, with ours."""
        import torch
        from vllm.distributed import parallel_state as groups

        if device not in self._contexts:
            stream = torch.cuda.Stream(device=device)
            self._contexts[device] = groups.GraphCaptureContext(stream)
        context = self._contexts[device]
        with (
            groups.get_tp_group().graph_capture(context),
            groups.get_pp_group().graph_capture(context),
            groups.get_dp_group().graph_capture(context),
        ):
            yield context

    def warm_up_context(self, device: Any) -> contextlib.AbstractContextManager[Any]:
        """On the capture stream: Marlin's locks are kept by stream, zeroed once.

        Made inside the first capture instead, they would lie in that graph's pool, and their
        zeroing would be a node of that graph alone.
        """
        return self.graph_capture(device)
