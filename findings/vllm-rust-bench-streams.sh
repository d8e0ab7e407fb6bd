#!/bin/sh
# vLLM has its load generator twice: VLLM_USE_RUST_BENCH=1 makes `vllm bench serve` one in Rust, and
# for it an answer is over at the first comment between events. vLLM's own server sends comments, by
# --sse-keep-alive-interval, while a request waits. So who waits longest for a first token has failed,
# or, of chats, been served one token in no time; with a late pause, an answer is completed with the
# tokens until then. The one in Python reads on. And of a chat the one in Rust takes the chunk that
# names the role, without text, for the first token.
# Seen with vLLM 0.33.0: the output below, in seconds, of what its wheel has (all of it needs torch).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q aiohttp==3.12.15 regex==2026.1.15 tqdm==4.67.1
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

mkdir model
echo '{"prompt": "x"}' >prompts.jsonl
echo '{"model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}' >model/tokenizer.json
cat >streams.py <<'PY'
import asyncio
import glob
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import types
import zipfile

import aiohttp

wheel = zipfile.ZipFile(glob.glob("vllm-*.whl")[0])
os.chmod(wheel.extract("vllm/vllm-rs"), 0o755)
client = sys.modules["client"] = types.ModuleType("client")  # Dataclasses look up their module.
exec(wheel.read("vllm/benchmarks/lib/endpoint_request_func.py"), vars(client))
exec(wheel.read("vllm/entrypoints/serve/utils/sse_keep_alive.py"), server := {})


def event(**part):
    return f"data: {json.dumps({'choices': [{'index': 0, **part}]})}\n\n"


PAUSE = (0.5, server["SSE_KEEP_ALIVE_COMMENT"], 0.5)
USAGE = 'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}}\n\n'
ROLE = event(delta={"role": "assistant", "content": ""})
CHAT = [event(delta={"content": letter}) for letter in "abc"]
TEXT = [event(text=letter) for letter in "abc"]
STREAMS = {
    "completion": TEXT,
    "completion, early pause": [*PAUSE, *TEXT],
    "completion, late pause": [TEXT[0], *PAUSE, *TEXT[1:]],
    "chat, role a second early": [ROLE, 0.5, 0.5, *CHAT],
    "chat, early pause": [*PAUSE, ROLE, *CHAT],
    "chat, late pause": [ROLE, CHAT[0], *PAUSE, *CHAT[1:]],
}


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        model = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in [*STREAMS[model], USAGE, "data: [DONE]\n\n", ""]:
            if part == 0.5:
                time.sleep(part)
            else:
                self.wfile.write(f"{len(part):x}\r\n{part}\r\n".encode())


async def python(model, path):
    ask = client.ASYNC_REQUEST_FUNCS["openai-chat" if "chat" in path else "openai"]
    async with aiohttp.ClientSession() as session:
        got = await ask(client.RequestFuncInput("x", url + path, 1, 3, model), session)
    return got.success, got.output_tokens, got.ttft


async def rust(model, path):
    words = f"--base-url {url} --endpoint {path} --num-prompts 1 --tokenizer model --save-result"
    words += f" --backend {'openai-chat' if 'chat' in path else 'openai'} --result-filename result"
    words += " --dataset-name custom --dataset-path prompts.jsonl --custom-output-len 3 --model"
    subprocess.run(["vllm/vllm-rs", "bench", "serve", *words.split(), model], stdout=2)
    got = json.load(open("result"))
    return got["completed"], got["total_output_tokens"], got["mean_ttft_ms"] / 1000


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
for model in STREAMS:
    for measure in (python, rust):
        path = "/v1/chat/completions" if model.startswith("chat") else "/v1/completions"
        completed, tokens, ttft = asyncio.run(measure(model, path))
        seen = f"{tokens} tokens, first at {ttft:.0f}" if completed else "failed"
        print(f"{model}: {measure.__name__} {seen}", flush=True)
PY
timeout 120 python/bin/python streams.py 2>log | tee output
cat >expected <<'TXT'
completion: python 3 tokens, first at 0
completion: rust 3 tokens, first at 0
completion, early pause: python 3 tokens, first at 1
completion, early pause: rust failed
completion, late pause: python 3 tokens, first at 0
completion, late pause: rust 1 tokens, first at 0
chat, role a second early: python 3 tokens, first at 1
chat, role a second early: rust 3 tokens, first at 0
chat, early pause: python 3 tokens, first at 1
chat, early pause: rust 1 tokens, first at 0
chat, late pause: python 3 tokens, first at 0
chat, late pause: rust 2 tokens, first at 0
TXT
cmp expected output
