#!/bin/sh
# Models of thirty architectures, such as Kimi-Linear, vLLM runs with breakable CUDA graphs, and thus
# without torch.compile. It decides so as a model is configured, by setting VLLM_USE_BREAKABLE_CUDAGRAPH
# in its own process, and never takes it back: whatever model comes next there is run so, too, even
# where its compiler (mode 3) was asked for, without a word. What a script measures of several models
# depends on their order.
# Seen with vLLM 0.33.0: the output below. Its methods are run by themselves, taken from the wheel: all
# of vLLM would need torch. With all of it, without a GPU, the same comes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >graphs.py <<'PY'
import ast
import glob
import os
import sys
import zipfile
from types import SimpleNamespace
from unittest.mock import Mock

(wheel,) = glob.glob("vllm-*.whl")
sys.path.append(f"{wheel}/vllm")
import envs

switch = "VLLM_USE_BREAKABLE_CUDAGRAPH"
os.environ.pop(switch, None)
graphs = Mock(is_breakable_cudagraph_enabled=lambda: getattr(envs, switch))
sys.modules["vllm.compilation.breakable_cudagraph"] = graphs
platforms = Mock(**{"current_platform.is_rocm.return_value": False})
sys.modules["vllm.platforms"] = platforms

tree = ast.parse(zipfile.ZipFile(wheel).read("vllm/config/vllm.py"))
parts = [p for part in tree.body for p in [part, *getattr(part, "body", [])]]
parts = [part for part in parts if isinstance(part, ast.Assign | ast.FunctionDef)]
tree.body = [p for p in parts if "breakable" in ast.unparse(p).lower().split("(")[0]]
log = Mock()
names = {"os": os, "envs": envs, "logger": log, "lru_cache": lambda function: function}
names["CompilationMode"] = Mock(NONE=0)
exec("from __future__ import annotations\n" + ast.unparse(tree), names)
Config = type("Config", (SimpleNamespace,), names)

for model in ("LlamaForCausalLM", "KimiLinearForCausalLM", "LlamaForCausalLM"):
    compilation = Mock(mode=3)
    config = Config(model_config=Mock(architectures=[model]), compilation_config=compilation)
    config._maybe_enable_breakable_cudagraph()
    print(f"{model}: mode {compilation.mode}, told: {log.info_once.called}")
    log.reset_mock()
PY
python/bin/python graphs.py | tee output
cat >expected <<'TXT'
LlamaForCausalLM: mode 3, told: False
KimiLinearForCausalLM: mode 0, told: True
LlamaForCausalLM: mode 0, told: False
TXT
cmp expected output
