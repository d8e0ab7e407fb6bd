"""A stand-in for `lazygraph run -- vllm serve` on several ranks: what rank_faults.py talks to.

`serve MODEL --port N` has two ranks as processes of their own and answers completions. With
LAZYGRAPH_TEST_FAULT it ends as vLLM does; FAKE_HANGS=1 leaves a rank behind then, FAKE_MUTE=1
answers no request, FAKE_SILENT=1 ends without a reason. `run … -- COMMAND` answers /v1/engines,
with FAKE_REFUSES=1 one graph refused.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from fake_serve import Handler, Server, option

REASONS = {
    "no-memory": "lazygraph: capturing FULL:256 failed on 1 of 2 ranks (CUDA out of memory)",
    "killed": "ERROR Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down",
}


class Completions(Handler):
    def do_GET(self) -> None:  # noqa: N802
        self.answer({})

    def do_POST(self) -> None:  # noqa: N802
        self.rfile.read(int(self.headers["Content-Length"]))
        if os.environ.get("FAKE_MUTE"):
            time.sleep(60)
        self.answer({"choices": [{"text": "x"}]})


def serve() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ranks = [subprocess.Popen(sleep) for _ in range(2)]

    def end(code: int) -> None:
        for rank in ranks[bool(os.environ.get("FAKE_HANGS")) :]:
            rank.kill()
            rank.wait()
        os._exit(code)

    def strike() -> None:
        time.sleep(1)
        if not os.environ.get("FAKE_SILENT"):
            print(REASONS[os.environ["LAZYGRAPH_TEST_FAULT"].partition(":")[0]], flush=True)
        end(1)

    signal.signal(signal.SIGTERM, lambda *_: end(0))
    if "LAZYGRAPH_TEST_FAULT" in os.environ:
        threading.Thread(target=strike, daemon=True).start()
    Server(("127.0.0.1", int(option("--port"))), Completions).serve_forever()


def run() -> None:
    child = subprocess.Popen(sys.argv[sys.argv.index("--") + 1 :])
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    status = "refused" if os.environ.get("FAKE_REFUSES") else "captured"

    class Engines(Handler):
        def do_GET(self) -> None:  # noqa: N802
            graphs = [
                {"id": "FULL:512", "status": "captured"},
                {"id": "FULL:256", "status": status, "reason": "too little memory"},
            ]
            body: dict[str, Any] = {"engines": [{"graphs": graphs}]}
            self.answer(body)

    port = int(option("--http").split(":")[1])
    threading.Thread(target=Server(("127.0.0.1", port), Engines).serve_forever, daemon=True).start()
    sys.exit(child.wait())


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else run()
