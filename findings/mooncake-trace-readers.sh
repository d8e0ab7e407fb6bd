#!/bin/sh
# Two benchmarks have readers named for Mooncake's traces, which give a request's time in
# milliseconds, its tokens, and the hashes of its blocks of 512 tokens. GuideLLM's makes the right
# prompts, and takes the milliseconds for seconds: an hour of trace lasts 41 days. SGLang's keeps the
# time, and makes 128 words of each block, whatever the request's length: a quarter of it. Neither
# says so.
# Seen with guidellm 0.8.1 and sglang 0.5.23 on the two requests that Mooncake's README shows, the
# second 3.053 seconds after the first: the output below, words for tokens. Their readers
# are taken from the wheels, as all of either would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip download -q --no-deps --only-binary :all: guidellm==0.8.1
python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 \
  --platform manylinux_2_34_x86_64 sglang==0.5.23

cat >read.py <<'PY'
import ast
import asyncio
import contextlib
import glob
import math
import random
import time
import zipfile
from types import SimpleNamespace

rows = [
    {"timestamp": at, "input_length": given, "output_length": asked, "hash_ids": [*range(46, 58), *end]}
    for at, given, asked, end in ((27482, 6955, 52, [2353, 2354]), (30535, 6472, 26, [2366]))
]
names = {"asyncio": asyncio, "math": math, "time": time}
names["Field"] = names["PrivateAttr"] = lambda default=None, **_: default
names |= dict.fromkeys(("Protocol", "SchedulingStrategy"), object)
for name in ("DatasetRow", "ConversationGraphData", "ConversationTurnData"):
    names[name] = SimpleNamespace


def take(path):
    (wheel,) = glob.glob(path.split("/")[0] + "-*.whl")
    for node in ast.parse(zipfile.ZipFile(wheel).read(path)).body:
        if hasattr(node, "decorator_list"):
            node.decorator_list = []
            with contextlib.suppress(NameError):  # The rest isn't needed here.
                exec("from __future__ import annotations\n" + ast.unparse(node), names)


take("guidellm/data/deserializers/trace_common.py")
take("guidellm/data/deserializers/trace_mooncake.py")
take("guidellm/scheduler/strategies.py")
take("sglang/benchmark/datasets/mooncake.py")
# Each word is a token, each text is of other words.
words = SimpleNamespace(
    encode=str.split,
    decode=lambda tokens, **_: " ".join(tokens),
    apply_chat_template=lambda messages, **_: messages[0]["content"],
)
faker = SimpleNamespace(text=lambda size: f"{random.random()} " * size)


class Dataset(list):
    def sort(self, _):
        return self

    def select(self, indices):
        return [self[index] for index in indices]


def show(name, row, begin, prompt):
    print(name, f"at second {begin:.0f}, {len(prompt.split())} words for", row["input_length"])


async def main():
    config = SimpleNamespace(
        hash_id_block_size=512,
        timestamp_column="timestamp",
        prompt_tokens_column="input_length",
        output_tokens_column="output_length",
        hash_ids_column="hash_ids",
        duration_column="duration",
    )
    reader = names["MooncakeTraceFormat"](config, Dataset(rows))
    strategy = names["TraceReplayStrategy"]()
    strategy.get_processes_start_time = lambda: asyncio.sleep(0, 0)
    for row, conversation in zip(rows, reader):
        (turn,) = reader.build_conversation_graph(conversation, words, faker).turns
        (timestamp,) = turn.columns["relative_timestamp_column"]
        begin = await strategy._absolute_target(SimpleNamespace(relative_timestamp=timestamp))
        show("guidellm", row, begin, turn.columns["text_column"][0])
    left, start = iter(rows), time.perf_counter()
    async for request in names["get_mooncake_request_over_time"](rows, words, 1, 1):
        show("sglang", next(left), time.perf_counter() - start, request.prompt)


asyncio.run(main())
PY
python3 read.py | tee output
cat >expected <<'TXT'
guidellm at second 0, 6955 words for 6955
guidellm at second 3053, 6472 words for 6472
sglang at second 0, 1788 words for 6955
sglang at second 3, 1661 words for 6472
TXT
cmp expected output
