"""Puts a clock around vLLM's functions of a start, those of modules that come later too."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..vllm.patch_on_import import PatchOnImport
from .phases import CONFIG, ENGINE, PHASES, Phase, detail
from .recorder import Recorder

logger = logging.getLogger("vllm.lazygraph")

FOLDER = "LAZYGRAPH_STARTUP_DIR"
_inside = threading.local()
_recorder: Recorder | None = None


def install() -> None:
    """Do so if the environment names a folder; the second time nothing happens."""
    global _recorder
    folder = os.environ.get(FOLDER, "").strip()
    if not folder or _recorder is not None:
        return
    if not os.path.isdir(folder):
        logger.warning("lazygraph: expected %s to be a folder, got %r: not timed", FOLDER, folder)
        return
    _recorder = Recorder(folder)
    _recorder.imported()
    patches: dict[str, Callable[[ModuleType], None]] = {}
    for name in {phase.module for phase in PHASES}:
        phases = [phase for phase in PHASES if phase.module == name]
        patches[name] = functools.partial(_time, phases=phases, recorder=_recorder)
    for name in list(patches):
        if (module := sys.modules.get(name)) is not None:
            patches.pop(name)(module)
    sys.meta_path.insert(0, PatchOnImport(patches))


def _time(module: ModuleType, phases: list[Phase], recorder: Recorder) -> None:
    for phase in phases:
        owner: Any = module
        *containers, name = phase.path.split(".")
        for container in containers:
            owner = getattr(owner, container, None)
        function = getattr(owner, name, None)
        if function is None:
            logger.info("lazygraph: this vLLM lacks %s.%s: not timed", phase.module, phase.path)
            continue
        setattr(owner, name, timed(phase, function, recorder))


def timed(phase: Phase, function: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    """The function, with a span for each call that isn't inside of a leaf's."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic()
            recorder.begun(phase.name, begin)
            try:
                return await function(*args, **kwargs)
            finally:
                recorder.write(phase.name, begin, time.monotonic())

        return wait

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if getattr(_inside, "leaf", False):
            return function(*args, **kwargs)
        _inside.leaf = phase.leaf
        begin = time.monotonic()
        if phase.name == CONFIG:
            recorder.configured(begin)
        elif phase.name == ENGINE:
            recorder.engine_begins(begin)
        recorder.begun(phase.name, begin)
        try:
            return function(*args, **kwargs)
        finally:
            end = time.monotonic()
            _inside.leaf = False
            recorder.write(phase.name, begin, end, detail(phase, args[0] if args else None))

    return run
