#!/bin/sh
# By `consistent_hash` vLLM's router keeps a user on one engine. It looks into headers, says its
# documentation, then for `user` and others in the body, as in its example of a chat, and hashes the
# whole body otherwise. In truth a chat or completion needs a header (of bodies, only a chat's
# `session_params` counts): chats without one go to one engine, whoever asks what, as do prompts of
# token ids, and of texts the prompt is hashed. It doesn't look at load: the others stay idle.
# Seen with vllm-router 0.1.17 before four servers that count what they get: the output below.
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

hits = []


class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        hits.append(self.server)
        self.do_GET()


def free_port():
    return socket.create_server(("127.0.0.1", 0)).getsockname()[1]


def route():
    os.dup2(2, 1)  # It logs to stdout.
    more = {"policy": "consistent_hash", "prometheus_port": free_port()}
    Router.from_args(RouterArgs(urls, port=port, **more)).start()


def call(path, body, head):
    data = json.dumps({"model": "m", **body}).encode()
    head |= {"content-type": "application/json"}
    hits.clear()
    url = f"http://127.0.0.1:{port}/v1/{path}"
    try:
        return urlopen(Request(url, data, head)).status == 200 and len(hits) == 1
    except URLError:
        return False


def show(kind, key):
    path, body = KINDS[kind]
    engines = {}
    for turn in range(64):  # 32 users ask two questions each.
        user = f"user-{turn % 32}"
        head = {"x-user-id": user} if key == "header" else {}
        assert call(path, {**body(turn), **({"user": user} if key == "body" else {})}, head)
        engines.setdefault(user, set()).add(hits[0])
    count = len(set().union(*engines.values()))
    stay = all(len(its) == 1 for its in engines.values())
    print(f"{kind}, {key}: {count} of 4, {'stay' if stay else 'move'}")


KINDS = {
    "chat": ("chat/completions", lambda i: {"messages": [{"role": "user", "content": str(i)}]}),
    "text": ("completions", lambda i: {"prompt": str(i)}),
    "ids": ("completions", lambda i: {"prompt": [i, *range(100)]}),
}
port = free_port()
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine) for _ in range(4)]
urls = [f"http://127.0.0.1:{server.server_port}" for server in servers]
multiprocessing.Process(target=route, daemon=True).start()
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
while not call("completions", {"prompt": [1]}, {}):
    time.sleep(0.1)
for kind in KINDS:
    for key in ("header", "body", "none"):
        show(kind, key)
PY
timeout 120 python/bin/python route.py 2>log | tee output
cat >expected <<'TXT'
chat, header: 4 of 4, stay
chat, body: 1 of 4, stay
chat, none: 1 of 4, stay
text, header: 4 of 4, stay
text, body: 4 of 4, move
text, none: 4 of 4, move
ids, header: 4 of 4, stay
ids, body: 1 of 4, stay
ids, none: 1 of 4, stay
TXT
cmp expected output
