"""Runs the pieces of memory.sh; see there.

Hypotheses, refuted by the printed table: stock says ready and dies in the first wave at 0.985, dies
while capturing at 0.99, and serves neither; ours serves all four waves at both, with tokens that
differ from the reference no more than they may (memory_report.py), also where an engine without
graphs dies; with reserve=plan 0.99 and 0.995 serve with every graph; a stranger kills nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import memory_report

REQUESTS = int(os.environ.get("REQUESTS", "200"))
PROMPT_TOKENS = int(os.environ.get("PROMPT_TOKENS", "900"))
OUTPUT_TOKENS = 8
WAVES = 4
STEP_LEVELS = tuple(int(n) for n in os.environ.get("STEP_LEVELS", "1 8 64 200").split())
STEP_TOKENS = 64
PIECE_SECONDS = float(os.environ.get("PIECE_SECONDS", "460"))
STRANGER_BYTES = int(os.environ.get("STRANGER_BYTES", str(1 << 30)))
STRANGER_UTILIZATION = os.environ.get("STRANGER_UTILIZATION", "0.975")
PLENTY = "0.9"
PIECES = (
    "warm",
    "reference",
    "stock-0.985",
    "none-0.985",
    "ours-0.985",
    "stock-0.99",
    "none-0.99",
    "ours-0.99",
    "plan-0.99",
    "plan-0.995",
    "none-0.995",
    "stranger",
    "graphs",
    "report",
)


class Died(Exception):
    """The server has ended, or doesn't answer any more."""


class TimeUp(Exception):
    """The piece has used its time."""


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One start: stock (`stock`, `none`) or under `lazygraph run` (`ours`, `plan`)."""

    def __init__(self, out: Path, piece: str, how: str, utilization: str) -> None:
        self.deadline = time.monotonic() + PIECE_SECONDS
        self.model = os.environ["MODEL"]
        self.port, self.http_port = free_port(), free_port()
        self.log_path = out / f"{piece}.log"
        serve = [
            *shlex.split(os.environ.get("VLLM_SERVE", "vllm serve")),
            self.model,
            *shlex.split(os.environ.get("SERVE_ARGS", "")),
            *("--port", str(self.port), "--gpu-memory-utilization", utilization),
            *("--max-num-batched-tokens", "8192", "--max-model-len", "4096"),
            "--no-enable-prefix-caching",
        ]
        if how == "none":
            serve += ["-cc.cudagraph_mode=NONE"]
        env = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": os.environ.get("GPU", "0"),
            "LAZYGRAPH_TEST_WEIGHTS": "fan-in",
        }
        if how in ("ours", "plan"):
            mode = os.environ.get("MODE", "idle")
            ours = [*shlex.split(os.environ["LAZYGRAPH"]), "run", "--no-plan", "--mode", mode]
            ours += ["--http", f"127.0.0.1:{self.http_port}"]
            if how == "plan":
                ours += ["--reserve", "plan"]
            serve = [*ours, "--", *serve]
        else:
            env["LAZYGRAPH_DISABLE"] = "1"
        self.command = shlex.join(serve)
        self._log = self.log_path.open("w")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            serve, env=env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def time_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeUp(f"the piece took more than {PIECE_SECONDS:.0f} s")
        return left

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps({"model": self.model, "temperature": 0, "ignore_eos": True} | body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=min(120, self.time_left())) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Died(f"{type(error).__name__}: {error}") from error

    def wait_ready(self) -> float:
        """Seconds from the start of the process to /health."""
        while True:
            if self.process.poll() is not None:
                raise Died(f"ended with code {self.process.returncode} before it was ready")
            self.time_left()
            with contextlib.suppress(OSError, http.client.HTTPException):
                url = f"http://127.0.0.1:{self.port}/health"
                with urllib.request.urlopen(url, timeout=2):
                    return time.monotonic() - self.started
            time.sleep(0.05)

    def engine(self) -> dict[str, Any] | None:
        """The controller's view of the engine; none without a controller."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            url = f"http://127.0.0.1:{self.http_port}/v1/engines"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return (json.loads(answer.read())["engines"] or [None])[0]
        return None

    def log_lines(self, pattern: str, at_most: int = 12) -> list[str]:
        text = self.log_path.read_text(errors="replace")
        found = [line for line in text.splitlines() if re.search(pattern, line)]
        return [line[:400] for line in found[:at_most]]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for the group we started: stray ranks would keep the memory."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


# ------------------------------------------------------------------ load


def prompt(wave: int, index: int, length: int = PROMPT_TOKENS) -> list[int]:
    draw = random.Random(wave * 100_003 + index)
    return [draw.randrange(1000, 100_000) for _ in range(length)]


def tokens_of(answer: dict[str, Any]) -> list[int] | str:
    choice = answer["choices"][0]
    return choice.get("token_ids") or choice["text"]


def wave(server: Server, number: int) -> list[list[int] | str]:
    """All requests at once; raises when one of them isn't answered."""

    def one(index: int) -> list[int] | str:
        body = {"prompt": prompt(number, index), "max_tokens": OUTPUT_TOKENS}
        return tokens_of(server.post(body | {"return_token_ids": True}))

    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(one, range(REQUESTS)))


def step_ms(server: Server, concurrent: int) -> float:
    """Milliseconds a decode step takes: the same prompts with many tokens and with few."""

    def seconds(tokens: int) -> float:
        started = time.monotonic()
        with ThreadPoolExecutor(concurrent) as pool:
            bodies = [
                {"prompt": prompt(99, i, 32), "max_tokens": tokens} for i in range(concurrent)
            ]
            list(pool.map(server.post, bodies))
        return time.monotonic() - started

    seconds(4)
    times = [(seconds(STEP_TOKENS) - seconds(4)) / (STEP_TOKENS - 4) for _ in range(3)]
    return sorted(times)[1] * 1000


class FreeMemory:
    """The device's free memory, five times a second, from another process's view."""

    def __init__(self) -> None:
        self.lowest_mib: int | None = None
        self.last_mib: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        query += ["-i", os.environ.get("GPU", "0")]
        while not self._stop.wait(0.2):
            try:
                done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
                free = int(done.stdout.split()[0])
            except (OSError, ValueError, IndexError, subprocess.SubprocessError):
                return  # no such tool here: the figures stay absent
            self.last_mib = free
            self.lowest_mib = free if self.lowest_mib is None else min(self.lowest_mib, free)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(15)


# ------------------------------------------------------------------ pieces


def settle(server: Server, seconds: float = 60) -> dict[str, Any] | None:
    """Wait until nothing is left to capture, or nothing has changed for a while."""
    last, since = -1, time.monotonic()
    engine = server.engine()
    until = time.monotonic() + min(seconds, server.time_left())
    while engine is not None and time.monotonic() < until:
        if engine.get("settled") is True:
            break
        if engine["graphsCaptured"] != last:
            last, since = engine["graphsCaptured"], time.monotonic()
        if time.monotonic() - since > 10:
            break
        time.sleep(0.1)
        engine = server.engine() or engine
    return engine


def engine_figures(engine: dict[str, Any] | None) -> dict[str, Any]:
    if engine is None:
        return {}
    captured = [g for g in engine["graphs"] if g["status"] == "captured"]
    return {
        "graphsPlanned": len(engine["graphs"]),
        "graphsCaptured": len(captured),
        "graphsRefused": sum(g["status"] == "refused" for g in engine["graphs"]),
        "graphBytes": sum(g.get("bytes", 0) for g in captured),
        "engine": engine,
    }


def loaded(out: Path, piece: str, how: str, utilization: str, waves: int) -> dict[str, Any]:
    """Start, waves, steps; what happened is the result, dying included."""
    server = Server(out, piece, how, utilization)
    result: dict[str, Any] = {
        "piece": piece,
        "how": how,
        "utilization": utilization,
        "command": server.command,
        "outcome": "died before ready",
        "wavesServed": 0,
        "tokens": [],
    }
    free = FreeMemory()
    try:
        result["spawnToReadySeconds"] = server.wait_ready()
        result["freeMiBAtReady"] = free.last_mib
        result["outcome"] = "died in wave 1"
        result["engineAtReady"] = server.engine() if how in ("ours", "plan") else None
        for number in range(waves):
            result["outcome"] = f"died in wave {number + 1}"
            result["tokens"].append(wave(server, number % WAVES))
            result["wavesServed"] = number + 1
        result["outcome"] = "served all waves"
        if how in ("ours", "plan"):
            result |= engine_figures(settle(server))
        result["stepMs"] = {str(level): step_ms(server, level) for level in STEP_LEVELS}
        result["outcome"] = "served"
    except (Died, TimeUp) as error:
        result["error"] = str(error)[:500]
        time.sleep(2)  # the engine's own last words
    finally:
        free.close()
        result["exitCode"] = server.process.poll()
        server.stop()
    result["freeMiBLowest"] = free.lowest_mib
    result["log"] = {
        "memory": server.log_lines(r"out of memory|OutOfMemory|CUDA error", 6),
        "ours": server.log_lines(r"lazygraph: "),
        "kv": server.log_lines(r"GPU KV cache size|Available KV cache memory|Graph capturing"),
    }
    return result


def stranger(out: Path) -> dict[str, Any]:
    """A process that is nobody's engine takes memory while graphs are being captured."""
    server = Server(out, "stranger", "ours", STRANGER_UTILIZATION)
    result: dict[str, Any] = {"piece": "stranger", "utilization": STRANGER_UTILIZATION}
    result |= {"command": server.command, "bytes": STRANGER_BYTES, "outcome": "died before ready"}
    free = FreeMemory()
    timeline: list[dict[str, Any]] = []
    started = time.monotonic()

    def note(what: str) -> dict[str, Any]:
        engine = server.engine() or {}
        entry = {
            "atSeconds": round(time.monotonic() - started, 3),
            "what": what,
            "graphsCaptured": engine.get("graphsCaptured"),
            "freeMiB": free.last_mib,
        }
        timeline.append(entry)
        return entry

    taker = None
    try:
        server.wait_ready()
        started = time.monotonic()
        result["outcome"] = "died before the stranger came"
        first = note("ready")
        while True:
            entry = note("fill")
            planned = len((server.engine() or {}).get("graphs", ()))
            share = (entry["graphsCaptured"] or 0) / max(1, planned)
            late = entry["atSeconds"] - first["atSeconds"] > 60
            if share >= 0.3 or late:
                break
            time.sleep(0.02)
            server.time_left()
        command = [sys.executable, str(Path(__file__).with_name("memory_stranger.py"))]
        taker = subprocess.Popen(
            [*shlex.split(os.environ.get("STRANGER", shlex.join(command))), str(STRANGER_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": os.environ.get("GPU", "0")},
        )
        assert taker.stdout is not None and taker.stdin is not None
        result["strangerGot"] = taker.stdout.readline().strip()
        note("the stranger has its memory")
        result["outcome"] = "died with the stranger there"
        result["tokensWith"] = [wave(server, 0), wave(server, 1)]
        settle(server, 30)
        note("two waves served with the stranger there")
        taker.stdin.close()
        taker.wait(30)
        note("the stranger has gone")
        result["outcome"] = "died after the stranger went"
        result |= engine_figures(settle(server, 120))
        note("settled again")
        result["tokens"] = [wave(server, 0), wave(server, 1)]
        result["outcome"] = "served"
    except (Died, TimeUp) as error:
        result["error"] = str(error)[:500]
    finally:
        if taker is not None and taker.poll() is None:
            taker.kill()
            taker.wait()
        free.close()
        server.stop()
    result["timeline"] = timeline
    result["freeMiBLowest"] = free.lowest_mib
    result["log"] = {
        "memory": server.log_lines(r"out of memory|OutOfMemory|CUDA error", 6),
        "ours": server.log_lines(r"lazygraph: ", 40),
    }
    return result


def graphs(out: Path) -> dict[str, Any]:
    """Bytes of every graph, in the order of capture, as bench:forecast reads them."""
    result = loaded(out, "graphs", "ours", PLENTY, 0)
    engine = result.get("engine")
    if engine is None:
        return result
    model = Path(os.environ["MODEL"]).name
    captured = [g for g in engine["graphs"] if g["status"] == "captured"]
    peak = max((r.get("activationPeakBytes", 0) for r in engine.get("ranks") or ()), default=0)
    document = {
        "what": "graph-memory",
        "model": model,
        "layers": engine.get("layers"),
        "ranks": len(engine.get("ranks") or ()) or 1,
        "measured": "one graph a command, one pool; largest rank",
        "activationPeakBytes": peak,
        "graphs": [
            {"kind": g["kind"], "tokens": g["tokens"], "bytes": g["bytes"]} for g in captured
        ],
    }
    (out / f"graph-memory-{model}.json").write_text(json.dumps(document, indent=1) + "\n")
    return result


def run_piece(out: Path, piece: str) -> dict[str, Any]:
    if piece == "warm":
        return loaded(out, piece, "stock", PLENTY, 1)
    if piece == "reference":
        return loaded(out, piece, "stock", PLENTY, 2 * WAVES)
    if piece == "stranger":
        return stranger(out)
    if piece == "graphs":
        return graphs(out)
    how, utilization = piece.split("-")
    return loaded(out, piece, how, utilization, WAVES)


def without_paths(out: Path, document: dict[str, Any]) -> str:
    """A document as JSON; results are published, so they name no path of this host."""
    text = json.dumps(document, indent=1)
    for path, name in (
        (str(out), "OUT_DIR"),
        (f"{Path(os.environ['MODEL']).parent}/", ""),
        (f"{Path(__file__).resolve().parents[2]}/", ""),
    ):
        text = text.replace(json.dumps(path)[1:-1], name) if len(path) > 2 else text
    return text


def main() -> int:
    out = Path(sys.argv[1]).resolve()
    wanted = sys.argv[2:] or list(PIECES)
    if unknown := [piece for piece in wanted if piece not in PIECES]:
        print(f"unknown piece {unknown[0]}; expected one of {', '.join(PIECES)}", file=sys.stderr)
        return 2
    for piece in wanted:
        if piece == "report":
            memory_report.write(out)
            continue
        file = out / f"{piece}.json"
        if file.exists():
            print(f"{piece}: done before", file=sys.stderr)
            continue
        started = time.monotonic()
        result = run_piece(out, piece)
        partial = file.with_suffix(".partial")
        partial.write_text(without_paths(out, result) + "\n")
        partial.rename(file)
        seconds = time.monotonic() - started
        print(f"{piece}: {result['outcome']} ({seconds:.0f} s)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
