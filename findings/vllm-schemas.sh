#!/bin/sh
# Two surprises of JSON schemas for structured output: what one allows depends on who enforces it.
# vLLM's default, `auto`, takes xgrammar, but llguidance for the whole of a schema that has a word which
# xgrammar lacks, such as "maxLength" or "multipleOf". Nothing is said of either.
# A "pattern" is looked for anywhere in a text by the standard and by llguidance, and is the whole text
# for xgrammar: by "^/" a model can write one slash, and no path. From ^ to $ it means the same to both.
# Bounds on a number change how it may be written. With a "minimum" of 0, as with any other bound,
# neither has exponents: a model that has written the 1 of 1e-05 can't go on with e, and 1 is a valid
# answer. By xgrammar, which vLLM keeps for bounds, there are also no more than six digits after the
# point, so that a learning rate of 0.0000003 can't be written at all. Without bounds both take each of
# these numbers; jsonschema 4.26.0 finds all of them valid.
# Seen with vLLM 0.33.0 and the xgrammar 0.2.8 and llguidance 1.7.6 that it asks for (bounds with 0.2.9
# and 1.9.1, too): the output below, with the texts, or numbers of seven, that can be written. vLLM's
# function that decides is taken from its wheel; torch and transformers, which xgrammar imports and
# grammars don't need, are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps xgrammar==0.2.8 apache-tvm-ffi==0.1.11 llguidance==1.7.6
python/bin/pip install -q numpy==2.3.5 pydantic==2.13.0 jsonschema==4.26.0 2>pip.log
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >schemas.py <<'PY'
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


def chosen(schema):
    guidance = vllm["has_xgrammar_unsupported_json_features"](schema)
    return takes_llguidance if guidance else takes_xgrammar


def print_taken(pattern, texts, beside={}, field=None):
    name = {"type": "string", "pattern": pattern, **beside}
    properties = {"name": name} | ({"size": field} if field else {})
    schema = {"type": "object", "properties": properties, "required": ["name"]}
    takes = chosen(schema)
    taken = [text for text in texts if takes(json.dumps(schema), json.dumps({"name": text}))]
    more = "".join(f" {json.dumps(part)}" for part in (beside, field) if part)
    print(f"{pattern}{more} by {takes.__name__[6:]}:", *taken)


print_taken("[0-9]", ["7", "gpu-7"])
print_taken("[0-9]", ["7", "gpu-7"], beside={"maxLength": 20})
print_taken("[0-9]", ["7", "gpu-7"], field={"type": "integer", "multipleOf": 8})
for pattern in ("^/", "^/.*$"):
    for beside in ({}, {"maxLength": 20}):
        print_taken(pattern, ["/", "/models/a"], beside=beside)

for bounds in ({}, {"minimum": 0}, {"exclusiveMinimum": 0, "exclusiveMaximum": 1}):
    schema = {"type": "number"} | bounds
    texts = ["0.5", "0.000001", "0.0000003", "3e-07", "1e-05", "0.1234567", "0.30000000000000004"]
    assert all(jsonschema.Draft202012Validator(schema).is_valid(json.loads(t)) for t in texts)
    print(f"{json.dumps(bounds)}, by vLLM's choice {chosen(schema).__name__[6:]}")
    for takes in (takes_xgrammar, takes_llguidance):
        print(f"  {takes.__name__[6:]}:", *(t for t in texts if takes(json.dumps(schema), t)))
PY
python/bin/python schemas.py | tee output
cat >expected <<'TXT'
[0-9] by xgrammar: 7
[0-9] {"maxLength": 20} by llguidance: 7 gpu-7
[0-9] {"type": "integer", "multipleOf": 8} by llguidance: 7 gpu-7
^/ by xgrammar: /
^/ {"maxLength": 20} by llguidance: / /models/a
^/.*$ by xgrammar: / /models/a
^/.*$ {"maxLength": 20} by llguidance: / /models/a
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
