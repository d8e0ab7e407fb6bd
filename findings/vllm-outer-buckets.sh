#!/bin/sh
# Of a vLLM at rest histogram_quantile() tells its outermost buckets. The first of the queue's times ends
# at 0.3 s: of requests that never waited the median is 150 ms, and p99 297. Tokens 2 ms apart have 5 ms,
# and requests that were never preempted half a preemption. The last of token counts ends below
# --max-model-len: with 8,192, prompts of 7,000 tokens have 5,000 by every quantile.
# Seen with vLLM 0.33.0 and prometheus_client 0.26.0: the output below. Which histogram has which buckets
# is read in vLLM's wheel: all of it would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q prometheus_client==0.26.0
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >quantiles.py <<'PY'
import ast
import glob
import zipfile

from prometheus_client import Histogram

wheel = zipfile.ZipFile(glob.glob("vllm-*.whl")[0])
buckets = {}
exec(wheel.read("vllm/v1/metrics/buckets.py"), buckets)
families = {}
for node in ast.walk(ast.parse(wheel.read("vllm/v1/metrics/loggers.py"))):
    told = {key.arg: ast.unparse(key.value) for key in getattr(node, "keywords", [])}
    if "buckets" in told:
        families[told["name"]] = told["buckets"].removesuffix("_buckets")


def quantile(rank, samples):
    """As Prometheus documents it: a straight line through the rank's bucket."""
    low = below = 0
    for sample in samples:
        bound = float(sample.labels["le"])
        if sample.value >= rank:
            part = (rank - below) / (sample.value - below)
            return low if bound == float("inf") else low + (bound - low) * part
        low, below = bound, sample.value


for name, value in {
    "request_queue_time_seconds": 0.0,
    "inter_token_latency_seconds": 0.002,
    "request_num_preemptions": 0,
    "request_prompt_tokens": 7000,
}.items():
    family = families[f"'vllm:{name}'"]
    histogram = Histogram(name, "-", buckets=buckets["histogram_buckets"](family, 8192))
    for _ in range(100):
        histogram.observe(value)
    samples = [sample for sample in histogram.collect()[0].samples if "le" in sample.labels]
    print(f"{name} {value}:", *(f"{quantile(rank, samples):g}" for rank in (50, 99)))
PY
python/bin/python quantiles.py | tee output
cat >expected <<'TXT'
request_queue_time_seconds 0.0: 0.15 0.297
inter_token_latency_seconds 0.002: 0.005 0.0099
request_num_preemptions 0: 0.5 0.99
request_prompt_tokens 7000: 5000 5000
TXT
cmp expected output
