#!/bin/sh
# Engines give one LoRA adapter different strengths. PEFT, which writes it, scales it by lora_alpha / r,
# with `use_rslora` by lora_alpha / sqrt(r), and by `alpha_pattern` a module has its own alpha; so does
# vLLM. SGLang and LMDeploy read r and lora_alpha alone: of a rank-stabilized adapter of rank 64 they
# apply an eighth, without a word.
# Seen with vllm 0.33.0, sglang 0.5.23 and lmdeploy 0.18.0: the output below, of their own code, taken
# from the wheels: all of them would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_34_x86_64 \
  vllm==0.33.0 sglang==0.5.23 lmdeploy==0.18.0

cat >strengths.py <<'PY'
import ast
import dataclasses
import glob
import math
import re
from types import SimpleNamespace
from unittest.mock import MagicMock
from zipfile import ZipFile


def taken(file, wanted, **names):
    """One of a file's definitions."""
    wheel = ZipFile(glob.glob(file.split("/")[0] + "-*.whl")[0])
    body = ast.parse(wheel.read(file)).body
    (node,) = (n for n in body if getattr(n, "name", "") == wanted)
    exec("from __future__ import annotations\n" + ast.unparse(node), names)
    return names[wanted]


names = {**vars(dataclasses), "logger": MagicMock(), "math": math, "re": re}
peft = taken("vllm/lora/peft_helper.py", "PEFTHelper", **names)
read = taken("sglang/srt/lora/lora_config.py", "LoRAConfig")
nn = SimpleNamespace(Module=object, ModuleList=list)
adapter = taken("sglang/srt/lora/lora.py", "LoRAAdapter", nn=nn)
model = MagicMock(num_hidden_layers=0)
torch = MagicMock(tensor=lambda values, device: values)
scalings = taken("lmdeploy/pytorch/adapter/adapter.py", "get_ranks_and_scalings", torch=torch)
for told in {"r": 64}, {"r": 64, "use_rslora": True}, {"r": 16, "alpha_pattern": {"v_proj": 64}}:
    lora = {"peft_type": "LORA", "lora_alpha": 16, "target_modules": ["v_proj"], **told}
    _, vllm = peft.from_dict(lora).get_rank_and_scaling("v_proj")
    sglang = adapter("a", read.from_dict(lora), model, None, None).scaling
    _, (lmdeploy,) = scalings("v_proj", [SimpleNamespace(**lora)])
    print(*told.items(), f"{vllm=} {sglang=} {lmdeploy=}")
PY
python3 strengths.py | tee output
cat >expected <<'TXT'
('r', 64) vllm=0.25 sglang=0.25 lmdeploy=0.25
('r', 64) ('use_rslora', True) vllm=2.0 sglang=0.25 lmdeploy=0.25
('r', 16) ('alpha_pattern', {'v_proj': 64}) vllm=4.0 sglang=1.0 lmdeploy=1.0
TXT
cmp expected output
