"""What a launcher must leave alone and clean, on a real engine: prints one JSON document.

    python3 bench/gpu/launcher_checks.py --launcher-pid PID --socket SOCKET --starts N \
        [--kill-after SECONDS ...] [--gpu GPU] [--out FILE] [--within SECONDS] \
        -- vllm serve MODEL [arguments]

| check | holds when |
|---|---|
| tokens | greedy answers of every forked server equal those of a spawned one, one request at a time |
| leaks | after all starts the launcher has the files and children of before, and no zombie |
| growth | its resident memory has grown by at most a page for each start, twice over |
| killed | a server killed after so many seconds is told by its signal, its processes and memory go |
| orphan | a server answers after its launcher was killed, and ends by SIGTERM (comes last) |

The document is written to FILE after each check and start. A check that can't be made says why and
doesn't hold; the others go on. No start is begun for which the SECONDS would not suffice; of the
starts as many are left out as the checks after them need. Exit code 1 when a check fails. The
launcher is gone afterwards.
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

from process_tree import descendants

CLIENT = (
    Path(__file__).resolve().parents[2]
    / "worker" / "src" / "lazygraph_vllm" / "launcher" / "client.py"
)  # fmt: skip
READY_SECONDS_MAX = 600
END_SECONDS_MAX = 60
END_SECONDS_USUAL = 5.0
FREE_SECONDS_MAX = 20.0
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

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever went wrong: one that goes on has the GPU that the next one needs."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_SECONDS_MAX)


def model_of(command: list[str]) -> str:
    """What requests call the model: the word after `serve`, however vLLM is called."""
    at = command.index("serve") + 1 if "serve" in command else len(command)
    if at >= len(command) or command[at].startswith("-"):
        raise SystemExit(f"expected `vllm serve MODEL …`, got `{' '.join(command)}`")
    return command[at]


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

    def servers(self) -> list[int]:
        """A server's processes, itself first; waits for the fork of one that was just started."""
        until = time.monotonic() + END_SECONDS_MAX
        while time.monotonic() < until:
            # launcher, keeper, server: the one below the keeper is the server itself.
            if below := [pid for keeper in self.children() for pid in descendants(keeper)]:
                return below
            time.sleep(0.05)
        raise RuntimeError(f"expected a forked server within {END_SECONDS_MAX} s, got none")

    def wait_until_alone(self) -> None:
        """Keepers end just after their clients."""
        until = time.monotonic() + END_SECONDS_MAX
        while self.children() and time.monotonic() < until:
            time.sleep(0.1)


def gpu_bytes(gpu: str) -> int | None:
    query = ["nvidia-smi", f"--id={gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(done.stdout.strip()) << 20


def kill_after(launcher: Launcher, command: list[str], seconds: float, gpu: str) -> dict[str, Any]:
    """Kill a server in the middle of whatever it does then."""
    before = gpu_bytes(gpu)
    with Server(launcher.prefix, command) as server:
        time.sleep(seconds)
        below = launcher.servers()
        os.kill(below[0], signal.SIGKILL)
        code = server.process.wait(END_SECONDS_MAX)
    launcher.wait_until_alone()
    # Of a server that is killed the children end by themselves, as of a spawned one, and the driver
    # takes a moment to give back what they had.
    until = time.monotonic() + FREE_SECONDS_MAX
    while True:
        left = [pid for pid in below if Path(f"/proc/{pid}").exists()]
        after = gpu_bytes(gpu)
        free = before is None or after is None or after <= before + GPU_BYTES_TOLERANCE
        if (free and not left) or time.monotonic() > until:
            break
        time.sleep(0.5)
    return {
        "afterSeconds": seconds,
        "code": code,
        "left": left,
        "gpuBytesBefore": before,
        "gpuBytesAfter": after,
        "holds": code == -signal.SIGKILL and not left and free,
    }


def orphan(launcher: Launcher, command: list[str], model: str, expected: Any) -> dict[str, Any]:
    with Server(launcher.prefix, command) as server:
        server.wait_until_ready()
        os.kill(launcher.pid, signal.SIGKILL)
        answers = server.tokens(model)
        code = server.end()
    # vLLM ends a SIGTERM by itself; a stand-in dies of it.
    return {"code": code, "holds": answers == expected and code in (0, -signal.SIGTERM)}


class Clock:
    """The time that is left, going by how long the last start took."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._start = 0.0

    def took(self, seconds: float) -> None:
        self._start = seconds

    def suffices(self, seconds_after: float = 0.0, starts_after: int = 0) -> bool:
        needed = self._start * (1 + starts_after) + seconds_after
        return time.monotonic() + needed <= self._end


class Checks:
    """The document, and what is needed to make it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._launcher = Launcher(options.launcher_pid, options.socket)
        self._command, self._model = options.command, model_of(options.command)
        self._clock = Clock(options.within)
        self._expected: Any = None
        self.result: dict[str, Any] = {}

    def run(self) -> None:
        """All of them: what one of them lacks costs none of the others."""
        for check in (self._starts, self._killed, self._orphan):
            try:
                check()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told
                name = check.__name__.strip("_")
                told = f"{type(error).__name__}: {error}"
                self._tell(name, {**self.result.get(name, {}), "error": told, "holds": False})

    def _tell(self, name: str, found: dict[str, Any]) -> None:
        self.result[name] = found
        if self._options.out is not None:
            part = self._options.out.with_suffix(".part")
            part.write_text(json.dumps(self.result, indent=1) + "\n")
            part.replace(self._options.out)

    def _starts(self) -> None:
        launcher, wanted = self._launcher, self._options.starts
        began = time.monotonic()
        with Server([], self._command) as spawned:
            ready: dict[str, list[float]] = {"spawned": [spawned.wait_until_ready()], "forked": []}
            self._expected = spawned.tokens(self._model)
        self._clock.took(time.monotonic() - began)
        # A server that is killed takes its seconds, and some to end; the orphan takes a start.
        later = sum(self._options.kill_after) + END_SECONDS_USUAL * len(self._options.kill_after)
        same: list[bool] = []
        before: tuple[int, int] | None = None
        while len(same) < wanted and self._clock.suffices(later, starts_after=1):
            began = time.monotonic()
            with Server(launcher.prefix, self._command) as server:
                ready["forked"].append(server.wait_until_ready())
                same.append(server.tokens(self._model) == self._expected)
            launcher.wait_until_alone()
            self._clock.took(time.monotonic() - began)
            files, resident = launcher.files(), int(launcher.status()["residentBytes"])
            # The first start makes what is made once.
            before = before or (files, resident)
            self._tell_starts(ready, same, before, (files, resident))
        if before is None:
            raise RuntimeError("there was no time for a forked start")

    def _tell_starts(
        self,
        ready: dict[str, list[float]],
        same: list[bool],
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> None:
        children = self._launcher.children()
        grown = after[1] - before[1]
        most = 2 * PAGE_BYTES * len(same)
        tokens = {"starts": len(same), "wanted": self._options.starts, "equal": sum(same)}
        self._tell("readySeconds", ready)
        self._tell("tokens", {**tokens, "holds": all(same)})
        leaks = {"files": [before[0], after[0]], "children": children}
        self._tell("leaks", {**leaks, "holds": after[0] == before[0] and not children})
        self._tell("growth", {"bytes": grown, "bytesMax": most, "holds": grown <= most})

    def _killed(self) -> None:
        cases: list[dict[str, Any]] = []
        for seconds in self._options.kill_after:
            if not self._clock.suffices(seconds):
                break
            cases.append(kill_after(self._launcher, self._command, seconds, self._options.gpu))
            holds = all(case["holds"] for case in cases)
            wanted = len(self._options.kill_after)
            self._tell("killed", {"cases": cases, "wanted": wanted, "holds": holds})
        if self._options.kill_after and not cases:
            raise RuntimeError("there was no time for it")

    def _orphan(self) -> None:
        if not self._clock.suffices():
            raise RuntimeError("there was no time for it")
        if self._expected is None:
            raise RuntimeError("there are no tokens of a spawned server to hold its own against")
        self._tell("orphan", orphan(self._launcher, self._command, self._model, self._expected))


def main() -> int:
    """Check, print, and say by the exit code whether all holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--launcher-pid", type=int, required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--kill-after", type=float, nargs="*", default=[])
    parser.add_argument("--gpu", default="0")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--within", type=float, default=float("inf"))
    parser.add_argument("command", nargs="+", help="vllm serve MODEL …, without --port")
    checks = Checks(parser.parse_args())
    checks.run()
    print(json.dumps(checks.result, indent=1))
    return 0 if all(each.get("holds", True) for each in checks.result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
