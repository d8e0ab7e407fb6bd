"""Writes spans as JSON lines, two files for each process: what has ended, and what has begun.

Seconds are ``CLOCK_MONOTONIC``'s, which all processes of a host share with whoever started them.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPANS_MAX = 10_000
"""Of each process: a start has some hundred."""

KINDS = ("spans", "begun")
"""What a process's two files are called by."""


class Recorder:
    """A folder's writer, in this process and in those forked from it."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._pid = 0
        self._fds: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._imported: tuple[int, float] | None = None
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()  # the parent's may be held by a thread that isn't here

    def imported(self) -> None:
        """Note once for each process what it spent before plugins were loaded."""
        now = time.monotonic()
        self.write("imports", process_began(), now)
        self._imported = (os.getpid(), now)

    def configured(self, begin: float) -> None:
        """Note what a command spent from there to its configuration: its words are read.

        Plugins are loaded while vLLM's parser is being made. Once, and not in what was forked.
        """
        pid, imported = self._imported or (0, 0.0)
        self._imported = None
        if pid == os.getpid():
            self.write("command line", imported, begin)

    def engine_begins(self, begin: float) -> None:
        """Note what an engine's process spent until then, without its imports: forked, it has none.

        Its beginning is the end of what the API server does before, which is no phase of its own.
        """
        pid, imported = self._imported or (0, 0.0)
        since = imported if pid == os.getpid() else process_began()
        self.write("engine process", since, begin)

    def write(
        self, name: str, begin: float, end: float, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Add a span. A folder that can't be written costs the figures, never the engine."""
        self._line("spans", {"name": name, "begin": begin, "end": end, **(detail or {})})

    def begun(self, name: str, begin: float) -> None:
        """Note that a span has begun: who watches a start wants to know before it has ended."""
        self._line("begun", {"name": name, "begin": begin})

    def _line(self, kind: str, body: Mapping[str, Any]) -> None:
        with self._lock:
            try:
                if self._pid != os.getpid():
                    self._open()
                if self._left.get(kind, 0) > 0:
                    self._left[kind] -= 1
                    os.write(self._fds[kind], json.dumps(body).encode() + b"\n")
            except OSError:
                self._left = {}

    def _open(self) -> None:
        self._pid = os.getpid()
        self._left = dict.fromkeys(KINDS, SPANS_MAX)
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}
        for kind in KINDS:
            path = self._folder / f"{kind}-{self._pid}.jsonl"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fds[kind] = os.open(path, flags, 0o644)


def process_began(pid: int | None = None) -> float:
    """When a process, or this one, was made; to a hundredth of a second, as the kernel keeps it."""
    with open(f"/proc/{'self' if pid is None else pid}/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age
