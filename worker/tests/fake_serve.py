"""A stand-in for `vllm serve` and `lazygraph run -- vllm serve`: what bench/gpu/memory.py talks to.

`fake_serve.py serve MODEL --port N …` answers /health and /v1/completions. FAKE_DIES names what
ends it, by the utilisation it was started with: `0.985:wave` after 150 requests, `0.99:start`
before it is ready. `fake_serve.py run … -- COMMAND` starts the command and answers /v1/engines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# As a launcher's import may leave something behind. Looked up by a listing: no client is refused.
WRONG = int(dict(os.environ).get("FAKE_WRONG_WHEN_FORKED", "0"))
IMPORTED_BY = os.getpid()


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...

    def answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


def serve() -> None:
    if os.environ.get("FAKE_DIES_WHEN_SPAWNED") and os.getpid() == IMPORTED_BY:
        sys.exit(1)
    dies = dict(d.split(":") for d in os.environ.get("FAKE_DIES", "").split(",") if d)
    how = dies.get(option("--gpu-memory-utilization"))
    if "-cc.cudagraph_mode=NONE" in sys.argv or "LAZYGRAPH_DISABLE" not in os.environ:
        how = None
    if how == "start":
        print("torch.OutOfMemoryError: CUDA out of memory while capturing", flush=True)
        sys.exit(1)
    served = [0]
    lock = threading.Lock()
    model = sys.argv[sys.argv.index("serve") + 1]
    refuses = os.environ.get("FAKE_REFUSES_WHEN_SPAWNED") and os.getpid() == IMPORTED_BY

    class Completions(Handler):
        def do_GET(self) -> None:  # noqa: N802
            self.answer({})

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body.get("model", model) != model or refuses:
                self.send_error(404)
                return
            with lock:
                served[0] += 1
                if how == "wave" and served[0] > 5:
                    print("torch.OutOfMemoryError: CUDA out of memory in a step", flush=True)
                    os._exit(1)
            time.sleep(0.0001 * body["max_tokens"])
            prompt = body["prompt"]
            given = prompt.encode() if isinstance(prompt, str) else prompt
            ids = [sum(given) % 1000 + i for i in range(body["max_tokens"])]
            ids[0] += WRONG
            if os.environ.get("FAKE_WRONG") and "LAZYGRAPH_DISABLE" not in os.environ:
                ids[0] += 1
            self.answer({"choices": [{"text": "x", "token_ids": ids}]})

    print("GPU KV cache size: 913,456 tokens", flush=True)
    Server(("127.0.0.1", int(option("--port"))), Completions).serve_forever()


def run() -> None:
    at = sys.argv.index("--")
    host, port = option("--http").split(":")
    child = subprocess.Popen(sys.argv[at + 1 :])
    started = time.monotonic()

    class Engines(Handler):
        def do_GET(self) -> None:  # noqa: N802
            captured = min(4, int((time.monotonic() - started) * 20))
            graphs = [
                {
                    "id": f"FULL:{n}", "kind": "FULL", "tokens": n, "bytes": 2 << 20,
                    "status": "captured" if i < captured else "planned",
                }
                for i, n in enumerate((8, 4, 2, 1))
            ]  # fmt: skip
            engine = {
                "graphs": graphs, "graphsCaptured": captured, "settled": captured == 4,
                "layers": 2, "ranks": [{"activationPeakBytes": 7}],
            }  # fmt: skip
            self.answer({"engines": [engine]})

    threading.Thread(target=Server((host, int(port)), Engines).serve_forever, daemon=True).start()
    print(f"lazygraph: {' '.join(sys.argv[2:at])}", flush=True)
    sys.exit(child.wait())


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else run()
