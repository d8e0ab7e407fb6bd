#!/bin/sh
# `lmcache bench engine` asks by OpenAI's client with its two retries: a chat that an engine refuses twice
# is none that failed, but one whose first token came late, pauses of the client's included, so that
# overload reads as slow prefill. Its decode speed is all tokens by the time after the first: the answers
# of one token, which its own workload `random-prefill` asks for, have hundreds of tokens per second.
# Seen with lmcache 0.5.6 and openai 3.57.0, before an engine that takes 0.2 s for a token: as below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps lmcache==0.5.6
python/bin/pip install -q openai==3.57.0 prometheus_client==0.24.1 sortedcontainers==2.4.0 numpy==2.3.5 \
  matplotlib==3.10.7 2>log

cat >bench.py <<'PY'
import http.server
import json
import subprocess
import threading
from time import sleep

CHOICE = {"index": 0, "delta": {"content": "x"}, "finish_reason": "length"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}


class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        posts.append(self.path)
        self.rfile.read(int(self.headers["content-length"]))
        refused = len(posts) <= refusals
        if not refused:
            sleep(0.2)
        self.send_response(503 if refused else 200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if not refused:
            for event in ({"choices": [CHOICE]}, {"choices": [], "usage": USAGE}):
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())


server = http.server.HTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
command = ["python/bin/lmcache", "bench", "engine", "--engine-url", url, "--model", "m"]
command += "--tokens-per-gb-kvcache 1 --workload random-prefill --rp-request-length 9".split()
command += "--rp-num-requests 1 --no-interactive --no-csv --json -q".split()
for refusals in (0, 2):
    posts = []
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    with open("bench_summary.json") as file:
        told = json.load(file)["results"]
    late = "above" if told["mean_ttft_ms"] > 900 else "below"
    fast = "above" if told["mean_decode_speed"] > 10 else "below"
    print(f"{refusals} of {len(posts)} refused: {told['failed_requests']} failed,", end=" ")
    print(f"first token {late} 0.9 s, decoding {fast} 10 a second")
PY
timeout 120 python/bin/python bench.py 2>log | tee output
cat >expected <<'TXT'
0 of 1 refused: 0 failed, first token below 0.9 s, decoding above 10 a second
2 of 3 refused: 0 failed, first token above 0.9 s, decoding above 10 a second
TXT
cmp expected output
