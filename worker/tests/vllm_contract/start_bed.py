"""``vllm serve`` to its first token without a GPU: vLLM's own, but for platform and executor.

Run as the launcher's module: ``python start_bed.py --socket SOCKET …``. Its servers note in
``LAZYGRAPH_TEST_NOTES`` every module that they look for and haven't got.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

KERNELS = (
    "_C_stable_libtorch",
    "_moe_C_stable_libtorch",
    "vllm_flash_attn._vllm_fa2_C",
    "vllm_flash_attn._vllm_fa3_C",
)
QUESTIONS = ("cutlass_scaled_mm_supports_block_fp8", "cutlass_scaled_mm_supports_fp8")
INSTRUMENTATOR = "prometheus_fastapi_instrumentator"
WITHHELD = "vllm.entrypoints.serve.elastic_ep.api_router"
"""What this launcher leaves to its servers: they have to be seen looking for it."""
_kept: list[Any] = []


def pretend() -> None:
    """Be on a host with an H200, as far as vLLM's imports and configuration look."""
    import torch
    from triton.backends import backends

    backends["nvidia"].driver.is_active = staticmethod(lambda: True)
    library = torch.library.Library("_C", "FRAGMENT")
    _kept.append(library)
    for name in QUESTIONS:
        library.define(f"{name}(int capability) -> bool")
        library.impl(name, lambda capability: True, "CompositeExplicitAutograd")
    for name in KERNELS:
        sys.modules[f"vllm.{name}"] = ModuleType(f"vllm.{name}")
    if find_spec(INSTRUMENTATOR) is None:
        module: Any = ModuleType(INSTRUMENTATOR)
        module.Instrumentator = Instrumentator
        module.routing = SimpleNamespace(get_route_name=None)
        sys.modules[INSTRUMENTATOR] = module

    import vllm.platforms as platforms
    from vllm.platforms import cuda
    from vllm.platforms.interface import DeviceCapability

    class Platform(cuda.NonNvmlCudaPlatform):  # type: ignore[misc]
        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(9, 0))
        get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA H200")
        get_device_total_memory = classmethod(lambda cls, device_id=0: 141 << 30)
        device_count = classmethod(lambda cls: 1)
        num_compute_units = classmethod(lambda cls, device_id=0: 132)

    platforms._current_platform = Platform()


class Instrumentator:
    """Where that package isn't installed: it measures nothing."""

    def __init__(self, **_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self


class Missing:
    """Of ``sys.meta_path``, first: it finds nothing and says what was looked for."""

    def find_spec(self, name: str, *_: Any) -> None:
        path = os.environ["LAZYGRAPH_TEST_NOTES"]
        with open(path, "a") as notes:
            notes.write(f"{name}\n")


def serve() -> Any:
    """A server's ``main``."""
    from vllm.entrypoints.cli.main import main

    sys.meta_path.insert(0, Missing())
    return main()


def executor() -> type:
    """One layer, and one token for each request and step."""
    import torch
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.worker.worker_base import CompilationTimes

    layer = FullAttentionSpec(block_size=16, num_kv_heads=8, head_size=128, dtype=torch.bfloat16)
    answers = {
        "get_kv_cache_spec": {"model.layers.0.self_attn.attn": layer},
        "get_supported_kv_cache_layouts": ["NHD"],
        "determine_available_memory": 1 << 30,
        "compile_or_warm_up_model": CompilationTimes(0.0, 0.0),
        "get_supported_tasks": ("generate",),
    }

    def done(result: Any, non_block: bool) -> Any:
        if not non_block:
            return result
        future: Future[Any] = Future()
        future.set_result(result)
        return future

    class WithoutGpu(Executor):  # type: ignore[misc]
        def _init_executor(self) -> None:
            self.asked: list[str] = []

        def collective_rpc(self, method: Any, *_: Any, non_block: bool = False, **__: Any) -> Any:
            return done([answers.get(method) if isinstance(method, str) else None], non_block)

        def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
            self.asked = list(scheduler_output.num_scheduled_tokens)
            return done(None, non_block)

        def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
            places = {name: i for i, name in enumerate(self.asked)}
            tokens = [[65] for _ in self.asked]
            return done(ModelRunnerOutput(self.asked, places, tokens), non_block)

        def check_health(self) -> None: ...

        def shutdown(self) -> None: ...

    return WithoutGpu


def launch() -> None:
    """Be the launcher."""
    from lazygraph_vllm.launcher import later, preload

    later.MODULES = tuple(name for name in later.MODULES if name != WITHHELD)
    # First of all, and among what the launcher imports: it notes what that does to a process.
    preload.MODULES = ("start_bed_imported", *preload.MODULES)
    from lazygraph_vllm.launcher.__main__ import main

    sys.exit(main())


if __name__ == "__main__":
    launch()
