"""What vLLM gets at only when a server is under way, done before any is forked.

Each of these is tried in a child first (``trial``): a version of vLLM that lacks one, or a package
that would take the GPU while it is imported, costs that one and not the launcher.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..vllm.model import import_model
from .trial import Step

# Left out on purpose: `model_hosting_container_standards`. Its import sets the root logger's level,
# by LOG_LEVEL, which would be every process's from its beginning and not the API server's alone.
MODULES = (
    # The command line: `main` makes a parser of every subcommand.
    "vllm.entrypoints.cli.benchmark.main",
    "vllm.entrypoints.cli.collect_env",
    "vllm.entrypoints.cli.download_kernels",
    "vllm.entrypoints.cli.launch",
    "vllm.entrypoints.cli.openai",
    "vllm.entrypoints.cli.preload",
    "vllm.entrypoints.cli.run_batch",
    "vllm.entrypoints.cli.snapshot",
    "vllm.entrypoints.launchers.run_batch",
    # vLLM's own plugins: what they are made of. None is loaded by that.
    "vllm.plugins.lora_resolvers.filesystem_resolver",
    "vllm.plugins.lora_resolvers.hf_hub_resolver",
    "multiprocessing.popen_fork",
    "vllm.renderers.hf",
    # The API server: routers and what serves them.
    "vllm.entrypoints.launchers.api_server.routers",
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.entrypoints.serve.instrumentator.offline_docs",
    "vllm.entrypoints.serve.lora.api_router",
    "vllm.entrypoints.serve.profile.api_router",
    "vllm.entrypoints.serve.tokenize.api_router",
    "vllm.entrypoints.serve.elastic_ep.api_router",
    "vllm.entrypoints.serve.utils.fingerprint",
    "vllm.entrypoints.generate.api_router",
    "vllm.entrypoints.generate.structured_decisions.api_router",
    "vllm.entrypoints.generate.generative_scoring.api_router",
    "vllm.entrypoints.openai.models.api_router",
    "vllm.entrypoints.openai.decisions.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
    "vllm.entrypoints.openai.completion.api_router",
    "vllm.entrypoints.openai.responses.api_router",
    "vllm.entrypoints.anthropic.api_router",
    "vllm.entrypoints.cohere.api_router",
    "vllm.entrypoints.scale_out.derender.api_router",
    "vllm.entrypoints.scale_out.render.api_router",
    "vllm.entrypoints.scale_out.token_in_token_out.api_router",
    "jmespath",
    "zmq.utils.monitor",
    "zmq.utils.z85",
    "pydantic.v1",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    # The engine: what its first forward pass, its compiled graph and its kernels come to need.
    "vllm.compilation.backends",
    "vllm.compilation.caching",
    "vllm.compilation.passes.vllm_inductor_pass",
    "vllm.compilation.piecewise_backend",
    "vllm.model_executor.kernels.linear.cute_dsl.ll_bf16",
    "vllm.model_executor.layers.fused_moe.router.gate_linear",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.layers.quantization.online.moe_base",
    "vllm.model_executor.models.adapters",
    "vllm.model_executor.models.expert_substitution",
    "vllm.model_executor.warmup.minimax_m3_msa_warmup",
    "vllm.model_executor.warmup.step5_dsa_warmup",
    "vllm.model_inspection",
    "vllm.utils.jit_monitor",
    "vllm.v1.core.sched.async_scheduler",
    "vllm.v1.attention.backends.flash_attn",
    "torch._inductor.hooks",
    "torch._inductor.standalone_compile",
    "torch._inductor.runtime.caching",
    "torch._inductor.fx_passes.fuse_attention",
    "torch._inductor.fx_passes.misc_patterns",
    "torch._inductor.fx_passes.pad_mm",
)
OWN = "lazygraph_vllm"
PASSES = "torch._inductor.fx_passes"
PATTERNS = f"{PASSES}.serialized_patterns"
RANKS = 8
"""Each of a server's ranks on a host has a GPU of its own, by its number."""


def steps(folders: Iterable[str] = ()) -> dict[str, Step]:
    """What to do, by name; whatever can't be done raises.

    Args:
        folders: of models that servers will serve.
    """
    names = (*MODULES, *_own_modules())
    found: dict[str, Step] = {name: functools.partial(_import, name) for name in names}
    found["patterns of Inductor"] = _import_patterns
    found["patterns of attention"] = keep_patterns
    found["keys of compilers"] = keep_compiler_keys
    found["command line"] = keep_command_line
    found |= {f"model {folder}": functools.partial(import_model, folder) for folder in folders}
    return found


def _import(name: str) -> None:
    importlib.import_module(name)


def _own_modules() -> list[str]:
    """The plugin's, without what is only for launchers: importing them hooks nothing."""
    package = importlib.import_module(OWN)
    walked = pkgutil.walk_packages(package.__path__, f"{OWN}.")
    return [found.name for found in walked if not found.name.startswith(f"{OWN}.launcher")]


def _import_patterns() -> None:
    """One module for each pattern; vLLM has all of them loaded at the end of its warm-up."""
    package = importlib.import_module(PATTERNS)
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{PATTERNS}.{found.name}")


def keep_patterns() -> None:
    """Make Inductor's patterns of attention and of padded products, where torch keeps them.

    vLLM has them made in its warm-up, by device and of tensors that hold nothing: they are the same
    on every GPU, and torch adds none twice. Others differ between GPUs and are left to the servers.
    """
    torch = importlib.import_module("torch")
    padding = importlib.import_module(f"{PASSES}.pad_mm")
    attention = importlib.import_module(f"{PASSES}.fuse_attention")
    matcher = importlib.import_module("torch._inductor.pattern_matcher")

    @matcher.init_once_fakemode  # type: ignore[untyped-decorator]
    def make(input_device: object = None) -> None:
        # In the order of torch's own, which finds them made by these very arguments.
        padding._pad_mm_init(input_device)
        attention._sfdp_init(input_device)

    with _without_gpu():
        for index in range(RANKS):
            make(torch.device(f"cuda:{index}"))


@contextlib.contextmanager
def _without_gpu() -> Iterator[None]:
    """Keep torch from asking for one, which would initialise CUDA's driver."""
    cuda: Any = importlib.import_module("torch.cuda")
    fake = importlib.import_module("torch._subclasses.fake_tensor")
    asked, looked = cuda.is_available, fake.init_gpu_context
    cuda.is_available = lambda: False
    try:
        yield
    finally:
        cuda.is_available = asked
        looked.cache_clear()  # it remembers that there was none


def keep_compiler_keys() -> None:
    """Hash torch's sources and Triton's library, half a gigabyte, where both keep the result.

    vLLM looks for its compiled graph by these keys, before the first forward pass of each start.
    They are of files, and a launcher whose files have changed imports anew.
    """
    codecache = importlib.import_module("torch._inductor.codecache")
    for name in ("torch_key", "triton_key"):
        key: Callable[[], object] = getattr(codecache, name)
        key()


def keep_command_line() -> None:
    """What vLLM finds out of its configuration's classes for a parser, where vLLM keeps it.

    Not by the parser of `serve`: that one loads plugins, as each server has to by itself.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.common.cli_args import FrontendArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for owner in (EngineArgs, FrontendArgs):
        owner.add_cli_args(FlexibleArgumentParser())
