"""Turns a forked process into what a spawned one would have been, before vLLM's ``main``."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from .request import Request, child_environment


def become(
    request: Request, words: list[str], fds: list[int], changed: Mapping[str, str | None]
) -> None:
    """Take over the client's files, folder, variables, limits and signals.

    Raises:
        OSError: one of them can't be had in this process.
        ValueError: likewise.
    """
    os.setsid()
    for source, target in zip(fds, (0, 1, 2), strict=True):
        os.dup2(source, target)
        os.close(source)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in request.ignored:
        signal.signal(ignored, signal.SIG_IGN)
    os.chdir(request.cwd)
    os.umask(request.umask)
    os.sched_setaffinity(0, request.cpus)
    for name, (soft, hard) in request.limits.items():
        if resource.getrlimit(int(name)) != (soft, hard):
            resource.setrlimit(int(name), (soft, hard))
    if os.getpriority(os.PRIO_PROCESS, 0) != request.nice:
        os.setpriority(os.PRIO_PROCESS, 0, request.nice)
    os.environ.clear()
    os.environ.update(child_environment(request.env, changed))
    time.tzset()
    tempfile.tempdir = None  # it may have been looked up by other variables
    _draw_anew()
    _reopen()
    _name([request.argv[0], *words])
    sys.argv = [request.argv[0], *words]


def entry(main: str) -> Callable[[], Any]:
    """The function that ``MODULE:FUNCTION`` names."""
    module, _, name = main.partition(":")
    function: Callable[[], Any] = getattr(importlib.import_module(module), name)
    return function


def _draw_anew() -> None:
    """Python's own random numbers are seeded anew by every fork; NumPy's and torch's are not."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.seed()  # the CPU's; torch.seed() would speak to CUDA


def _reopen() -> None:
    """Buffer as a process does that begins with these files; what imports keep of them stays."""
    for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(line_buffering=fd == 2 or os.isatty(fd))  # type: ignore[union-attr]


def _name(command: list[str]) -> None:
    """What `ps` shows; vLLM requires the package."""
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(" ".join(command))
