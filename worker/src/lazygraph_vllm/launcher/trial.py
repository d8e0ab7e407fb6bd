"""Tries in a child what would be for good in the launcher: a fork can be thrown away."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Step = Callable[[], object]

SECONDS = 120.0
"""For all children together. Each has half of what is left, then it counts as harmful."""
ANSWER_BYTES_MAX = 1 << 20
STEPS_MAX = 1024
REASON_LENGTH_MAX = 200
"""So that names and reasons of all fit into an answer."""


def harmful(
    steps: Mapping[str, Step], forkable: Callable[[], object], seconds: float = SECONDS
) -> dict[str, str]:
    """What of these, done in order, a process can't do that is to be forked later, and why.

    Left out is what raises, and whatever it takes for a child that has done the others to be alive,
    without another thread, and forkable.

    Args:
        steps: by name.
        forkable: raises if this process can't be forked any more.
        seconds: for all of it; what could not be tried by then is left out.

    Raises:
        OSError: no child can be had.
    """
    every = list(steps.items())
    found = _harmful([], every[:STEPS_MAX], forkable, time.monotonic() + seconds)
    return found | {name: f"more than {STEPS_MAX} steps" for name, _ in every[STEPS_MAX:]}


def _harmful(
    done: Sequence[tuple[str, Step]],
    steps: Sequence[tuple[str, Step]],
    forkable: Callable[[], object],
    until: float,
) -> dict[str, str]:
    """Which of ``steps`` do harm after ``done``: two may do so together that don't alone."""
    left = until - time.monotonic()
    if not steps:
        return {}
    if left <= 0:
        return {name: "no time left to try it" for name, _ in steps}
    raised, harm = _try([*done, *steps], forkable, left / 2)
    if harm is None:
        return {name: raised[name] for name, _ in steps if name in raised}
    if len(steps) == 1:
        return {steps[0][0]: harm}
    half = len(steps) // 2
    first = _harmful(done, steps[:half], forkable, until)
    before = [*done, *(step for step in steps[:half] if step[0] not in first)]
    return first | _harmful(before, steps[half:], forkable, until)


def _try(
    steps: Sequence[tuple[str, Step]], forkable: Callable[[], object], seconds: float
) -> tuple[Mapping[str, str], str | None]:
    """What raised in a child, by name, and why that child would be no launcher, if it wouldn't."""
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
        raised, harm = json.loads(answer)
    except ValueError:
        return {}, f"a child that did it ended, or gave no answer for {seconds:.0f} s"
    return raised, harm


def _report(tell: int, steps: Sequence[tuple[str, Step]], forkable: Callable[[], object]) -> None:
    before = _threads()
    raised = {}
    for name, step in steps:
        try:
            step()
        except Exception as error:
            raised[name] = reason(error)
    harm = None
    try:
        forkable()
    except Exception as error:
        harm = reason(error)
    if more := [name for thread, name in _threads().items() if thread not in before]:
        # By name, which says whose they are: torch's of its autograd, for one, are pt_autograd_0 ….
        harm = f"it leaves {len(more)} thread{'s' if len(more) > 1 else ''}, {', '.join(more)}"
        harm = harm[:REASON_LENGTH_MAX]
    # Bounded by the number of steps and the length of a reason.
    data = json.dumps([raised, harm]).encode()
    while data:
        data = data[os.write(tell, data) :]


def reason(error: Exception) -> str:
    """What went wrong, in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH_MAX]


def _threads() -> dict[str, str]:
    """Names of this process's threads, those that Python doesn't know too, by the system's ids."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found[thread] = Path(f"/proc/self/task/{thread}/comm").read_text().strip()
    return found or {str(thread.native_id): thread.name for thread in threading.enumerate()}


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
