"""Where the plugin hangs in vLLM: methods of EngineCore's process, patched once.

``register`` runs in every vLLM process, several times, before most modules exist and before forks.
So nothing starts here, and a module that isn't imported yet is patched when it is.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..settings import Settings
from .adapter import missing_hook
from .choose import current
from .patch_on_import import PatchOnImport

logger = logging.getLogger("vllm.lazygraph")

EXECUTOR_MODULE = "vllm.v1.executor.abstract"
CORE_MODULE = "vllm.v1.engine.core"
# What ``vllm snapshot create`` starts, as ``sys.argv`` has it in all of its processes.
SNAPSHOT = "vllm/snapshot/server.py"
CORE_HOOKS = (
    "run_busy_loop",
    "_handle_client_request",
    "_process_input_queue",
    "_process_engine_step",
)


class _EnginePatches(PatchOnImport):
    """Ours of this module: there may be others' beside it."""


def install(settings: Settings) -> None:
    """Patch now what is imported, the rest when it is; does nothing the second time."""
    if any(isinstance(finder, _EnginePatches) for finder in sys.meta_path):
        return
    patches: dict[str, Callable[[ModuleType], None]] = {
        EXECUTOR_MODULE: functools.partial(_patch_executor, settings=settings),
        CORE_MODULE: _patch_core,
    }
    for name in list(patches):
        if (module := sys.modules.get(name)) is not None:
            patches.pop(name)(module)
    sys.meta_path.insert(0, _EnginePatches(patches))


def _patch_executor(module: ModuleType, settings: Settings) -> None:
    """Start with the executor, and stand between allocating the KV cache and capturing."""
    executor_class: Any = getattr(module, "Executor", None)
    if reason := missing_hook(executor_class, ("collective_rpc",)):
        logger.warning("lazygraph: running as stock: %s", reason)
        return
    adapter = current()
    missing = missing_hook(executor_class, ("determine_available_memory",))
    missing = missing or adapter.warm_up_hook(executor_class)
    init = executor_class.__init__

    @functools.wraps(init)
    def patched_init(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        agent = _make_agent(settings, vllm_config, missing or _core_reason())
        if agent is None:
            init(self, vllm_config, *args, **kwargs)
            return
        self.lazygraph = agent
        starts_children_by_fork = _forks(self)
        if not starts_children_by_fork:
            agent.begin()  # connects while weights load
        init(self, vllm_config, *args, **kwargs)
        if starts_children_by_fork:
            agent.begin()  # a fork must not copy a running thread's locks

    executor_class.__init__ = patched_init
    if missing:
        return  # the engine's agent says so, to the log and to its controller
    determine = executor_class.determine_available_memory

    def warm_up_around(self: Any, warm_up: Callable[[], Any]) -> Any:
        agent = getattr(self, "lazygraph", None)
        if agent is None:
            return warm_up()
        agent.before_capture(self.collective_rpc)
        result = warm_up()
        agent.after_capture(self.collective_rpc)
        return result

    @functools.wraps(determine)
    def patched_determine(self: Any, *args: Any, **kwargs: Any) -> Any:
        agent = getattr(self, "lazygraph", None)
        if agent is None:
            return determine(self, *args, **kwargs)
        agent.before_sizing(self.collective_rpc)
        result = determine(self, *args, **kwargs)
        agent.after_sizing(self.collective_rpc)
        return result

    executor_class.determine_available_memory = patched_determine
    adapter.wrap_warm_up(executor_class, warm_up_around)


def _make_agent(settings: Settings, vllm_config: Any, missing: str | None) -> Any:
    """The engine's agent; ``None`` where there must be none, or it can't read the configuration."""
    if "".join(sys.argv[:1]).endswith(SNAPSHOT):
        # Its images hold no connection to outside, and one of a link would end their making.
        logger.warning("lazygraph: running as stock: not supported: vllm snapshot")
        return None
    from vllm.version import __version__ as vllm_version

    from ..engine.agent import Agent

    try:
        return Agent(settings, vllm_config, vllm_version, missing)
    except Exception as error:
        # No fault of ours may keep an engine from starting that would start without us.
        reason = f"{type(error).__name__}: {error}"
        logger.warning("lazygraph: running as stock: can't read the configuration: %s", reason)
        return None


def _forks(executor: Any) -> bool:
    import vllm.envs as envs

    several = "Multiproc" in type(executor).__name__
    return several and envs.VLLM_WORKER_MULTIPROC_METHOD != "spawn"


def _core_reason() -> str | None:
    """Why this process's engine can't run commands: then it must not start with fewer graphs."""
    module = sys.modules.get(CORE_MODULE)
    return missing_hook(getattr(module, "EngineCoreProc", module), CORE_HOOKS)


def _patch_core(module: ModuleType) -> None:
    """Run commands between steps, and see where the engine is idle."""
    core_class: Any = getattr(module, "EngineCoreProc", None)
    if missing_hook(core_class, CORE_HOOKS):
        return  # the executor's hook asks again, says so once and leaves this engine to vLLM
    run, handle = core_class.run_busy_loop, core_class._handle_client_request
    process_input, process_step = core_class._process_input_queue, core_class._process_engine_step

    def agent_of(engine: Any) -> Any:
        return getattr(engine.model_executor, "lazygraph", None)

    @functools.wraps(run)
    def run_busy_loop(self: Any) -> Any:
        agent = agent_of(self)
        if agent is None:
            return run(self)
        agent.attach(self, module.EngineCoreRequestType.WAKEUP)
        try:
            return run(self)
        finally:
            agent.detach()

    @functools.wraps(handle)
    def handle_client_request(self: Any, request_type: Any, request: Any) -> Any:
        from ..engine.inbox import Command

        if isinstance(request, Command):
            agent_of(self).execute(self, request)
            return None
        result = handle(self, request_type, request)
        agent = agent_of(self)
        if agent is not None:
            agent.on_request(self)
        if agent is not None and not self.has_work() and self.is_running():
            # vLLM goes on waiting without leaving its loop: a wake-up or an end of a pause is
            # the moment to ask again.
            agent.on_idle(self)
        return result

    @functools.wraps(process_input)
    def process_input_queue(self: Any) -> Any:
        agent = agent_of(self)
        if agent is None:
            return process_input(self)
        if not self.has_work() and self.is_running():
            agent.on_idle(self)
        result = process_input(self)
        agent.on_work(self)
        return result

    @functools.wraps(process_step)
    def process_engine_step(self: Any) -> Any:
        result = process_step(self)
        agent = agent_of(self)
        if agent is not None:
            agent.after_step(self)
        return result

    core_class.run_busy_loop = run_busy_loop
    core_class._handle_client_request = handle_client_request
    core_class._process_input_queue = process_input_queue
    core_class._process_engine_step = process_engine_step
