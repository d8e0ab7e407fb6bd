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
import dataclasses
import glob
import json
import os
import sys
import time
import traceback
import types
import zipfile

import aiohttp
from aiohttp import web

(wheel,) = glob.glob("sglang-*.whl")
source = zipfile.ZipFile(wheel).read("sglang/benchmark/serving.py").decode()
NEEDED = {
    "RequestFuncInput",
    "RequestFuncOutput",
    "_combine_openai_chat_content",
    "_create_bench_client_session",
    "_record_server_prompt_len",
    "async_request_openai_chat_completions",
    "async_request_openai_completions",
    "get_auth_headers",
    "get_request_headers",
}
nodes = [node for node in ast.parse(source).body if getattr(node, "name", "") in NEEDED]
assert len(nodes) == len(NEEDED), "its functions have other names now"
client = types.ModuleType("client")
sys.modules["client"] = client  # Dataclasses look up their module.
client.__dict__.update(
    # What its command line gives by default.
    args=argparse.Namespace(
        disable_stream=False, disable_ignore_eos=False, return_logprob=False, top_logprobs_num=0
    ),
    dataclass=dataclasses.dataclass,
    field=dataclasses.field,
    remove_prefix=str.removeprefix,
    **{name.__name__: name for name in (aiohttp, json, os, sys, time, traceback)},
)
code = "from __future__ import annotations\n" + "\n".join(map(ast.unparse, nodes))
exec(compile(code, "client", "exec"), client.__dict__)


async def answer(request):
    """Three tokens and the end, however many were asked for; the usage if that was."""
    asked = await request.json()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    chunks = []
    for text, finish in (("a", None), ("b", None), ("c", "stop")):
        content = {"delta": {"content": text}} if "messages" in asked else {"text": text}
        chunks.append({"choices": [{"index": 0, **content, "finish_reason": finish}]})
    if asked.get("stream_options", {}).get("include_usage"):
        chunks.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}})
    for chunk in chunks:
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def main():
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    for path, request in (
        ("completions", client.async_request_openai_completions),
        ("chat/completions", client.async_request_openai_chat_completions),
    ):
        for extra in ({}, {"stream_options": {"include_usage": True}}):
            given = client.RequestFuncInput(
                prompt="x", prompt_len=1, output_len=256, model="m", lora_name=None,
                image_data=None, extra_request_body=extra,
                api_url=f"http://127.0.0.1:{port}/v1/{path}",
            )
            told = await request(given)
            verdict = "completed" if told.success else told.error.strip().splitlines()[-1]
            usage = "usage" if extra else "plain"
            print(f"{path}, {usage}: {told.output_len} tokens, {verdict}")
    await runner.cleanup()


asyncio.run(main())
PY
timeout 60 python/bin/python bench.py | tee output
cat >expected <<'TXT'
completions, plain: 256 tokens, completed
completions, usage: 0 tokens, IndexError: list index out of range
chat/completions, plain: 256 tokens, completed
chat/completions, usage: 3 tokens, completed
TXT
cmp expected output
