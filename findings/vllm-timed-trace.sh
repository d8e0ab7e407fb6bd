#!/bin/sh
# `vllm bench serve --dataset-name timed_trace` was made for Mooncake's traces, whose blocks have 512
# tokens and whose times are milliseconds; its defaults are those of Alibaba's, 16 tokens and
# seconds, and nothing compares them with the file. And the seed of a block's tokens is Python's
# hash of a text, which differs from process to process, whatever --seed says.
# Seen with vLLM 0.33.0 on the first of the two requests that Mooncake's README shows
# (timestamp 27482, 6,955 tokens in 14 blocks): by default a prompt of 224 tokens at second 27,482;
# with the right flags one of 6,955 at second 27.482; its tokens are the same in two processes only
# under one PYTHONHASHSEED.
# The class is run by itself, taken from the wheel: all of vLLM would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >trace.jsonl <<'JSON'
{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354]}
JSON
cat >sample.py <<'PY'
import ast
import glob
import json
import random
import sys
import types
import zipfile

(wheel,) = glob.glob("vllm-*.whl")
source = zipfile.ZipFile(wheel).read("vllm/benchmarks/datasets/datasets.py").decode()
node = next(n for n in ast.parse(source).body if getattr(n, "name", "") == "TimedTrace")


class Base:
    """What vLLM's base class does for this one: it keeps the path and the seed."""

    def __init__(self, dataset_path, random_seed, **_):
        self.dataset_path, self.random_seed = dataset_path, random_seed


class Tokenizer:
    all_special_ids = [0]

    def get_vocab(self):
        return {str(token): token for token in range(32_000)}


names = {
    "BenchmarkDataset": Base,
    "SampleRequest": types.SimpleNamespace,
    "np": types.SimpleNamespace(random=random),
    "random": random,
    "json": json,
}
code = "from __future__ import annotations\n" + ast.get_source_segment(source, node)
exec(compile(code, "TimedTrace", "exec"), names)
labels = ("timestamp", "input_length", "output_length", "hash_ids")
flags = {f"timed_trace_label_{label}": label for label in labels}
if "--mooncake" in sys.argv:
    flags |= {"timed_trace_chunk_hash_size": 512, "timed_trace_sec_multiplier": 0.001}
trace = names["TimedTrace"](dataset_path="trace.jsonl", random_seed=0, **flags)
(request,) = trace.sample(Tokenizer(), 1)
print(f"{request.timestamp:.3f}", request.prompt_len)
print(*request.prompt, file=open(sys.argv[1], "w"))
PY
run() { python/bin/python sample.py "$@" | tail -1; }
{ run one; run two --mooncake; } | tee output
printf '27482.000 224\n27.482 6955\n' | cmp - output
PYTHONHASHSEED=1 run fixed-1 >/dev/null
PYTHONHASHSEED=1 run fixed-2 >/dev/null
run random >/dev/null
cmp fixed-1 fixed-2
if cmp -s one random; then echo "the tokens no longer depend on the process" && exit 1; fi
echo "one --seed, two processes: other tokens"
