#!/bin/sh
# Two benchmarks have readers named for Mooncake's traces, which give a request's time in
# milliseconds, its tokens, and the hashes of its blocks of 512 tokens. GuideLLM's makes the right
# prompts, and takes the milliseconds for seconds: an hour of trace lasts 41 days. SGLang's keeps the
# time, and makes 128 words of each block, whatever the request's length: a quarter of it. Neither
# says so.
# Seen with guidellm 0.8.1 and sglang 0.5.23 on the two requests that Mooncake's README shows, the
# second 3.053 seconds after the first: the output below. Their readers are run by themselves, taken
# from the wheels: all of either would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q faker==40.63.0
python/bin/pip download -q --no-deps --only-binary :all: guidellm==0.8.1
python/bin/pip download -q --no-deps --only-binary :all: --python-version 3.11 \
  --platform manylinux_2_34_x86_64 sglang==0.5.23

cat >trace.jsonl <<'JSON'
{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2366]}
JSON
cat >read.py <<'PY'
import ast
import asyncio
import glob
import itertools
import json
import math
import types
import typing
import zipfile

from faker import Faker

rows = [json.loads(line) for line in open("trace.jsonl")]


def load(package, path, needed, **names):
    """Some classes and functions of a file in a wheel."""
    (wheel,) = glob.glob(f"{package}-*.whl")
    tree = ast.parse(zipfile.ZipFile(wheel).read(f"{package}/{path}"))
    nodes = [node for node in tree.body if getattr(node, "name", "") in needed]
    assert len(nodes) == len(needed), f"{path} has other names now"
    for node in nodes:
        node.decorator_list = []
    code = "from __future__ import annotations\n" + "\n".join(map(ast.unparse, nodes))
    exec(compile(code, path, "exec"), names)
    return names


class Words:
    """Each word is a token."""

    def encode(self, text):
        return text.split()

    def decode(self, tokens, **_):
        return " ".join(tokens)

    def apply_chat_template(self, messages, **_):
        return messages[0]["content"]


class Dataset(list):
    def sort(self, column):
        return Dataset(sorted(self, key=lambda row: row[column]))

    def select(self, indices):
        return Dataset(self[index] for index in indices)


def guidellm():
    common = load(
        "guidellm",
        "data/deserializers/trace_common.py",
        {
            "SingleTurnTraceFormat",
            "TraceFormatBase",
            "_validate_api_row",
            "_validate_row",
            "create_distinct_token_block",
            "create_prompt_from_hash_ids",
            "decode_prompt",
            "duration_columns",
            "fill_hash_id_table",
            "generate_token_ids",
        },
        Protocol=typing.Protocol,
        ConversationGraphData=types.SimpleNamespace,
        ConversationParentRef=types.SimpleNamespace,
        ConversationTurnData=types.SimpleNamespace,
    )
    mooncake = load(
        "guidellm",
        "data/deserializers/trace_mooncake.py",
        {"MooncakeTraceFormat", "_calculate_required_prompt_tokens"},
        math=math,
        **{name: value for name, value in common.items() if not name.startswith("_")},
    )
    scheduler = load(
        "guidellm",
        "scheduler/strategies.py",
        {"TraceReplayStrategy"},
        SchedulingStrategy=object,
        Field=lambda *_, default, **__: default,
        PrivateAttr=lambda *_, **__: None,
        Literal=typing.Literal,
    )
    columns = ("timestamp", "prompt_tokens", "output_tokens", "hash_ids", "duration")
    labels = ("timestamp", "input_length", "output_length", "hash_ids", "duration")
    config = types.SimpleNamespace(
        hash_id_block_size=512, **{f"{c}_column": label for c, label in zip(columns, labels)}
    )
    strategy = scheduler["TraceReplayStrategy"]()

    async def start_time():
        return 0.0

    strategy.get_processes_start_time = start_time
    reader = mooncake["MooncakeTraceFormat"](config, Dataset(rows))
    faker = Faker()
    for conversation in reader:
        (turn,) = reader.build_conversation_graph(conversation, Words(), faker).turns
        (timestamp,) = turn.columns["relative_timestamp_column"]
        settings = types.SimpleNamespace(relative_timestamp=timestamp)
        begin = asyncio.run(strategy._absolute_target(settings))
        yield begin, turn.columns["text_column"][0]


async def sglang():
    now = 0.0

    async def sleep(seconds):
        nonlocal now
        now += seconds

    names = load(
        "sglang",
        "benchmark/datasets/mooncake.py",
        {"get_mooncake_request_over_time"},
        DatasetRow=types.SimpleNamespace,
        asyncio=types.SimpleNamespace(sleep=sleep),
        time=types.SimpleNamespace(perf_counter=lambda: now),
    )
    requests = names["get_mooncake_request_over_time"](rows, Words(), 1.0, 1)
    return [(now, request.prompt) async for request in requests]


for name, requests in (("guidellm", guidellm()), ("sglang", asyncio.run(sglang()))):
    for row, (begin, prompt) in zip(rows, itertools.islice(requests, 2)):
        words = len(prompt.split())
        print(f"{name}: at second {begin:.3f}, {words} words for {row['input_length']} tokens")
PY
python/bin/python read.py | tee output
cat >expected <<'TXT'
guidellm: at second 0.000, 6955 words for 6955 tokens
guidellm: at second 3053.000, 6472 words for 6472 tokens
sglang: at second 0.000, 1788 words for 6955 tokens
sglang: at second 3.053, 1661 words for 6472 tokens
TXT
cmp expected output
