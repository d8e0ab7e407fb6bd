#!/bin/sh
# Triton keeps a compiled kernel under a key of its source, that of the functions it calls, and the
# constants it names. A constant that it reaches in another way is in the kernel and not in the key:
# one read from a module, a helper's default, a plain number in a constexpr_function. Whoever
# changes it, elsewhere or by the environment, gets the kernel with the old value from a warm cache.
# Seen with triton 3.9.0, compiling for a GPU that isn't there: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q triton==3.9.0

cat >settings.py <<'PY'
import os

import triton.language as tl

SCALE = tl.constexpr(int(os.environ["SCALE"]))
PY
cat >kernels.py <<'PY'
import triton
import triton.language as tl

import settings
from settings import SCALE

NUMBER = SCALE.value


@triton.jit
def by_name(x):
    tl.store(x, SCALE)


@triton.jit
def through_a_module(x):
    tl.store(x, settings.SCALE)


@triton.jit
def helper(x, scale=NUMBER):
    tl.store(x, scale)


@triton.jit
def by_default(x):
    helper(x)


@triton.constexpr_function
def scale():
    return NUMBER


@triton.jit
def by_function(x):
    tl.store(x, scale())
PY
cat >compile.py <<'PY'
import os
import re

import kernels
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

print("SCALE is", os.environ["SCALE"])
for name in ("by_name", "through_a_module", "by_default", "by_function"):
    source = ASTSource(getattr(kernels, name), {"x": "*i32"}, {})
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    (stored,) = re.findall(r"constant (\d+) : i32", kernel.asm["ttir"])
    print(f"{name}: {stored}")
PY
for scale in 7 9; do
  SCALE=$scale TRITON_CACHE_DIR=cache python/bin/python -W ignore compile.py
done | tee output
cat >expected <<'TXT'
SCALE is 7
by_name: 7
through_a_module: 7
by_default: 7
by_function: 7
SCALE is 9
by_name: 9
through_a_module: 7
by_default: 7
by_function: 7
TXT
cmp expected output
