#!/bin/sh
# vLLM answers 400 to many schemas that Zod makes of texts: `z.string().startsWith("/")` has the "format"
# "starts_with" beside its pattern. A format is an annotation to JSON Schema (2020-12, Validation 7.2.1),
# and xgrammar passes over those it doesn't know. But for them vLLM's default, `auto`, takes llguidance,
# which knows fewer still, and no pattern that looks ahead, as Zod's for durations does. `.regex()` comes
# without a format.
# Seen with zod 4.6.7, whose schemas OpenAI's `zodResponseFormat` sends, vLLM 0.33.0, and the llguidance
# 1.7.6 and xgrammar 0.2.8 that it asks for: the output below. vLLM's function that decides is taken from
# its wheel; torch and transformers, which xgrammar imports and grammars don't need, are stubs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit zod@4.6.7 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q --no-deps xgrammar==0.2.8 apache-tvm-ffi==0.1.11 llguidance==1.7.6
python/bin/pip install -q numpy==2.3.5 pydantic==2.13.0 2>pip.log
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >schemas.mjs <<'JS'
import * as z from "zod";
const text = z.string();
const fields = {
  startsWith: text.startsWith("/"),
  regex: text.regex(/^[/].*$/),
  includes: text.includes("-"),
  lowercase: text.lowercase(),
  base64: z.base64(),
  e164: z.e164(),
  ulid: z.ulid(),
  ipv4: z.ipv4(),
  email: z.email(),
  "email, max": z.email().max(40),
  duration: z.iso.duration(),
  "duration, max": z.iso.duration().max(40),
};
for (const [name, field] of Object.entries(fields)) {
  console.log(JSON.stringify([name, z.toJSONSchema(z.object({ field }))]));
}
JS
cat >check.py <<'PY'
import ast
import glob
import json
import sys
import typing
import unittest.mock
import zipfile

import tvm_ffi  # Before the stubs, as it looks for torch.

sys.modules.update(torch=unittest.mock.MagicMock(), transformers=unittest.mock.MagicMock())
from llguidance import LLMatcher
from xgrammar import Grammar

(wheel,) = glob.glob("vllm-*.whl")
tree = ast.parse(zipfile.ZipFile(wheel).read("vllm/v1/structured_output/backend_xgrammar.py"))
tree.body = [
    part
    for part in tree.body
    if isinstance(part, ast.Assign) and part.targets[0].id.startswith("STRING_")
    or isinstance(part, ast.FunctionDef) and not part.name.startswith("validate_")
]
vllm = {"Any": typing.Any, "SamplingParams": None}
exec(compile(tree, "vllm", "exec"), vllm)
for line in sys.stdin:
    name, schema = json.loads(line)
    Grammar.from_json_schema(json.dumps(schema))  # It raises for what it refuses.
    taken = "taken by xgrammar"
    if vllm["has_xgrammar_unsupported_json_features"](schema):
        refusal = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema))
        taken = refusal.split("\n")[0] or "taken by llguidance"
    print(f"{name}: {taken}")
PY
node schemas.mjs >schemas
python/bin/python check.py <schemas 2>xgrammar.log | tee output
cat >expected <<'TXT'
startsWith: Unknown format: starts_with
regex: taken by xgrammar
includes: Unknown format: includes
lowercase: Unknown format: lowercase
base64: Unknown format: base64
e164: Unknown format: e164
ulid: Unknown format: ulid
ipv4: taken by xgrammar
email: taken by xgrammar
email, max: taken by llguidance
duration: taken by xgrammar
duration, max: regex parse error:
TXT
cmp expected output
