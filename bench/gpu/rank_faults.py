"""One rank that has no memory for a graph, or is killed while it captures: does anything hang?

    python3 bench/gpu/rank_faults.py OUT.json [--gpus 0,1,2,3] [--cases NAME,…] [--within SECONDS]
        [--end-within SECONDS] -- vllm serve MODEL [arguments]

Each case is a server under `lazygraph run --mode idle`, with requests from ready on:

| case | what happens | holds when |
|---|---|---|
| control | nothing | all requests are answered, and the graph of the next two cases is captured |
| short | from ready on the second rank has less than a graph takes | it is refused, or all ends |
| oom | the second rank runs out of memory while it captures a graph | all ends, with the reason |
| killed | the second rank is killed while it captures a graph | all ends, with a reason |

In all of them no request is unanswered for longer than --end-within, and no process of the server
is left. LAZYGRAPH is our command (default: node dist/cli/main.js), STRANGER what takes the memory.
A case whose result stands in OUT.json is not run again, and none is begun that --within doesn't
hold. Exit code 1 when a case doesn't hold or was left. Needs both plugins in vLLM's Python.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GRAPH = os.environ.get("GRAPH", "FULL:256")
CASES: dict[str, dict[str, str]] = {
    "control": {},
    "short": {"LAZYGRAPH_RESERVE": "none"},
    "oom": {"LAZYGRAPH_TEST_FAULT": f"no-memory:{GRAPH}@1"},
    "killed": {"LAZYGRAPH_TEST_FAULT": f"killed:{GRAPH}@1"},
}
MARK = "LAZYGRAPH_TEST_RUN"
READY_SECONDS_MAX = float(os.environ.get("READY_WITHIN", "400"))
# What a case is expected to take besides its start, for --within.
BESIDE_SECONDS = 60
# Few enough that the engine is idle in between: idle mode captures then.
CLIENTS = 2
PAUSE_SECONDS = 1.0
OUTPUT_TOKENS = 16
# Left to the second rank: no more than is kept for serving, so no graph fits.
LEFT_BYTES = 256 << 20
STOP_SECONDS_MAX = 30.0
GONE_SECONDS_MAX = 20.0
REASONS = (
    r"lazygraph: capturing .* failed on \d+ of \d+ ranks.*",
    r"lazygraph: the ranks disagree.*",
    r"Worker proc \S+ died unexpectedly.*",
    r"EngineDeadError.*",
    r".*(?:OutOfMemoryError|Free memory on device).*",
)


# ------------------------------------------------------------------ a server and its processes


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def marked(mark: str) -> list[int]:
    """Processes that have this run's mark, and their children: none of them may be left."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # One that ended meanwhile, and one that ended but is not waited for, have none.
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


class Server:
    """One start under our command; all that it starts bears a mark."""

    def __init__(self, serve: list[str], case: str, log: Path, gpus: str) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        self.port, self.http_port = free_port(), free_port()
        main = HERE.parents[1] / "dist" / "cli" / "main.js"
        ours = shlex.split(os.environ.get("LAZYGRAPH", f"node {shlex.quote(str(main))}"))
        run = [*ours, "run", "--mode", "idle", "--quiet", "--no-plan"]
        run += ["--http", f"127.0.0.1:{self.http_port}"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus, MARK: self.mark, **CASES[case]}
        self.began = time.monotonic()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*run, "--", *serve, "--port", str(self.port)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether our command has."""
        return self.process.poll() is not None

    def wait_until_ready(self) -> bool:
        """False where it ends, or isn't ready in time."""
        while not self.ended() and time.monotonic() - self.began < READY_SECONDS_MAX:
            with contextlib.suppress(OSError, http.client.HTTPException):
                url = f"http://127.0.0.1:{self.port}/health"
                with urllib.request.urlopen(url, timeout=2):
                    return True
            time.sleep(0.05)
        return False

    def graphs(self) -> dict[str, dict[str, Any]]:
        """What the controller says of each graph; empty when it doesn't answer."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, LookupError):
            url = f"http://127.0.0.1:{self.http_port}/v1/engines"
            with urllib.request.urlopen(url, timeout=5) as answer:
                engine = json.loads(answer.read())["engines"][0]
                return {graph["id"]: graph for graph in engine["graphs"]}
        return {}

    def stop(self) -> list[int]:
        """SIGTERM where it still runs; which of its processes are left after that, and kill them.

        Those are what hangs: each has had its time to end.
        """
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS_MAX)
        end = time.monotonic() + GONE_SECONDS_MAX
        while (left := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return left


class Clients:
    """Requests one after the other on several threads, until they are told to stop."""

    def __init__(self, server: Server, model: str, seconds_max: float) -> None:
        self.answered = 0
        self.failed = 0
        self.unanswered = 0
        self._server, self._model, self._seconds_max = server, model, seconds_max
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        sent = 0
        while not self._stop.is_set():
            sent += 1
            prompt = [1000 + (number * 7919 + sent * 104_729 + i) % 20_000 for i in range(32)]
            body = {
                "model": self._model,
                "prompt": prompt,
                "max_tokens": OUTPUT_TOKENS,
                "ignore_eos": True,
            }
            how = self._post(body)
            with self._lock:
                setattr(self, how, getattr(self, how) + 1)
            self._stop.wait(PAUSE_SECONDS)

    def _post(self, body: dict[str, Any]) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._server.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._seconds_max) as answer:
                answer.read()
            return "answered"
        except TimeoutError:
            return "unanswered"
        except (OSError, http.client.HTTPException) as error:
            return "unanswered" if "timed out" in str(error) else "failed"

    def stop(self) -> dict[str, int]:
        """Counts, once every request has had its time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self._seconds_max + 5)
        alive = sum(thread.is_alive() for thread in self._threads)
        with self._lock:
            return {
                "answered": self.answered,
                "failed": self.failed,
                "unanswered": self.unanswered + alive,
            }


@contextlib.contextmanager
def stranger(gpus: str) -> Any:
    """A process that takes what the second rank's GPU has free, but for a little.

    Not before ready: vLLM itself ends a start on a GPU with less than its share, and no graph is
    ever asked for.
    """
    gpu = gpus.split(",")[1]
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", gpu]
    free = int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) << 20
    taken = free - LEFT_BYTES
    own = shlex.join([sys.executable, str(HERE / "memory_stranger.py")])
    taker = subprocess.Popen(
        [*shlex.split(os.environ.get("STRANGER", own)), str(taken)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
    )
    assert taker.stdout is not None
    try:
        said = taker.stdout.readline().strip()
        if said == "" or said.startswith("failed"):
            raise RuntimeError(f"expected a stranger with {taken} bytes, got {said or 'its end'}")
        yield
    finally:
        taker.kill()
        taker.wait()


# ------------------------------------------------------------------ a case


def run_case(
    case: str, serve: list[str], out: Path, gpus: str, end_seconds: float
) -> dict[str, Any]:
    """One server; what was seen of it."""
    log = out.with_suffix(f".{case}.log")
    server = Server(serve, case, log, gpus)
    try:
        ready = server.wait_until_ready()
        from_ready = time.monotonic()
        with stranger(gpus) if ready and case == "short" else contextlib.nullcontext():
            clients = Clients(server, model_of(serve), end_seconds) if ready else None
            graphs: dict[str, dict[str, Any]] = {}
            while not server.ended() and time.monotonic() - from_ready < end_seconds and ready:
                graphs = server.graphs() or graphs
                if not fault_of(case) and settled(graphs):
                    break
                time.sleep(0.1)
            ended = server.ended()
            seconds = time.monotonic() - from_ready
            requests = None if clients is None else clients.stop()
    finally:
        left = server.stop()
    refused = [graph for graph in graphs.values() if graph["status"] == "refused"]
    why = next((graph.get("reason") for graph in refused), None)
    return {
        "case": case,
        "ready": ready,
        "ended": ended,
        "exitCode": server.process.returncode if ended else None,
        "seconds": round(seconds, 1),
        "requests": requests,
        "captured": sum(graph["status"] == "captured" for graph in graphs.values()),
        "planned": len(graphs),
        "refused": len(refused),
        "graph": graphs.get(GRAPH, {}).get("status"),
        "left": len(left),
        "reason": reason_of(log.read_text(errors="replace")) or why,
    }


def fault_of(case: str) -> bool:
    """Whether this server is to end by itself."""
    return "LAZYGRAPH_TEST_FAULT" in CASES[case]


def settled(graphs: dict[str, dict[str, Any]]) -> bool:
    """Whether every graph has come to what it will be."""
    return bool(graphs) and all(
        graph["status"] in ("captured", "refused", "failed") for graph in graphs.values()
    )


def model_of(serve: list[str]) -> str:
    """What `vllm serve MODEL` names."""
    return serve[serve.index("serve") + 1]


def reason_of(log: str) -> str | None:
    """The most telling line of a log about an end."""
    for pattern in REASONS:
        if found := re.search(pattern, log):
            return found.group(0)[:400]
    return None


# ------------------------------------------------------------------ what was seen


def holds(seen: dict[str, Any]) -> bool:
    """Whether a case went as it should; see the table above."""
    requests = seen["requests"] or {"answered": 0, "failed": 0, "unanswered": 0}
    if seen["left"] or requests["unanswered"]:
        return False
    # Its exit code is vLLM's word: 0 after the engine's death too (vLLM #48966).
    told = seen["reason"] is not None
    ended_with_reason = seen["ended"] and told
    if fault_of(seen["case"]):
        return bool(ended_with_reason)
    served = seen["ready"] and not seen["ended"]
    answered = requests["answered"] > 0 and requests["failed"] == 0
    if seen["case"] == "control":
        return bool(served and answered and seen["graph"] == "captured")
    return bool(ended_with_reason or (served and answered and seen["refused"] > 0 and told))


# ------------------------------------------------------------------ all of them


def arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and the server's after `--`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gpus", default="0,1")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--within", type=float, default=None)
    parser.add_argument("--end-within", type=float, default=90)
    parser.add_argument("--list", action="store_true", help="the open cases; runs nothing")
    at = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:at])
    serve = argv[at + 1 :]
    if "serve" not in serve[:-1]:
        parser.error("expected `-- vllm serve MODEL …`, got no such command")
    if len(args.gpus.split(",")) < 2:
        parser.error(f"expected two GPUs or more in --gpus, got {args.gpus}: ranks are the matter")
    args.cases = args.cases.split(",")
    if unknown := [case for case in args.cases if case not in CASES]:
        parser.error(f"expected --cases of {', '.join(CASES)}, got {unknown[0]}")
    return args, serve


def main() -> None:
    """Run the cases that are open, one after the other."""
    args, serve = arguments(sys.argv[1:])
    began = time.monotonic()
    known = json.loads(args.out.read_text())["cases"] if args.out.exists() else []
    done = {case["case"]: case for case in known}
    if args.list:
        print("".join(f"{case}\n" for case in args.cases if case not in done), end="")
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    left = []
    longest = 60.0  # seconds that a start took, or is thought to
    for case in args.cases:
        if case in done:
            continue
        expected = longest + args.end_within + BESIDE_SECONDS
        if args.within is not None and time.monotonic() - began + expected > args.within:
            left.append(case)
            continue
        started = time.monotonic()
        try:
            seen = run_case(case, serve, args.out, args.gpus, args.end_within)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            # It says nothing of ranks: it is tried again the next time.
            print(f"{case}: can't be run: {error}", file=sys.stderr)
            left.append(case)
            continue
        longest = max(longest, time.monotonic() - started - seen["seconds"])
        done[case] = {**seen, "holds": holds(seen)}
        part = args.out.with_suffix(".part")
        part.write_text(json.dumps({"cases": list(done.values())}, indent=1) + "\n")
        part.replace(args.out)
        print(json.dumps(done[case]), flush=True)
    if left:
        print(f"left: {', '.join(left)}", file=sys.stderr)
    wanted = [done[case]["holds"] for case in args.cases if case in done]
    sys.exit(0 if all(wanted) and not left else 1)


if __name__ == "__main__":
    main()
