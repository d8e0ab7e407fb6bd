"""What a launcher must leave alone and clean, on a real engine: prints one JSON document.

    python3 bench/gpu/launcher_checks.py --launcher-pid PID --socket SOCKET --starts N \
        [--kill-after SECONDS ...] [--gpu INDEX] -- vllm serve MODEL [arguments]

| check | holds when |
|---|---|
| tokens | greedy answers of every forked server equal those of a spawned one, one request at a time |
| leaks | after all starts the launcher has the files and children of before, and no zombie |
| growth | its resident memory has grown by at most a page for each start, twice over |
| killed | a server killed after so many seconds is told by its signal, and its GPU's memory is free |
| orphan | a server answers after its launcher was killed, and ends by SIGTERM (comes last) |

Exit code 1 when a check fails. The launcher is gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

CLIENT = (
    Path(__file__).resolve().parents[2]
    / "worker" / "src" / "lazygraph_vllm" / "launcher" / "client.py"
)  # fmt: skip
READY_SECONDS_MAX = 600
END_SECONDS_MAX = 60
PROMPTS = 8
PROMPT_TOKENS = 32
OUTPUT_TOKENS = 24
PAGE_BYTES = 4096
GPU_BYTES_TOLERANCE = 256 << 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server that was started by a prefix, which may be empty."""

    def __init__(self, prefix: list[str], command: list[str]) -> None:
        self.port = free_port()
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*prefix, *command, "--port", str(self.port)],
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )

    def wait_until_ready(self) -> float:
        while time.monotonic() - self.began < READY_SECONDS_MAX:
            if self.process.poll() is not None:
                raise RuntimeError(f"expected a server, got an end by {self.process.returncode}")
            with contextlib.suppress(OSError):
                self.get("/health")
                return time.monotonic() - self.began
            time.sleep(0.05)
        raise RuntimeError(f"expected a server within {READY_SECONDS_MAX} s")

    def get(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=5) as response:
            return bytes(response.read())

    def tokens(self, model: str) -> list[Any]:
        answers = []
        for number in range(PROMPTS):
            body = {
                "model": model,
                "prompt": [100 + 7 * number + at for at in range(PROMPT_TOKENS)],
                "max_tokens": OUTPUT_TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}/v1/completions",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=120) as response:
                answers.append(json.load(response)["choices"][0]["token_ids"])
        return answers

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(END_SECONDS_MAX)


class Launcher:
    """What can be seen of one from outside."""

    def __init__(self, pid: int, path: str) -> None:
        self.pid = pid
        self.path = path
        self.prefix = [sys.executable, "-I", str(CLIENT), path, "--no-spawn", "--"]

    def status(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.path)
            connection.sendall(b"status\n")
            # To the end: then it has closed its side, too.
            status: dict[str, Any] = json.loads(connection.makefile().read())
            return status

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def wait_until_alone(self) -> None:
        """Keepers end just after their clients."""
        until = time.monotonic() + END_SECONDS_MAX
        while self.children() and time.monotonic() < until:
            time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def gpu_bytes(index: int) -> int | None:
    query = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(done.stdout.strip()) << 20


def kill_after(launcher: Launcher, command: list[str], seconds: float, gpu: int) -> dict[str, Any]:
    """Kill a server in the middle of whatever it does then."""
    before = gpu_bytes(gpu)
    server = Server(launcher.prefix, command)
    time.sleep(seconds)
    # launcher, keeper, server: the one below the keeper is the server itself.
    keepers = launcher.children()
    below = [pid for keeper in keepers for pid in descendants(keeper)]
    if below:
        os.kill(below[0], signal.SIGKILL)
    code = server.process.wait(END_SECONDS_MAX)
    launcher.wait_until_alone()
    left = [pid for pid in below if Path(f"/proc/{pid}").exists()]
    after = gpu_bytes(gpu)
    free = before is None or after is None or after <= before + GPU_BYTES_TOLERANCE
    return {
        "afterSeconds": seconds,
        "code": code,
        "left": left,
        "gpuBytesBefore": before,
        "gpuBytesAfter": after,
        "holds": code == -signal.SIGKILL and not left and free,
    }


def orphan(launcher: Launcher, command: list[str], model: str, expected: Any) -> dict[str, Any]:
    server = Server(launcher.prefix, command)
    server.wait_until_ready()
    os.kill(launcher.pid, signal.SIGKILL)
    answers = server.tokens(model)
    code = server.end()
    # vLLM ends a SIGTERM by itself; a stand-in dies of it.
    return {"code": code, "holds": answers == expected and code in (0, -signal.SIGTERM)}


def checks(options: argparse.Namespace) -> dict[str, Any]:
    launcher = Launcher(options.launcher_pid, options.socket)
    command, model = options.command, options.command[2]
    spawned = Server([], command)
    ready = {"spawned": [spawned.wait_until_ready()], "forked": []}
    expected = spawned.tokens(model)
    spawned.end()
    same = []
    before: tuple[int, int] | None = None
    for _ in range(options.starts):
        server = Server(launcher.prefix, command)
        ready["forked"].append(server.wait_until_ready())
        same.append(server.tokens(model) == expected)
        server.end()
        launcher.wait_until_alone()
        # The first start makes what is made once.
        before = before or (launcher.files(), launcher.status()["residentBytes"])
    files, resident = launcher.files(), launcher.status()["residentBytes"]
    assert before is not None
    grown = resident - before[1]
    killed = [kill_after(launcher, command, s, options.gpu) for s in options.kill_after]
    return {
        "readySeconds": ready,
        "tokens": {"starts": options.starts, "equal": sum(same), "holds": all(same)},
        "leaks": {
            "files": [before[0], files],
            "children": launcher.children(),
            "holds": files == before[0] and not launcher.children(),
        },
        "growth": {"bytes": grown, "holds": grown <= 2 * PAGE_BYTES * options.starts},
        "killed": {"cases": killed, "holds": all(case["holds"] for case in killed)},
        "orphan": orphan(launcher, command, model, expected),
    }


def main() -> int:
    """Check, print, and say by the exit code whether all holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--launcher-pid", type=int, required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--kill-after", type=float, nargs="*", default=[])
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("command", nargs="+", help="vllm serve MODEL …, without --port")
    options = parser.parse_args()
    result = checks(options)
    print(json.dumps(result, indent=1))
    return 0 if all(each.get("holds", True) for each in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
