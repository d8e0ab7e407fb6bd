"""What judging a command before it starts asks of vLLM's configuration.

Its parser has moved in each of the last versions: the contract tests look for that.
"""

from __future__ import annotations

from ..hooks import Called, Hook
from . import paths
from .paths import names

_ARG_UTILS = "engine/arg_utils.py"
_WHY = "a command is judged before it starts"

PREFLIGHT: tuple[Hook, ...] = (
    Called(_ARG_UTILS, "EngineArgs.from_cli_args", _WHY, "cls, _"),
    Called(
        _ARG_UTILS, "EngineArgs.create_engine_config", _WHY, "self, usage_context=_, headless=_"
    ),
    *names(_ARG_UTILS, "", "AsyncEngineArgs", _WHY),
    *names("usage/usage_lib.py", "UsageContext", "OPENAI_API_SERVER", _WHY),
    *names("utils/argparse_utils.py", "", "FlexibleArgumentParser", _WHY),
    *names("platforms/cuda.py", "", "NvmlCudaPlatform", "GPUs are named without CUDA"),
    Called(
        "platforms/cuda.py",
        "NvmlCudaPlatform.get_device_name",
        "GPUs are named without CUDA",
        "cls, _",
    ),
    *names(paths.COMPILATION, "CompilationConfig", "max_cudagraph_capture_size", _WHY),
    *names(paths.COMPILATION, "CUDAGraphMode", "mixed_mode decode_mode separate_routine", _WHY),
)
