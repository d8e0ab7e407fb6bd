"""Loads what a server needs, and finds out what that did to this process."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..vllm.tokenizer import keep_tokenizer
from . import refusal, trial
from .refusal import RefusedError

MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.model_executor.model_loader.dummy_loader",
)
MAIN = "vllm.entrypoints.cli.main:main"
"""What a server calls, with the command's words in ``sys.argv``."""

CUDA_ERROR_NOT_INITIALIZED = 3
"""What ``cuInit`` answers in the child of a process that has called it."""
CHILD_CAN, CHILD_CANNOT = 0, 3


@dataclass(frozen=True)
class Preloaded:
    """What the imports came to.

    Attributes:
        seconds: how long they took.
        read: names of variables that modules outside the standard library have read.
        changed: variables that they have set, or removed (``None``).
        left_out: names of the steps that were not done, and why.
    """

    seconds: float
    read: frozenset[str]
    changed: Mapping[str, str | None]
    left_out: Mapping[str, str] = field(default_factory=dict)


def preload(
    modules: Sequence[str],
    tokenizers: Sequence[str] = (),
    steps: Mapping[str, trial.Step] | None = None,
) -> Preloaded:
    """Import ``modules``, do those ``steps`` that are harmless, and load these folders' tokenizers.

    Args:
        modules: all of them are needed.
        tokenizers: folders.
        steps: by name, as ``later.steps()`` has them.

    Raises:
        RefusedError: one can't be imported or loaded, or left something that a child can't do
            without.
    """
    before = dict(os.environ)
    read: set[str] = set()
    began = time.monotonic()
    steps = steps or {}
    with _reads_noted(read):
        for name in modules:
            try:
                importlib.import_module(name)
            except Exception as error:
                raise RefusedError(
                    refusal.FAILED,
                    f"Expected to import {name} with {sys.executable}, got "
                    f"{type(error).__name__}: {error}: run the launcher with vLLM's own Python.",
                ) from error
        left_out = trial.harmful(steps, lambda: _check_forkable(modules))
        for name in [name for name in steps if name not in left_out]:
            try:
                steps[name]()
            except Exception as error:
                # It has just been done in a child: this is a matter of the moment.
                left_out[name] = trial.reason(error)
        for folder in tokenizers:
            try:
                keep_tokenizer(folder)
            except Exception as error:
                raise RefusedError(
                    refusal.FAILED,
                    f"Expected a tokenizer in {folder}, got {trial.reason(error)}: "
                    "name a model's folder, or leave it out.",
                ) from error
    seconds = time.monotonic() - began
    _check_forkable(modules)
    changed: dict[str, str | None] = {
        name: value for name, value in os.environ.items() if before.get(name) != value
    }
    changed |= {name: None for name in before if name not in os.environ}
    return Preloaded(seconds, frozenset(read), changed, left_out)


@contextlib.contextmanager
def _reads_noted(names: set[str]) -> Iterator[None]:
    """Note which variables are looked up, by anything but the standard library.

    That reads for itself (a folder for temporary files, a program on the path), and what it keeps
    a server is given anew. Whoever takes them all, for a child process or to look for a prefix,
    reads none of them.
    """
    owner = type(os.environ)
    look_up, iterate = owner.__getitem__, owner.__iter__
    library = (sysconfig.get_path("stdlib"), "<frozen ")
    packages = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    listed: dict[int, str] = {}

    def noted_look_up(self: os._Environ[str], key: str) -> str:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_OS_FILES):
            frame = frame.f_back
        file = frame.f_code.co_filename
        ours = file.startswith(packages) or not file.startswith(library)
        # The very object that a listing has given out: whoever lists doesn't ask for it.
        if ours and isinstance(key, str) and id(key) not in listed:
            names.add(key)
        return look_up(self, key)

    def noted_iterate(self: os._Environ[str]) -> Iterator[str]:
        for key in iterate(self):
            listed[id(key)] = key
            yield key

    owner.__getitem__ = noted_look_up  # type: ignore[method-assign]
    owner.__iter__ = noted_iterate  # type: ignore[method-assign]
    try:
        yield
    finally:
        owner.__getitem__ = look_up  # type: ignore[method-assign]
        owner.__iter__ = iterate  # type: ignore[method-assign]


_OS_FILES = (os.__file__, "<frozen os>", "<frozen _collections_abc>")


def _check_forkable(modules: Sequence[str]) -> None:
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or child_lacks_cuda():
        raise RefusedError(
            refusal.CUDA,
            "Expected imports that leave CUDA's driver alone, got it initialised by one of "
            f"{', '.join(modules)}: no fork could use a GPU; start servers without a launcher.",
        )
    plugins = sys.modules.get("vllm.plugins")
    if plugins is not None and plugins.plugins_loaded:
        # Each server must load them by its own variables, and vLLM does it once per process.
        raise RefusedError(
            refusal.FAILED,
            "Expected no plugin of vLLM loaded by its imports, got them loaded: "
            "start servers without a launcher.",
        )
    if others := [t.name for t in threading.enumerate() if t is not threading.main_thread()]:
        raise RefusedError(
            refusal.FAILED,
            f"Expected imports that start no thread, got {', '.join(others)}: a fork would copy "
            "its locks; start servers without a launcher.",
        )


def child_lacks_cuda(driver: str = "libcuda.so.1") -> bool:
    """Whether a forked child is refused by CUDA's driver, because this process initialised it.

    Asked of a child, since nothing that can be seen here tells: NVML opens the same device files as
    the driver on some hosts. Where there is no driver, nothing is refused.
    """
    pid = os.fork()
    if pid == 0:
        code = CHILD_CAN
        with contextlib.suppress(OSError):
            if ctypes.CDLL(driver).cuInit(0) == CUDA_ERROR_NOT_INITIALIZED:
                code = CHILD_CANNOT
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == CHILD_CANNOT
