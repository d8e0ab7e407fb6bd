#!/bin/sh
# `vllm bench serve` reads event streams by a parser of its own. One answer of three tokens, in
# spellings that the HTML standard's grammar of server-sent events allows alike, fails without the
# space after the colon, with an `event:` line, and with CRLF where several events come in one piece,
# as behind a proxy that gathers them. And an answer that ends in its middle, without finish reason
# and without [DONE], counts as completed.
# Seen with vLLM 0.33.0 and aiohttp 3.12.15; the file is run by itself, taken from the wheel, since
# all of vLLM would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q aiohttp==3.12.15 regex==2026.1.15 tqdm==4.67.1
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0
cat >client.py <<'PY'
import asyncio
import contextlib
import glob
import json
import sys
import types
import zipfile

import aiohttp
from aiohttp import web

(wheel,) = glob.glob("vllm-*.whl")
source = zipfile.ZipFile(wheel).read("vllm/benchmarks/lib/endpoint_request_func.py").decode()
client = types.ModuleType("client")
sys.modules["client"] = client  # Dataclasses look up their module.
exec(compile(source, "client", "exec"), client.__dict__)


def chunk(text, finish=None):
    return json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}})
WHOLE = [chunk("a"), chunk("b"), chunk("c", "length"), USAGE, "[DONE]"]
STREAMS = {
    "plain": [f"data: {data}\n\n" for data in WHOLE],
    "no space": [f"data:{data}\n\n" for data in WHOLE],
    "event line": [f"event: message\ndata: {data}\n\n" for data in WHOLE],
    "CRLF": [f"data: {data}\r\n\r\n" for data in WHOLE],
    "CRLF in one piece": ["".join(f"data: {data}\r\n\r\n" for data in WHOLE)],
    "cut off": [f"data: {chunk('a')}\n\n"],
}


async def answer(request):
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # The client leaves what it can't read.
        for piece in STREAMS[(await request.json())["model"]]:
            await response.write(piece.encode())
            await asyncio.sleep(0.05)
    return response


async def main():
    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        for name in STREAMS:
            given = client.RequestFuncInput(
                prompt="x", prompt_len=1, output_len=3, model=name,
                api_url=f"http://127.0.0.1:{port}/v1/completions",
            )
            told = await client.async_request_openai_completions(given, session)
            verdict = "completed" if told.success else "failed"
            print(f"{name}: {verdict}, {told.generated_text!r}, tokens {told.output_tokens}")
    await runner.cleanup()


asyncio.run(main())
PY
python/bin/python client.py | tee output
cat >expected <<'TXT'
plain: completed, 'abc', tokens 3
no space: failed, '', tokens 0
event line: failed, '', tokens 0
CRLF: completed, 'abc', tokens 3
CRLF in one piece: failed, '', tokens 0
cut off: completed, 'a', tokens 0
TXT
cmp expected output
