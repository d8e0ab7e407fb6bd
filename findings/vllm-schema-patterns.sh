#!/bin/sh
# A "pattern" in a JSON schema for structured output means one thing or another by what stands beside
# it. By the standard it's looked for anywhere in a text, as llguidance does; for xgrammar it is the
# whole text: by "^/" a model can write one slash, and no path. vLLM's default, `auto`, takes xgrammar,
# but llguidance for the whole of a schema that has a word which xgrammar lacks: "maxLength" beside the
# pattern, or "multipleOf" in another field. A pattern from ^ to $ means the same to both.
# Seen with vLLM 0.33.0 and the xgrammar 0.2.8 and llguidance 1.7.6 that it asks for: the output below,
# with the texts that can be written, of two. vLLM's function that decides is taken from its wheel;
# torch and transformers, which xgrammar imports and grammars don't need, are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps xgrammar==0.2.8 apache-tvm-ffi==0.1.11 llguidance==1.7.6
python/bin/pip install -q numpy==2.3.5 pydantic==2.13.0 2>pip.log
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >patterns.py <<'PY'
import ast
import glob
import json
import sys
import typing
import unittest.mock
import zipfile

import tvm_ffi  # Before the stubs, as it looks for torch.

sys.modules.update(torch=unittest.mock.MagicMock(), transformers=unittest.mock.MagicMock())
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


def print_taken(pattern, texts, beside={}, field=None):
    name = {"type": "string", "pattern": pattern, **beside}
    properties = {"name": name} | ({"size": field} if field else {})
    schema = {"type": "object", "properties": properties, "required": ["name"]}
    guidance = vllm["has_xgrammar_unsupported_json_features"](schema)
    takes = takes_llguidance if guidance else takes_xgrammar
    taken = [text for text in texts if takes(json.dumps(schema), json.dumps({"name": text}))]
    more = "".join(f" {json.dumps(part)}" for part in (beside, field) if part)
    print(f"{pattern}{more} by {takes.__name__[6:]}:", *taken)


print_taken("[0-9]", ["7", "gpu-7"])
print_taken("[0-9]", ["7", "gpu-7"], beside={"maxLength": 20})
print_taken("[0-9]", ["7", "gpu-7"], field={"type": "integer", "multipleOf": 8})
print_taken("^/", ["/", "/models/a"])
print_taken("^/", ["/", "/models/a"], beside={"maxLength": 20})
print_taken("^/.*$", ["/", "/models/a"])
print_taken("^/.*$", ["/", "/models/a"], beside={"maxLength": 20})
PY
python/bin/python patterns.py | tee output
cat >expected <<'TXT'
[0-9] by xgrammar: 7
[0-9] {"maxLength": 20} by llguidance: 7 gpu-7
[0-9] {"type": "integer", "multipleOf": 8} by llguidance: 7 gpu-7
^/ by xgrammar: /
^/ {"maxLength": 20} by llguidance: / /models/a
^/.*$ by xgrammar: / /models/a
^/.*$ {"maxLength": 20} by llguidance: / /models/a
TXT
cmp expected output
