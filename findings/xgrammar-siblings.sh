#!/bin/sh
# xgrammar, by which vLLM and SGLang write structured output unless told otherwise, reads nothing beside
# "anyOf", "$ref" or "enum" in a schema, and warns of none of it. Where a tool is to be given a file or a
# URL (properties, and beside them an "anyOf" of two "required"), a model may write any JSON at all; where
# properties stand beside an "anyOf" of others, what the schema asks for can't be written. In JSON Schema
# all keywords of an object count, and since 2019-09 those beside "$ref" too (2020-12, Core 8.2.3.1).
# Seen with xgrammar 0.2.9 and llguidance 1.7.6, which reads them, and jsonschema 4.26.0, which validates:
# the output below. 0.2.8, which vLLM 0.33.0 asks for, is no other, and vLLM's `auto` takes it for all of
# these. torch and transformers, which xgrammar imports and grammars don't need, are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps xgrammar==0.2.9 apache-tvm-ffi==0.1.11 llguidance==1.7.6
python/bin/pip install -q numpy==2.3.5 pydantic==2.13.0 jsonschema==4.26.0 2>pip.log

cat >siblings.py <<'PY'
import json
import sys
import unittest.mock

import tvm_ffi  # Before the stubs, as it looks for torch.

sys.modules.update(torch=unittest.mock.MagicMock(), transformers=unittest.mock.MagicMock())
import jsonschema
import llguidance
import xgrammar
from xgrammar.testing import _is_grammar_accept_string

tokenizer = llguidance.LLTokenizer("byte")


def by_xgrammar(schema, text):
    return _is_grammar_accept_string(xgrammar.Grammar.from_json_schema(json.dumps(schema)), text)


def by_llguidance(schema, text):
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(schema))
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def show(name, schema, *values):
    validator = jsonschema.Draft202012Validator(schema)
    for ways, takes in {
        "valid": lambda value: validator.is_valid(value),
        "xgrammar": lambda value: by_xgrammar(schema, json.dumps(value)),
        "llguidance": lambda value: by_llguidance(schema, json.dumps(value)),
    }.items():
        print(f"{name}, {ways}:", *(json.dumps(value) for value in values if takes(value)))


text = {"type": "string"}
one = {"anyOf": [{"required": [name]} for name in ("file", "url")]}
given = {"type": "object", "properties": {"file": text, "url": text}, "additionalProperties": False}
show("one of two", given | one, {"file": "a"}, {}, {"b": 1}, 42)
more = {"anyOf": [{"properties": {name: text}, "required": [name]} for name in ("file", "url")]}
common = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
show("common part", common | more, {"id": 1, "file": "a"}, {"file": "a"})
show("of a $ref", {"$ref": "#/$defs/t", "maxLength": 1, "$defs": {"t": text}}, "a", "ab")
show("of an enum", {"enum": ["a", "ab"], "maxLength": 1}, "a", "ab")
PY
python/bin/python siblings.py | tee output
cat >expected <<'TXT'
one of two, valid: {"file": "a"}
one of two, xgrammar: {"file": "a"} {} {"b": 1} 42
one of two, llguidance: {"file": "a"}
common part, valid: {"id": 1, "file": "a"}
common part, xgrammar: {"file": "a"}
common part, llguidance: {"id": 1, "file": "a"}
of a $ref, valid: "a"
of a $ref, xgrammar: "a" "ab"
of a $ref, llguidance: "a"
of an enum, valid: "a"
of an enum, xgrammar: "a" "ab"
of an enum, llguidance: "a"
TXT
cmp expected output
