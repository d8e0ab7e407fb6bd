#!/bin/sh
# EvalScope's table of throughput has a column "Steady (drop 20%)", which doubles what a steady server
# does, or makes it two hundred times as much: a request's tokens count at the moment that it ends, and
# the window begins at the first end, so that it has the tokens of the first wave and not their time. Two
# requests for each in flight, as its search for an SLA sends by default, are two waves; with one wave
# the window is what lies between the first end and the last. Beyond five it is right, nearly.
# And its "Spec. Accept Rate" is told by tokens per event: three drafts that are all accepted are 75%,
# and an engine that has no drafts and sends 8 tokens an event (vLLM's --stream-interval 8) has 87.5%.
# Seen with evalscope 1.14.1: the output below. Its classes for both are run on records as it makes them,
# of 64 requests in flight, each 256 tokens in 20 s; their imports of its other parts are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pydantic==2.13.0 tabulate==0.9.0
python/bin/pip install -q --no-deps evalscope==1.14.1

cat >figures.py <<'PY'
import importlib.util
import sys
import types
import unittest.mock

(found,) = importlib.util.find_spec("evalscope").submodule_search_locations
for name in ("evalscope", "evalscope.utils"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [found + name.removeprefix("evalscope").replace(".", "/")]
for name in ("evalscope.metrics", "evalscope.metrics.semantics", "evalscope.utils.logger"):
    sys.modules[name] = unittest.mock.MagicMock()
from evalscope.perf.utils.benchmark_util import BenchmarkData, MetricsAccumulator
from evalscope.perf.utils.workload_timeline import WorkloadTimeline


def record(start, seconds, tokens, events):
    return BenchmarkData(
        start_time=start,
        completed_time=start + seconds,
        query_latency=seconds,
        success=True,
        is_stream=True,
        prompt_tokens=64,
        completion_tokens=tokens,
        n_decode_chunks=events,
    )


for waves in (1, 2, 3, 6, 10):
    timeline = WorkloadTimeline()
    for wave in range(waves):
        for request in range(64):  # They end within a tenth of a second.
            timeline.feed(record(1 + 20 * wave, 20 + request / 640, 256, 256))
    row = timeline.to_summary().rows[-1]
    print(f"{waves} waves, {row.metric}: {row.overall:.0f}, steady {row.steady_state:.0f}")

for name, events in (
    ("no drafts, an event a token", 257),
    ("no drafts, 8 tokens an event", 33),
    ("3 drafts, all accepted", 65),
):
    accumulator = MetricsAccumulator(concurrency=64)
    accumulator.update(record(1, 20, 257, events), None)
    rate = accumulator.to_result().create_message().get("Spec. Accept Rate")
    print(f"{name}: acceptance rate {rate}")
PY
python/bin/python figures.py | tee output
cat >expected <<'TXT'
1 waves, Completion tok/s: 815, steady 163840
2 waves, Completion tok/s: 817, steady 1618
3 waves, Completion tok/s: 818, steady 1219
6 waves, Completion tok/s: 819, steady 819
10 waves, Completion tok/s: 819, steady 900
no drafts, an event a token: acceptance rate None
no drafts, 8 tokens an event: acceptance rate 0.875
3 drafts, all accepted: acceptance rate 0.75
TXT
cmp expected output
