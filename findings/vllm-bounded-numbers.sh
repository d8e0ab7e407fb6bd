#!/bin/sh
# Bounds on a number in a JSON schema for structured output change how it may be written. With a
# "minimum" of 0, as with any other bound, xgrammar and llguidance have no exponents: a model that has
# written the 1 of 1e-05 can't go on with e, and 1 is a valid answer. By xgrammar there are also no more
# than six digits after the point, so that a learning rate of 0.0000003 can't be written at all. Without
# bounds both take each of these numbers; nothing is said of it, and vLLM's default, `auto`, keeps
# bounds with xgrammar. jsonschema 4.26.0 finds all of them valid.
# Seen with vLLM 0.33.0 and the xgrammar 0.2.8 and llguidance 1.7.6 that it asks for (and 0.2.9 and
# 1.9.1): the output below, with the numbers, of seven, that can be written. vLLM's function that
# decides is taken from its wheel; torch and transformers, which xgrammar imports and grammars don't
# need, are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps xgrammar==0.2.8 apache-tvm-ffi==0.1.11 llguidance==1.7.6
python/bin/pip install -q numpy==2.3.5 pydantic==2.13.0 jsonschema==4.26.0 2>pip.log
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >bounds.py <<'PY'
import ast
import glob
import json
import sys
import typing
import unittest.mock
import zipfile

import tvm_ffi  # Before the stubs, as it looks for torch.

sys.modules.update(torch=unittest.mock.MagicMock(), transformers=unittest.mock.MagicMock())
import jsonschema
import llguidance
import xgrammar
from xgrammar.testing import _is_grammar_accept_string

(wheel,) = glob.glob("vllm-*.whl")
path = "vllm/v1/structured_output/backend_xgrammar.py"
tree = ast.parse(zipfile.ZipFile(wheel).read(path))
tree.body = [
    part
    for part in tree.body
    if isinstance(part, ast.Assign) and part.targets[0].id.startswith("STRING_")
    or isinstance(part, ast.FunctionDef) and not part.name.startswith("validate_")
]
vllm = {"Any": typing.Any, "SamplingParams": None}
exec(compile(tree, path, "exec"), vllm)
tokenizer = llguidance.LLTokenizer("byte")


def takes_xgrammar(schema, text):
    return _is_grammar_accept_string(xgrammar.Grammar.from_json_schema(schema), text)


def takes_llguidance(schema, text):
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(schema))
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


for bounds in ({}, {"minimum": 0}, {"exclusiveMinimum": 0, "exclusiveMaximum": 1}):
    schema = {"type": "number"} | bounds
    ours = "llguidance" if vllm["has_xgrammar_unsupported_json_features"](schema) else "xgrammar"
    texts = ["0.5", "0.000001", "0.0000003", "3e-07", "1e-05", "0.1234567", "0.30000000000000004"]
    assert all(jsonschema.Draft202012Validator(schema).is_valid(json.loads(t)) for t in texts)
    print(f"{json.dumps(bounds)}, by vLLM's choice {ours}")
    for takes in (takes_xgrammar, takes_llguidance):
        print(f"  {takes.__name__[6:]}:", *(t for t in texts if takes(json.dumps(schema), t)))
PY
python/bin/python bounds.py | tee output
cat >expected <<'TXT'
{}, by vLLM's choice xgrammar
  xgrammar: 0.5 0.000001 0.0000003 3e-07 1e-05 0.1234567 0.30000000000000004
  llguidance: 0.5 0.000001 0.0000003 3e-07 1e-05 0.1234567 0.30000000000000004
{"minimum": 0}, by vLLM's choice xgrammar
  xgrammar: 0.5 0.000001
  llguidance: 0.5 0.000001 0.0000003 0.1234567 0.30000000000000004
{"exclusiveMinimum": 0, "exclusiveMaximum": 1}, by vLLM's choice xgrammar
  xgrammar: 0.5 0.000001
  llguidance: 0.5 0.000001 0.0000003 0.1234567 0.30000000000000004
TXT
cmp expected output
