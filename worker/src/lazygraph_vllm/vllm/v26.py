"""vLLM 0.26: the executor warms up while it allocates the KV cache, and nothing is profiled."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from .adapter import Adapter, StepCall, missing_hook

UTILS = "vllm.v1.worker.gpu.cudagraph_utils"
CAPTURE = ("self", "create_forward_fn", "progress_bar_desc")


class V26(Adapter):
    """vLLM 0.26.0."""

    name = "v26"
    captures_twice = False
    captures_on_one_stream = False
    modules: ClassVar = {
        "vllm.compilation.cuda_graph": ("CUDAGraphWrapper",),
        "vllm.compilation.monitor": ("set_cudagraph_capturing_enabled",),
        "vllm.distributed.parallel_state": ("GraphCaptureContext", "get_tp_group"),
        "vllm.utils.jit_monitor": ("_mode",),
        "vllm.v1.worker.gpu.async_utils": ("AsyncOutput",),
        UTILS: ("CudaGraphManager", "ModelCudaGraphManager", "graph_capture", "tqdm"),
    }
    signatures: ClassVar = {
        f"{UTILS}:CudaGraphManager.capture": CAPTURE,
        f"{UTILS}:CudaGraphManager.dispatch": (
            "self",
            "num_reqs",
            "num_tokens",
            "uniform_token_count",
            "num_active_loras",
        ),
        f"{UTILS}:_is_compatible": (
            "desc",
            "num_reqs",
            "num_tokens",
            "uniform_token_count",
            "num_active_loras",
        ),
        "vllm.distributed.parallel_state:graph_capture": ("device", "graph_capture_context"),
    }
    descriptor_fields = (
        "cg_mode",
        "num_tokens",
        "num_reqs",
        "uniform_token_count",
        "num_active_loras",
    )

    # -------------------------------------------------------------- EngineCore's process

    def warm_up_hook(self, executor_class: Any) -> str | None:
        """``initialize_from_config`` issues the call itself, through ``collective_rpc``."""
        return missing_hook(executor_class, ("initialize_from_config", "collective_rpc"))

    def wrap_warm_up(self, executor_class: Any, around: Callable[[Any, Any], Any]) -> None:
        """Stand between ``initialize_from_config`` and the one call of its that captures."""
        initialize = executor_class.initialize_from_config

        @functools.wraps(initialize)
        def patched_initialize(self: Any, *args: Any, **kwargs: Any) -> Any:
            rpc = self.collective_rpc

            def collective_rpc(method: Any, *rpc_args: Any, **rpc_kwargs: Any) -> Any:
                warm_up = functools.partial(rpc, method, *rpc_args, **rpc_kwargs)
                if method != "compile_or_warm_up_model":
                    return warm_up()
                # ``around`` asks the ranks by the executor's own call, not by this one.
                self.collective_rpc = rpc
                try:
                    return around(self, warm_up)
                finally:
                    self.collective_rpc = collective_rpc

            self.collective_rpc = collective_rpc
            try:
                return initialize(self, *args, **kwargs)
            finally:
                del self.collective_rpc

        executor_class.initialize_from_config = patched_initialize

    # -------------------------------------------------------------- steps

    def serves(self, desc: Any, call: StepCall) -> bool:
        """As ``_is_compatible``: by tokens, requests, uniform length and LoRA case."""
        return bool(
            desc.num_tokens >= call.tokens
            and (desc.num_reqs is None or desc.num_reqs >= call.requests)
            and desc.uniform_token_count in (None, call.uniform)
            and desc.num_active_loras == call.loras
        )

    def ungraphed(self, desc: Any, call: StepCall) -> Any:
        """A descriptor without padding."""
        return type(desc)(
            cg_mode=type(desc.cg_mode).NONE,
            num_tokens=call.tokens,
            num_reqs=call.requests,
            num_active_loras=call.loras,
        )

    # -------------------------------------------------------------- memory

    def uncounted_bytes(self, worker: Any, allocated: int) -> int:
        """What vLLM's sum for the KV cache has in none of its three parts.

        They are what is held outside torch since the first snapshot, the weights as load_model
        counted them, and the growth of the profile run. What the V2 runner allocates for itself,
        after that snapshot and outside load_model, is in none: 583 MiB on a Llama-3.1-8B with 1,024
        requests, 501 of them for counts of each token of the vocabulary. What the profile run left
        behind (cuBLAS's workspaces) is counted twice here, to the safe side.
        """
        weights = getattr(worker.model_runner, "model_memory_usage", None)
        if weights is None:
            return 0  # Everything would be: the weights are the most of it.
        before = getattr(worker.init_snapshot, "torch_memory", 0)
        return max(0, allocated - int(weights) - int(before))

    # -------------------------------------------------------------- capture

    def graph_capture(self, device: Any) -> contextlib.AbstractContextManager[Any]:
        """VLLM's own context, which takes a stream."""
        import torch
        from vllm.distributed.parallel_state import GraphCaptureContext, graph_capture

        if device not in self._contexts:
            self._contexts[device] = GraphCaptureContext(torch.cuda.Stream(device=device))
        context: contextlib.AbstractContextManager[Any] = graph_capture(
            device, self._contexts[device]
        )
        return context

    def warm_up_context(self, device: Any) -> contextlib.AbstractContextManager[Any]:
        """Nothing is kept by stream: the default one will do, as measured."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def capture_streams(self, device: Any) -> Iterator[tuple[Any, ...]]:
        """FULL graphs are captured on torch's default capture stream, PIECEWISE on ours."""
        import torch

        if torch.cuda.graph.default_capture_stream is None:
            torch.cuda.graph.default_capture_stream = torch.cuda.Stream()
        with self.graph_capture(device):
            yield torch.cuda.current_stream(device), torch.cuda.graph.default_capture_stream
