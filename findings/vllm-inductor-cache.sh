#!/bin/sh
# Kernels that torch compiles are kept where TORCHINDUCTOR_CACHE_DIR says, and Triton's where
# TRITON_CACHE_DIR says. vLLM keeps to the second and, on purpose but without a word, not to the first:
# before it compiles a model it overwrites the variable in its own process, by a place under
# VLLM_CACHE_ROOT. So of a volume that was mounted for both, half stays empty, and what vLLM compiled
# goes with its container.
# Seen with vLLM 0.33.0: the output below, for two models in one process. Its function is run by
# itself, taken from the wheel: all of vLLM would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >caches.py <<'PY'
import ast
import glob
import os
import zipfile

(wheel,) = glob.glob("vllm-*.whl")
source = zipfile.ZipFile(wheel).read("vllm/compilation/compiler_interface.py").decode()
(node,) = (n for n in ast.parse(source).body if getattr(n, "name", "") == "initialize_inductor_cache")
names = {"os": os, "_last_inductor_triton_cache_dir": None}
exec(compile("from __future__ import annotations\n" + ast.unparse(node), "vllm", "exec"), names)


def told(title):
    print(title, *(os.environ.get(name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")))


os.environ |= {"TORCHINDUCTOR_CACHE_DIR": "volume/inductor", "TRITON_CACHE_DIR": "volume/triton"}
told("given:")
for model in ("first", "second"):
    names["initialize_inductor_cache"](f"root/{model}")
    told(f"{model} model:")
PY
python/bin/python caches.py | tee output
cat >expected <<'TXT'
given: volume/inductor volume/triton
first model: root/first/inductor_cache volume/triton
second model: root/second/inductor_cache volume/triton
TXT
cmp expected output
