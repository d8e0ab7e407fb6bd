"""A stand-in for vLLM: what a launcher of the tests imports and calls."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

print("an import says something")
IMPORTED_BY = os.getpid()
READ_AT_IMPORT = os.environ.get("STAND_IN_READS")
READ_ALL = [dict(os.environ), os.environ.copy(), [*os.environ.items()]]
os.environ["STAND_IN_SETS"] = "by its import"


def descriptors() -> dict[str, str]:
    """What is open, without the folder that is being listed."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


def told() -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    return {
        "argv": sys.argv,
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "word": os.environ.get("WORD"),
        "sets": os.environ.get("STAND_IN_SETS"),
        "method": os.environ.get("VLLM_WORKER_MULTIPROC_METHOD"),
        "forked": os.getpid() != IMPORTED_BY,
        "leads": os.getpgid(0) == os.getpid(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "umask": mask,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "hangup": str(signal.getsignal(signal.SIGHUP)),
        "draws": random.random(),
        "fds": descriptors(),
    }


def main() -> object:
    words = sys.argv[2:]
    if "quiet" not in words:
        print(json.dumps(told()))
    if "read" in words:
        print(sys.stdin.read())
    sys.stdout.flush()
    print("to stderr", file=sys.stderr, flush=True)
    if "wait" in words:
        # Blocked and waited for: a handler isn't run where the signal comes just before a sleep.
        numbers = (signal.SIGUSR1, signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        print("waits", flush=True)
        while True:
            print(f"got {int(signal.sigwait(numbers))}", flush=True)
    if "stray" in words and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("stray", flush=True)
        time.sleep(600)
    if "child" in words:
        subprocess.run([sys.executable, "-c", "print('of a child')"], check=True)
    if "raise" in words:
        raise RuntimeError("as an uncaught error ends a process")
    if "kill" in words:
        os.kill(os.getpid(), signal.SIGKILL)
    if "touch" in words:
        Path(words[words.index("touch") + 1]).touch()
    return int(words[-1]) if words and words[-1].isdigit() else None
