#!/bin/sh
# @huggingface/jinja, with which transformers.js and gateways in Node render chat templates, makes other
# prompts of a chat than vLLM. Its lstrip("\n") reads no argument and strips all white space: of code
# that a model of Qwen's answered after thinking, the first line has lost its indentation once it is
# history. And true and 1.0 are printed as JavaScript does: to Qwen3.5 and Nemotron 3 an earlier call's
# `True` is `true`. So what is counted in front of vLLM isn't what vLLM reads, and of a prompt that is
# sent as text the cache has nothing from there on.
# Seen with @huggingface/jinja 0.5.11 and transformers 5.20.0, by which vLLM renders, on templates of
# trl 1.16.0: the output below, Node's lines and Python's. Takes a minute, and 300 MB.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @huggingface/jinja@0.5.11 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q jinja2==3.1.6 transformers==5.20.0 2>pip.log
python/bin/pip download -q --no-deps trl==1.16.0
python/bin/python -m zipfile -e trl-*.whl .

cat >chat.json <<'JSON'
[{"role": "user", "content": "The line?"},
 {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n    return x",
  "tool_calls": [{"function": {"name": "edit", "arguments": {"force": true, "rate": 1.0}}}]},
 {"role": "tool", "content": "done"}, {"role": "user", "content": "Thanks."}]
JSON
cat >render.mjs <<'JS'
import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";

const template = new Template(readFileSync(process.argv[2], "utf8"));
console.log(template.render({ messages: JSON.parse(readFileSync("chat.json", "utf8")) }));
JS
cat >render.py <<'PY'
import json
import sys

from transformers.utils.chat_template_utils import render_jinja_template

chat = json.load(open("chat.json"))
print(render_jinja_template([chat], chat_template=open(sys.argv[1]).read())[0][0])
PY
for name in qwen3 qwen3_5_think nemotron_3_nano; do
  echo $name
  template=trl/chat_templates/$name.jinja
  node render.mjs $template >node.txt
  python/bin/python render.py $template >python.txt 2>python.log
  diff node.txt python.txt | grep '^[<>]'
done | tee output
cat >expected <<'TXT'
qwen3
< return x
>     return x
< {"name": "edit", "arguments": {"force": true, "rate": 1}}
> {"name": "edit", "arguments": {"force": true, "rate": 1.0}}
qwen3_5_think
< return x
>     return x
< true
> True
< 1
> 1.0
nemotron_3_nano
< true
> True
< 1
> 1.0
TXT
cmp expected output
