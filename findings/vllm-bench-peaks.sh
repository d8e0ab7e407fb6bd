#!/bin/sh
# Two peaks that `vllm bench serve` tells are none. "Peak concurrent requests" (in its file
# `max_concurrent_requests`) counts the requests that were under way at any time within a second: with
# --max-concurrency 1, as many as it got answered in one. "Peak output token throughput" counts the
# stream's chunks as tokens; where a chunk has several, as with speculative decoding, it's below the
# mean. `vllm bench sweep plot_pareto` then takes the former for the users, if the load is a rate, and
# draws tokens per second and user a multiple too low. Tokens per second and GPU it draws for one GPU,
# unless the sweep varies the parallel sizes; of num_gpus and gpu_count, which its help names, it
# reads neither.
# Seen with vLLM 0.33.0: the output below. The functions, taken from the wheel, as all of vLLM
# would need torch, are given two seconds of 64 answers each, one after another, each of eight tokens in
# two chunks.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q numpy==2.3.5
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >peaks.py <<'PY'
import ast
import contextlib
import glob
import types
import warnings
import zipfile
from dataclasses import dataclass

import numpy as np

wheel = zipfile.ZipFile(glob.glob("vllm-*.whl")[0])


def taken(file, **names):
    for node in ast.parse(wheel.read(f"vllm/benchmarks/{file}")).body:
        if hasattr(node, "name"):
            with contextlib.suppress(NameError):  # What can't be defined here isn't needed.
                exec("from __future__ import annotations\n" + ast.unparse(node), names)
    return names


names = {"TERM_PLOTLIB_AVAILABLE": False, "dataclass": dataclass, "np": np, "warnings": warnings}
bench = taken("serve.py", **names)
answers = [
    types.SimpleNamespace(
        success=True, prompt_len=1, output_tokens=8, input_audio_duration=0,
        start_time=index / 64, ttft=1 / 256, itl=[1 / 128], latency=3 / 256,
    )
    for index in range(128)
]
with contextlib.redirect_stdout(None):  # Its advice on plots.
    told, _ = bench["calculate_metrics"]([], answers, 2, None, [99], {})
print(f"at once: 1, told: {told.max_concurrent_requests}")
print(f"tokens/s: {told.output_throughput:.0f}, peak told: {told.max_output_tokens_per_s:.0f}")

# As `vllm bench serve --request-rate 64 --metadata num_gpus=8` stores it.
stored = {
    "request_rate": 64,
    "max_concurrency": None,
    "max_concurrent_requests": told.max_concurrent_requests,
    "output_throughput": told.output_throughput,
    "num_gpus": "8",
}
pareto = taken("sweep/plot_pareto.py")
drawn = pareto["_prepare_records"]([stored], user_count_var="max_concurrency", gpu_count_var=None)
print("drawn: users {user_count_estimate:.0f}, GPUs {gpu_count:.0f}".format(**drawn[0][0]))
PY
python/bin/python peaks.py | tee output
cat >expected <<'TXT'
at once: 1, told: 64
tokens/s: 512, peak told: 128
drawn: users 64, GPUs 1
TXT
cmp expected output
