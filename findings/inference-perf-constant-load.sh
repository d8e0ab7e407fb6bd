#!/bin/sh
# With Kubernetes' inference-perf a load of type "constant", its default, comes at random: intervals are
# exponential, and stretched so that the last request comes as the stage ends. It is a Poisson load of a
# fixed total. Its code speaks of a small amount of noise, but intervals deviate by as much as they last:
# where ten requests a second come to an engine that takes 80 ms for each, four of five wait, and none
# would. "poisson" draws how many come in a second, and stretches them until its end, so that at low
# rates most come on whole seconds.
# Seen with inference-perf 0.7.0: the output below. Its timers are run by themselves, taken from the
# wheel, which asks for a newer Python and for models' tokenizers.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q numpy==2.3.5
python/bin/pip download -q --no-deps --only-binary :all: --python-version 3.12 inference-perf==0.7.0

cat >times.py <<'PY'
import glob
import itertools
import sys
import types
import zipfile

import numpy as np

(wheel,) = glob.glob("inference_perf-*.whl")
source = zipfile.ZipFile(wheel).read("inference_perf/loadgen/load_timer.py").decode()
reader = types.SimpleNamespace(TraceReader=object)
sys.modules["inference_perf.utils.trace_reader"] = reader
timers = {}
exec(compile(source, "load_timer.py", "exec"), timers)


def times(kind, rate, requests=100_000):
    timer = timers[kind](rate, requests / rate)
    return np.array(list(itertools.islice(timer.start_timer(0.0), requests)))


def waiting(times, service):
    """The share of requests that find busy an engine which takes one at a time."""
    free = waited = 0
    for time in times:
        waited += time < free
        free = max(time, free) + service
    return waited / len(times)


for name, at in (
    ("even", np.arange(100_000) / 10),
    ("constant", times("ConstantLoadTimer", 10)),
    ("poisson", times("PoissonLoadTimer", 10)),
):
    intervals = np.diff(at)
    deviation = intervals.std() / intervals.mean()
    print(f"{name}, 10/s: intervals deviate by {deviation:.1f}, {waiting(at, 0.08):.1f} wait")
print(f"constant: the last at second {times('ConstantLoadTimer', 10)[-1]:.3f} of 10000")
at = times("PoissonLoadTimer", 0.5)
on_seconds = np.isclose(at, at.round(), rtol=0, atol=1e-6).mean()
print(f"poisson, 0.5/s: {on_seconds:.1f} on whole seconds")
PY
python/bin/python times.py | tee output
cat >expected <<'TXT'
even, 10/s: intervals deviate by 0.0, 0.0 wait
constant, 10/s: intervals deviate by 1.0, 0.8 wait
poisson, 10/s: intervals deviate by 1.0, 0.8 wait
constant: the last at second 10000.000 of 10000
poisson, 0.5/s: 0.8 on whole seconds
TXT
cmp expected output
