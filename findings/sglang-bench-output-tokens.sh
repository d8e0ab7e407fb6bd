#!/bin/sh
# SGLang's benchmark of OpenAI-compatible servers takes the output tokens it asked for as those that
# came, unless the stream says otherwise; and it doesn't ask for that. An answer that ends after
# three tokens of 256 counts 256, in throughput and in time per output token. Asked to by
# --extra-request-body '{"stream_options": {"include_usage": true}}', a server sends a last chunk
# without choices, as OpenAI documents: on chat completions the count is then right, but on
# completions the answer fails, by IndexError.
# Seen with sglang 0.5.23 and aiohttp 3.14.5. Its request functions run alone, out of the wheel: all
# of SGLang would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q aiohttp==3.14.5
python/bin/pip download -q --no-deps --only-binary :all: --python-version 3.11 \
  --platform manylinux_2_34_x86_64 sglang==0.5.23

cat >bench.py <<'PY'
import argparse
import ast
import asyncio
import contextlib
import glob
import http.server
import json
import os
import sys
import threading
import time
import traceback
import zipfile
from dataclasses import dataclass, field

import aiohttp

remove_prefix = str.removeprefix
# What its command line gives by default.
args = argparse.Namespace(
    disable_stream=False, disable_ignore_eos=False, return_logprob=False, top_logprobs_num=0
)
(wheel,) = glob.glob("sglang-*.whl")
for node in ast.parse(zipfile.ZipFile(wheel).read("sglang/benchmark/serving.py")).body:
    if hasattr(node, "name"):
        with contextlib.suppress(NameError):  # What can't be defined here isn't needed.
            exec("from __future__ import annotations\n" + ast.unparse(node), globals())


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        """Three tokens and the end, however many were asked for; the usage if that was."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = {"delta": {"content": "a"}} if "messages" in asked else {"text": "a"}
        chunks = [{"choices": [{"index": 0, **text}]}] * 3
        if "stream_options" in asked:
            chunks.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for data in [*map(json.dumps, chunks), "[DONE]"]:
            self.wfile.write(f"data: {data}\n\n".encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
for path, request in (
    ("completions", async_request_openai_completions),
    ("chat/completions", async_request_openai_chat_completions),
):
    for usage, extra in ("plain", {}), ("usage", {"stream_options": {"include_usage": True}}):
        url = f"http://127.0.0.1:{server.server_port}/v1/{path}"
        told = asyncio.run(request(RequestFuncInput("x", url, 1, 256, "m", None, None, extra)))
        verdict = "completed" if told.success else told.error.strip().splitlines()[-1]
        print(f"{path}, {usage}: {told.output_len} tokens, {verdict}")
PY
timeout 60 python/bin/python bench.py 2>log | tee output
cat >expected <<'TXT'
completions, plain: 256 tokens, completed
completions, usage: 0 tokens, IndexError: list index out of range
chat/completions, plain: 256 tokens, completed
chat/completions, usage: 3 tokens, completed
TXT
cmp expected output
