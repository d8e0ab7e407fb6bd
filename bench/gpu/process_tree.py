"""What is below a process: an engine outlives whoever began it, and keeps its GPU memory."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

# Far longer than a process that holds a GPU takes to end.
END_SECONDS_MAX = 30.0


def descendants(pid: int) -> list[int]:
    """Those that there are now, whichever thread has started them."""
    found = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def running(pid: int) -> bool:
    """A zombie isn't: its memory is free, and who inherits it may not have waited yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_below(pid: int) -> None:
    """End them, and not the process itself; returns once they have ended, 30 s later at most.

    A signal only asks: a process goes on, with all that it holds, until it is next run.
    """
    killed: set[int] = set()
    end = time.monotonic() + END_SECONDS_MAX
    while True:
        # Each once, as its number may be another's later; and those that were begun meanwhile.
        for each in set(descendants(pid)) - killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
            killed.add(each)
        if not any(map(running, killed)) or time.monotonic() > end:
            return
        time.sleep(0.005)
