#!/bin/sh
# vLLM's router seems transparent, as its README calls it: what it doesn't know at the top of a chat it
# keeps. Further in, that is lost without a word: a tool's `strict`, which has vLLM constrain calls; the
# name in a tool's message; `continuous_usage_stats`, which GuideLLM asks for. Of embeddings what vLLM
# adds is lost, down to which tokens it reads; and of its answer to /v1/rerank the router makes a 500.
# Seen with vllm-router 0.1.17 before a server that keeps what it gets and reranks in vLLM's form: the
# output below. What uses it is in the sources of vLLM 0.33.0 and GuideLLM 0.8.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps vllm-router==0.1.17

cat >route.py <<'PY'
import http.server
import json
import multiprocessing
import os
import socket
import threading
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

from vllm_router.router import Router
from vllm_router.router_args import RouterArgs

RANKED = b"""{"id": "r", "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4},
"results": [{"index": 0, "document": {"text": "a"}, "relevance_score": 0.9}]}"""
got = {}


class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(RANKED)

    def do_POST(self):
        got.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.do_GET()


def route():
    os.dup2(2, 1)  # It logs to stdout.
    Router.from_args(RouterArgs([url], port=port, policy="round_robin")).start()


def call(path, body):
    data = json.dumps({"model": "m", **body}).encode()
    url = f"http://127.0.0.1:{port}{path}"
    try:
        return urlopen(Request(url, data, {"content-type": "application/json"})).status
    except URLError as error:
        return getattr(error, "code", None)


def paths(value, name=""):
    pairs = {dict: dict.items, list: enumerate}.get(type(value), lambda _: ())(value)
    return {name}.union(*(paths(item, f"{name}.{key}") for key, item in pairs))


engine = http.server.HTTPServer(("127.0.0.1", 0), Engine)
port = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
url = f"http://127.0.0.1:{engine.server_port}"
multiprocessing.Process(target=route, daemon=True).start()
threading.Thread(target=engine.serve_forever, daemon=True).start()
while call("/health", {}) is None:
    time.sleep(1)

result = {"role": "tool", "tool_call_id": "1", "name": "f", "content": "y"}
tool = {"name": "f", "parameters": {"type": "object"}, "strict": True}
chat = {
    "messages": [{"role": "user", "content": "x"}, result],
    "tools": [{"type": "function", "function": tool}],
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "cache_salt": "s",
}
for path, body in (
    ("chat/completions", chat),
    ("embeddings", {"input": "x", "add_special_tokens": False, "truncate_prompt_tokens": 8}),
    ("rerank", {"query": "x", "documents": ["a", "b"], "top_n": 1}),
):
    got.clear()
    print(f"{path}: {call(f'/v1/{path}', body)}")
    for name in sorted(paths(body) - paths(got)):
        print(" lost", name[1:])
PY
timeout 60 python/bin/python route.py 2>log | tee output
cat >expected <<'TXT'
chat/completions: 200
 lost messages.1.name
 lost stream_options.continuous_usage_stats
 lost tools.0.function.strict
embeddings: 200
 lost add_special_tokens
 lost truncate_prompt_tokens
rerank: 500
 lost top_n
TXT
cmp expected output
