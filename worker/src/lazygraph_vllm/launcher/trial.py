"""Tries in a child what would be for good in the launcher: a fork can be thrown away."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

Step = Callable[[], object]

SECONDS = 120.0
"""For all children together. Each has half of what is left, then it counts as harmful."""
ANSWER_BYTES_MAX = 1 << 16
STEPS_MAX = 1024
"""So that the names of all fit into an answer."""


def harmless(
    steps: Mapping[str, Step], forkable: Callable[[], object], seconds: float = SECONDS
) -> list[str]:
    """Which of these a process can do that is to be forked later, in order.

    Left out is what raises, and whatever it takes for a child that has done the others to be alive,
    without another thread, and forkable.

    Args:
        steps: by name.
        forkable: raises if this process can't be forked any more.
        seconds: for all of it; what could not be tried by then is left out.

    Raises:
        OSError: no child can be had.
    """
    return _harmless([], list(steps.items())[:STEPS_MAX], forkable, time.monotonic() + seconds)


def _harmless(
    done: Sequence[tuple[str, Step]],
    steps: Sequence[tuple[str, Step]],
    forkable: Callable[[], object],
    until: float,
) -> list[str]:
    """Which of ``steps`` do no harm after ``done``: two may do so together that don't alone."""
    left = until - time.monotonic()
    if not steps or left <= 0:
        return []
    failed = _try([*done, *steps], forkable, left / 2)
    if failed is not None:
        return [name for name, _ in steps if name not in failed]
    if len(steps) == 1:
        return []
    half = len(steps) // 2
    first = _harmless(done, steps[:half], forkable, until)
    before = [*done, *(step for step in steps[:half] if step[0] in first)]
    return [*first, *_harmless(before, steps[half:], forkable, until)]


def _try(
    steps: Sequence[tuple[str, Step]], forkable: Callable[[], object], seconds: float
) -> frozenset[str] | None:
    """Names of what raised in a child; ``None``: that child would be no launcher."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # Whoever ends this process without a word ends the child as well, if later.
            signal.alarm(math.ceil(seconds))
            os.setpgid(0, 0)
            os.close(told)
            _silence()
            _report(tell, steps, forkable)
            code = 0
        finally:
            os._exit(code)
    os.setpgid(pid, pid)  # whichever of the two comes first
    os.close(tell)
    try:
        answer = _read(told, time.monotonic() + seconds)
    finally:
        os.close(told)
        # It has answered, or hangs; what it, or a child of its own, is still doing is nobody's.
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        body = json.loads(answer)
    except ValueError:
        return None
    return None if body is None else frozenset(body)


def _report(tell: int, steps: Sequence[tuple[str, Step]], forkable: Callable[[], object]) -> None:
    before = _threads()
    failed = []
    for name, step in steps:
        try:
            step()
        except Exception:
            failed.append(name)
    answer: list[str] | None = failed
    try:
        forkable()
    except Exception:
        answer = None
    if _threads() > before:
        answer = None
    os.write(tell, json.dumps(answer).encode())


def _threads() -> int:
    """Of this process, those that Python doesn't know too."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def _silence() -> None:
    """What it warns of, the launcher will, if it does the same; it has no input to take."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    sys.stdout.flush()
    sys.stderr.flush()


def _read(told: int, until: float) -> bytes:
    data = b""
    while len(data) < ANSWER_BYTES_MAX:
        left = until - time.monotonic()
        if left <= 0 or not select.select([told], [], [], left)[0]:
            return b""
        part = os.read(told, 4096)
        if not part:
            break
        data += part
    return data
