"""A stand-in for `vllm serve` and `lazygraph run -- vllm serve`: what bench/gpu/families.ts needs.

`fake_stream_serve.py serve MODEL --port N …` streams completions, and writes what the test plugin
would of its start; FAKE_DIES=1 ends it before it is ready. `fake_stream_serve.py run … -- COMMAND`
starts the command and answers /v1/engines; it ends when its command does.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fake_serve import Handler, Server, option

STOCK_SECONDS, OUR_SECONDS = 2.0, 0.04
GRAPHS = 4
# A step of the engine: a token of each request.
STEP_SECONDS = 0.002


UNDER_WAY: list[Any] = []


def note_step(requests: int) -> None:
    """As the test plugin does; the oldest request's tokens are the steps."""
    folder = os.environ.get("LAZYGRAPH_TEST_STEPS")
    if folder is None:
        return
    with Path(folder, f"steps-0-{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps([time.monotonic(), requests]) + "\n")


class KeptOpen(Handler):
    protocol_version = "HTTP/1.1"


class Completions(KeptOpen):
    def do_GET(self) -> None:  # noqa: N802
        self.answer({})

    def do_POST(self) -> None:  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        UNDER_WAY.append(self)
        for _ in range(body["max_tokens"]):
            self.event({"choices": [{"text": "x"}]})
            if UNDER_WAY[:1] == [self]:
                note_step(len(UNDER_WAY))
            time.sleep(STEP_SECONDS)
        UNDER_WAY.remove(self)
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, body: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")


def serve() -> None:
    if os.environ.get("FAKE_DIES"):
        print("torch.OutOfMemoryError", flush=True)
        sys.exit(1)
    stock = "LAZYGRAPH_DISABLE" in os.environ
    planned = os.environ.get("VLLM_ENABLE_STARTUP_PLAN") == "1"
    seconds = STOCK_SECONDS if stock else OUR_SECONDS
    line = {
        "rank": 0, "vllm": "0.33.0", "deviceBeganAt": time.monotonic(),
        "profileSeconds": seconds if stock and not planned else 0.0,
        "captureModelSeconds": seconds, "captureSeconds": seconds,
        "freeLostBytes": 1 << 20, "estimateBytes": 2 << 20, "graphBytesTold": 1 << 20,
    }  # fmt: skip
    folder = Path(os.environ["LAZYGRAPH_TEST_TIMING"])
    (folder / f"rank-0-{os.getpid()}.jsonl").write_text(json.dumps(line) + "\n")
    if "LAZYGRAPH_STARTUP_DIR" in os.environ:
        # A kernel compiled before ready, and one while it serves.
        spans = [{"name": "JIT", "begin": now - 0.5, "end": now} for now in (0, 9)]
        began = time.monotonic()
        lines = [json.dumps(s | {k: began + s[k] for k in ("begin", "end")}) for s in spans]
        startup = Path(os.environ["LAZYGRAPH_STARTUP_DIR"])
        (startup / f"spans-{os.getpid()}.jsonl").write_text("\n".join(lines) + "\n")
    print("GPU KV cache size: 913,456 tokens", flush=True)
    if os.environ.get("LAZYGRAPH_VERIFY") == "1":
        for tokens in range(GRAPHS):
            print(f"verified FULL:{tokens}: largest relative difference 0.0", flush=True)
    Server(("127.0.0.1", int(option("--port"))), Completions).serve_forever()


def run() -> None:
    at = sys.argv.index("--")
    host, port = option("--http").split(":")
    child = subprocess.Popen(sys.argv[at + 1 :])
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    asked = [0]

    class Engines(KeptOpen):
        def do_GET(self) -> None:  # noqa: N802
            asked[0] += 1
            captured = min(GRAPHS, asked[0])
            graphs = [
                {"id": f"FULL:{n}", "status": "captured", "ms": 20.0, "bytes": 1 << 20}
                if n < captured
                else {"id": f"FULL:{n}", "status": "planned"}
                for n in range(GRAPHS)
            ]
            engine = {
                "graphs": graphs, "longestStallMs": 21.0,
                "forecast": {"bytes": (GRAPHS - captured) << 20, "errorBytes": 0},
            }  # fmt: skip
            if captured == GRAPHS:
                engine["readyToSettledSeconds"] = 0.5
            self.answer({"engines": [engine]})

    threading.Thread(target=Server((host, int(port)), Engines).serve_forever, daemon=True).start()
    print(f"lazygraph: {re.sub(r'[0-9]+', 'N', ' '.join(sys.argv[2:at]))}", flush=True)
    sys.exit(child.wait())


def main() -> None:
    """As a launcher calls it (`--main`)."""
    serve() if sys.argv[1] == "serve" else run()


if __name__ == "__main__":
    main()
