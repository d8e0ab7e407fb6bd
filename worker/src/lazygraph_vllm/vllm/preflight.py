"""What vLLM makes of a command line, asked in a process that never touches a GPU.

Its own parser and its own configuration classes answer: nothing of them is rebuilt here. No weights
are loaded, no CUDA context is made, and nothing is fetched.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from .adapter import Adapter, graph_mode_reason, missing_hook
from .engine_hooks import CORE_HOOKS, CORE_MODULE, EXECUTOR_MODULE

# Where ``vllm serve`` has its parser: since 0.33, since 0.29, and before.
PARSER_MODULES = (
    "vllm.entrypoints.common.cli_args",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.openai.cli_args",
)
# What Hugging Face's libraries raise where a file is not in their cache and they may not fetch it.
NOT_HERE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled")


class NotToldError(Exception):
    """What the command would do can't be told here; the message is the reason, a sentence."""


def version() -> str:
    """The version of the vLLM of this Python.

    Raises:
        NotToldError: there is none, or it can't be imported.
    """
    try:
        from vllm.version import __version__
    except Exception as error:
        raise NotToldError(f"this Python can't import vLLM: {one_line(error)}") from error
    return str(__version__)


def missing_hooks(adapter: Adapter) -> str | None:
    """What this vLLM lacks, or has changed, of the hooks that the plugin needs, as a sentence."""
    executor = getattr(importlib.import_module(EXECUTOR_MODULE), "Executor", None)
    core = getattr(importlib.import_module(CORE_MODULE), "EngineCoreProc", None)
    return (
        missing_hook(executor, ("collective_rpc", "determine_available_memory"))
        or adapter.warm_up_hook(executor)
        or missing_hook(core, CORE_HOOKS)
        or adapter.missing()
    )


# ------------------------------------------------------------------ configuration


def engine_config(words: Sequence[str]) -> Any:
    """VLLM's ``VllmConfig`` for a command line, as its server makes it before it starts an engine.

    Args:
        words: ``serve MODEL …`` as after ``vllm``, or options as after the API server's module.

    Raises:
        NotToldError: vLLM sees no GPU, refuses the words, or the model isn't on this machine.
    """
    _need_platform()
    arguments = _parse(list(words))
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    # The defaults of batch sizes depend on who asks.
    asks = {"usage_context": UsageContext.OPENAI_API_SERVER, "headless": arguments.headless}
    try:
        return AsyncEngineArgs.from_cli_args(arguments).create_engine_config(**asks)
    except Exception as error:
        if any(type(each).__name__ in NOT_HERE for each in _causes(error)):
            raise NotToldError(
                f"the configuration of {arguments.model} is not on this machine, and nothing is "
                f"fetched here: `hf download {arguments.model} --include '*.json'` brings it"
            ) from error
        raise NotToldError(f"vLLM makes no configuration of this: {one_line(error)}") from error


def _need_platform() -> None:
    from vllm.platforms import current_platform

    if not current_platform.device_type:
        raise NotToldError("vLLM sees no GPU here, and makes no configuration without one")
    if current_platform.is_cuda() and not _has_nvml():
        raise NotToldError("NVML doesn't answer here, and CUDA is not asked in its place")


def _parse(words: list[str]) -> Any:
    parser, _, module = _parsers(words)
    return _parse_with(parser, module, words)


def _parsers(words: Sequence[str]) -> tuple[Any, Any, ModuleType]:
    """VLLM's parser, the one in it that has the server's options, and where they are from."""
    module = _parser_module()
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise NotToldError(f"vLLM refuses these arguments: {message}")

    parser = options = Parser(prog="vllm")
    if words[:1] == ["serve"]:
        options = parser.add_subparsers(dest="subparser").add_parser("serve")
    module.make_arg_parser(options)
    return parser, options, module


def _parse_with(parser: Any, module: ModuleType, words: list[str]) -> Any:
    try:
        arguments = parser.parse_args(words)
        module.validate_parsed_serve_args(arguments)
    except NotToldError:
        raise
    except SystemExit as end:
        raise NotToldError("this command prints its help and starts no engine") from end
    except Exception as error:
        raise NotToldError(f"vLLM refuses these arguments: {one_line(error)}") from error
    if getattr(arguments, "model_tag", None) is not None:
        arguments.model = arguments.model_tag
    return arguments


def ignored(words: Sequence[str], config: Any) -> list[str]:
    """What a file of ``--config`` says and vLLM doesn't heed, as sentences without full stops.

    All of it where it is given as ``--config=FILE``, which is parsed, and not read. Of ``vllm
    serve``, vLLM 0.33 looks for ``--no-KEY`` among the options of ``vllm`` itself, which hasn't got
    it, and drops the line. Its own reading is asked, since versions differ.

    Args:
        words: as for ``engine_config``.
        config: what that made of them.

    Raises:
        NotToldError: vLLM refuses the words, or has its parser elsewhere.
    """
    words = list(words)
    if "--config" not in words[:-1]:
        return _unread(words)
    path = words[words.index("--config") + 1]
    parser, options, module = _parsers(words)
    arguments = _parse_with(parser, module, words)
    taken, actions = parser.load_config_file(path), options._option_string_actions
    found = []
    for key in _turned_off(path):
        name = key.replace("_", "-")
        action, off = actions.get(f"--{name}"), f"no-{name}"
        if action is None or f"--{off}" not in actions or f"--no-{key}" in taken:
            continue
        given = getattr(arguments, action.dest)
        # Another value than the default is one that somebody gave behind the file.
        if given != action.default or not _resolved(config, action.dest, given):
            continue
        found.append(f"{key}: false in {path} has no effect with this vLLM; {off}: true has it")
    return found


def _unread(words: list[str]) -> list[str]:
    """``--config=FILE``, unless vLLM makes the same of it as of ``--config FILE``."""
    at = next((at for at, word in enumerate(words) if word.startswith("--config=")), None)
    if at is None:
        return []
    path = words[at].partition("=")[2]
    readable = [*words[:at], "--config", path, *words[at + 1 :]]
    try:
        # vLLM itself changes the words that it is handed.
        read = {**vars(_parse(readable)), "config": None}
        if read == {**vars(_parse(list(words))), "config": None}:
            return []
    except NotToldError:
        pass  # A file that vLLM would refuse isn't read either, or it had refused these words.
    return [f"{words[at]} has no effect with this vLLM; --config {path} has it"]


def _resolved(config: Any, name: str, given: Any) -> Any:
    """What became of an option that may be left to vLLM, by the part of its configuration."""
    for part in vars(config).values():
        if hasattr(part, name):
            return getattr(part, name)
    return given


def _turned_off(path: str) -> list[str]:
    import yaml  # type: ignore[import-untyped]

    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    items = content.items() if isinstance(content, dict) else ()
    return [str(key) for key, value in items if value is False]


def _parser_module() -> ModuleType:
    for path in PARSER_MODULES:
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            if not path.startswith(error.name or "-"):
                raise  # What is missing is something that vLLM itself imports.
    raise NotToldError("this vLLM has its parser in a place that is not known")


# ------------------------------------------------------------------ graphs and GPUs


def graphs_reason(config: Any) -> str | None:
    """Why there is nothing to capture; ``None`` if there is."""
    if reason := graph_mode_reason(config.compilation_config.cudagraph_mode):
        return reason
    return None if planned(config) else "vLLM has no graph to capture here"


def planned(config: Any) -> dict[str, int]:
    """How many graphs vLLM plans of each kind.

    As its manager counts them where all requests of a decode step have as many tokens. Each adapter
    case has its own; a drafter's go along with the target's and aren't counted. The attention
    backend, which is chosen at the start, may allow fewer kinds.
    """
    compilation = config.compilation_config
    mode, sizes = compilation.cudagraph_mode, compilation.cudagraph_capture_sizes or []
    graphs: Counter[str] = Counter()
    graphs[mode.mixed_mode().name] += len(sizes)
    if mode.separate_routine():
        each = 1 + (getattr(config, "num_speculative_tokens", 0) or 0)
        requests = config.scheduler_config.max_num_seqs
        largest = min(requests * each, compilation.max_cudagraph_capture_size or 0)
        rounded = {-(-size // each) * each for size in sizes}
        graphs[mode.decode_mode().name] += sum(size <= largest for size in rounded)
    cases = _adapter_cases(config)
    return {
        kind: count * cases for kind, count in sorted(graphs.items()) if count and kind != "NONE"
    }


def _adapter_cases(config: Any) -> int:
    if config.lora_config is None:
        return 1
    from vllm.v1.worker.gpu.lora_utils import get_lora_capture_cases

    return len(get_lora_capture_cases(config.lora_config, config.compilation_config))


def gpu_names(config: Any) -> list[str]:
    """The GPUs that the ranks would have, by NVML, as CUDA would name them.

    Raises:
        NotToldError: they can't be known without CUDA.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        raise NotToldError("vLLM's platform here is not CUDA")
    try:
        ranks = range(config.parallel_config.world_size)
        return [str(current_platform.get_device_name(rank)) for rank in ranks]
    except Exception as error:
        raise NotToldError(f"NVML doesn't name them: {one_line(error)}") from error


def _has_nvml() -> bool:
    """VLLM's other platform for CUDA asks torch, which would make a context."""
    from vllm.platforms import current_platform
    from vllm.platforms.cuda import NvmlCudaPlatform

    return isinstance(current_platform, NvmlCudaPlatform)


# ------------------------------------------------------------------ errors


def one_line(error: BaseException) -> str:
    """An error in one line: those of vLLM's configuration have several, and what pydantic adds."""
    text = re.sub(r" \[type=.*\n +For further information .*", "", str(error))
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):  # A chain may close on itself.
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
