#!/bin/sh
# vLLM sets TRITON_CACHE_AUTOTUNING=1, by which Triton's autotuner keeps on disk what it measured,
# by compute capability and not by GPU: an H100 PCIe and an H200, of other clocks and memory, are
# both 9.0. With a cache that the one filled the other measures nothing, and runs what suited the
# first.
# Seen with triton 3.9.0: the output below. A stand-in for a GPU of 9.0 or 8.9 notes what it is
# asked.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q triton==3.9.0

cat >tune.py <<'PY'
import sys
from types import SimpleNamespace

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

gpu, capability, fastest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
asked = set()
ran = []


class StandIn:
    def __getattr__(self, name):
        asked.add(name)
        if name == "get_current_target":
            return lambda: GPUTarget("cuda", capability, 32)
        raise AttributeError(name)


def measured(call, quantiles):
    call()
    return [1.0 if ran[-1] == fastest else 2.0] * len(quantiles)


@triton.autotune([triton.Config({}, num_warps=n) for n in (4, 8)], ["n"], do_bench=measured)
@triton.jit
def kernel(x, n):
    tl.store(x + n, 1.0)


driver.set_active(StandIn())
kernel.fn.run = lambda *_, num_warps, **__: ran.append(num_warps)
kernel[(1,)](SimpleNamespace(dtype="fp32"), 5)
*tried, warps = ran
print(f"{gpu}, {fastest} warps are faster: tried {tried}, runs with {warps}; asked:", *asked)
PY
tuned() {
  TRITON_CACHE_AUTOTUNING=1 TRITON_CACHE_DIR=cache python/bin/python -W ignore tune.py "$@"
}
{
  tuned 'H100 PCIe' 90 4
  tuned H200 90 8
  tuned L40S 89 8
} | tee output
cat >expected <<'TXT'
H100 PCIe, 4 warps are faster: tried [4, 8], runs with 4; asked: get_current_target
H200, 8 warps are faster: tried [], runs with 4; asked: get_current_target
L40S, 8 warps are faster: tried [4, 8], runs with 8; asked: get_current_target
TXT
cmp expected output
