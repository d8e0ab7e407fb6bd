#!/bin/sh
# Qwen3-Coder, MiniMax-M2, GLM-4.7 and Seed-OSS write a tool's arguments between tags, and vLLM reads each
# by its schema, but for a "$ref", which is a text to it. Pydantic makes one of every model and number enum
# inside another: where a tool takes a point, the answer has a text with JSON in it. Behind `hermes`, whose
# models write JSON themselves, the same tool works.
# Seen with vLLM 0.33.0 and 0.26.0: the output below, of Qwen3's parser, run out of the wheel; the rest
# are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q openai==3.54.0 pydantic==2.13.0 \
  partial-json-parser==0.2.1.1.post7 regex==2026.11.19
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >arguments.py <<'PY'
import glob
import sys
import types
import unittest.mock
from importlib.machinery import ModuleSpec

import pydantic
from openai.types.responses import FunctionTool

REAL = ("vllm.parser.engine.", "vllm.parser.qwen3", "vllm.tool_parsers.utils")
(wheel,) = glob.glob("vllm-*.whl")


class Stubs:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("vllm") and not name.startswith(REAL):
            return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return unittest.mock.MagicMock(Parser=object)

    def exec_module(self, module):
        module.__path__ = [wheel + "/" + module.__name__.replace(".", "/")]


sys.meta_path.insert(0, Stubs())
from vllm.parser.engine.parser_engine import ParserEngine
from vllm.parser.qwen3 import _qwen3_arg_converter


class Point(pydantic.BaseModel):
    x: int


class Draw(pydantic.BaseModel):
    at: Point
    to: Point | None


schema = Draw.model_json_schema()
written = "".join(f'<parameter={name}>\n{{"x": 1}}\n</parameter>\n' for name in ("at", "to"))
for title in "Pydantic's", "inlined":
    tool = FunctionTool(type="function", name="draw", parameters=schema, strict=False)
    engine = types.SimpleNamespace(_tools=[tool], _coerce_dict=ParserEngine._coerce_dict)
    read = ParserEngine._fix_arg_types(engine, _qwen3_arg_converter(written, False), "draw")
    print(title, read)
    point = schema["$defs"]["Point"]
    schema["properties"] = {"at": point, "to": {"anyOf": [point, {"type": "null"}]}}
PY
python/bin/python arguments.py | tee output
cat >expected <<'TXT'
Pydantic's {"at": "{\"x\": 1}", "to": "{\"x\": 1}"}
inlined {"at": {"x": 1}, "to": {"x": 1}}
TXT
cmp expected output
