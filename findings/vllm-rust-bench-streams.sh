#!/bin/sh
# vLLM has its load generator twice: VLLM_USE_RUST_BENCH=1 makes `vllm bench serve` one in Rust, and
# for it an answer is over at the first comment between events. Comments are what vLLM's own server
# sends, by --sse-keep-alive-interval, while a request waits. So who waits longest for a first token has
# failed, or, of chats, been served one token in no time; with a later pause, an answer is completed
# with the tokens until then. The generator in Python reads on. And of a chat the one in Rust takes
# the chunk that names the role, with no text yet, for the first token.
# Seen with vLLM 0.33.0: the output below, in seconds. Its server's keep-alive, its client in Python and
# its program in Rust are taken from its wheel, as all of vLLM would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q aiohttp==3.12.15 regex==2026.1.15 tokenizers==0.23.3 tqdm==4.67.1
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

mkdir model
echo '{"model_type": "llama", "vocab_size": 256}' >model/config.json
echo '{"prompt": "x"}' >prompts.jsonl
cat >streams.py <<'PY'
import asyncio
import glob
import json
import os
import sys
import types
import zipfile

import aiohttp
from aiohttp import web
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

letters = pre_tokenizers.ByteLevel.alphabet()
tokenizer = Tokenizer(models.BPE(dict(zip(letters, range(256))), []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.save("model/tokenizer.json")
wheel = zipfile.ZipFile(glob.glob("vllm-*.whl")[0])
os.chmod(wheel.extract("vllm/vllm-rs"), 0o755)


def module(name, path):
    made = sys.modules[name] = types.ModuleType(name)  # Dataclasses look up their module.
    exec(compile(wheel.read(path), path, "exec"), made.__dict__)
    return made


client = module("client", "vllm/benchmarks/lib/endpoint_request_func.py")
server = module("server", "vllm/entrypoints/serve/utils/sse_keep_alive.py")

USAGE = {"prompt_tokens": 1, "completion_tokens": 3}
ROLE = {"delta": {"role": "assistant", "content": ""}}
CHAT = [{"delta": {"content": letter}} for letter in "abc"]
TEXT = [{"text": letter} for letter in "abc"]
PAUSE = 1.5  # The server's interval is 1.
STREAMS = {
    "completion": TEXT,
    "completion, pause before the first": [PAUSE, *TEXT],
    "completion, pause before the second": [TEXT[0], PAUSE, *TEXT[1:]],
    "chat": [ROLE, *CHAT],
    "chat, pause before the first": [PAUSE, ROLE, *CHAT],
    "chat, pause before the second": [ROLE, CHAT[0], PAUSE, *CHAT[1:]],
    "chat, role half a second early": [ROLE, 0.5, *CHAT],
}


async def events(model):
    for part in STREAMS[model]:
        if isinstance(part, float):
            await asyncio.sleep(part)
        else:
            finish = "length" if part in (CHAT[-1], TEXT[-1]) else None
            choice = {"index": 0, **part, "finish_reason": finish}
            yield f"data: {json.dumps({'choices': [choice]})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n"
    yield "data: [DONE]\n\n"


async def answer(request):
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    try:
        async for event in server.with_sse_keep_alive(events((await request.json())["model"]), 1):
            await response.write(event.encode())
    except ConnectionError:
        pass  # The client has left.
    return response


async def by_python(url, model):
    chat = model.startswith("chat")
    ask = f"async_request_openai_{'chat_completions' if chat else 'completions'}"
    asked = client.RequestFuncInput("x", url + ("chat/" if chat else "") + "completions", 1, 3, model)
    async with aiohttp.ClientSession() as session:
        got = await getattr(client, ask)(asked, session)
    return got.success, got.output_tokens, got.ttft


async def by_rust(url, model):
    words = f"--backend {'openai-chat' if model.startswith('chat') else 'openai'} --num-prompts 1"
    words += " --dataset-name custom --dataset-path prompts.jsonl --custom-output-len 3"
    words += " --tokenizer model --save-result --result-filename result.json --model"
    command = ["vllm/vllm-rs", "bench", "serve", "--base-url", url[:-4], *words.split(), model]
    await (await asyncio.create_subprocess_exec(*command, stdout=2)).wait()
    with open("result.json") as file:
        got = json.load(file)
    return got["completed"] == 1, got["total_output_tokens"], got["mean_ttft_ms"] / 1000


async def main():
    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/"
    for model in STREAMS:
        for measure in (by_python, by_rust):
            completed, tokens, ttft = await measure(url, model)
            seen = f"{tokens} tokens, first at {round(ttft * 2) / 2}" if completed else "failed"
            print(f"{model}: {measure.__name__[3:]} {seen}", flush=True)
    await runner.cleanup()


asyncio.run(main())
PY
timeout 120 python/bin/python streams.py 2>python.log | tee output
cat >expected <<'TXT'
completion: python 3 tokens, first at 0.0
completion: rust 3 tokens, first at 0.0
completion, pause before the first: python 3 tokens, first at 1.5
completion, pause before the first: rust failed
completion, pause before the second: python 3 tokens, first at 0.0
completion, pause before the second: rust 1 tokens, first at 0.0
chat: python 3 tokens, first at 0.0
chat: rust 3 tokens, first at 0.0
chat, pause before the first: python 3 tokens, first at 1.5
chat, pause before the first: rust 1 tokens, first at 0.0
chat, pause before the second: python 3 tokens, first at 0.0
chat, pause before the second: rust 2 tokens, first at 0.0
chat, role half a second early: python 3 tokens, first at 0.5
chat, role half a second early: rust 3 tokens, first at 0.0
TXT
cmp expected output
