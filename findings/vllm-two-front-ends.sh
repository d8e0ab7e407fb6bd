#!/bin/sh
# One vLLM has two front ends, Python's and, by VLLM_USE_RUST_FRONTEND=1, one in Rust, and of one
# chat they make different prompts, rendering the model's own template by Jinja2 and by MiniJinja. Of
# a list, such as the types of a tool's parameter that may be null, as Nemotron 3's prints them, Python
# makes 'null' and Rust "null"; of a small number in any tool's schema 1e-05 and 0.00001. From there on
# the prefix cache has nothing for the other.
# Seen with vLLM 0.33.0. `vllm-rs render` is its Rust front end without an engine; for Python's, which
# would need torch, transformers renders, as there. Templates: trl 1.16.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q jinja2==3.1.6 tokenizers==0.23.3 transformers==5.20.0
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0 trl==1.16.0

mkdir model
echo '{"model_type": "llama", "vocab_size": 256}' >model/config.json
cat >prompts.py <<'PY'
import glob
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

letters = pre_tokenizers.ByteLevel.alphabet()
raw = Tokenizer(models.BPE(dict(zip(letters, range(256))), []))
raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
raw.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
tokenizer.save_pretrained("model")
zipfile.ZipFile(glob.glob("vllm-*.whl")[0]).extract("vllm/vllm-rs")
os.chmod("vllm/vllm-rs", 0o755)
templates = zipfile.ZipFile(glob.glob("trl-*.whl")[0])
with socket.create_server(("127.0.0.1", 0)) as free:
    port = str(free.getsockname()[1])
command = "vllm/vllm-rs render model --tool-call-parser hermes --trust-request-chat-template --port"
server = subprocess.Popen([*command.split(), port], stdout=2)

rate = {"type": ["number", "null"], "minimum": 0.00001}
tool = {"name": "f", "parameters": {"type": "object", "properties": {"rate": rate}}}
tools = [{"type": "function", "function": tool}]
chat = [{"role": "user", "content": "x"}]


def rust(template):
    body = {"model": "model", "messages": chat, "tools": tools, "chat_template": template}
    url = f"http://127.0.0.1:{port}/v1/chat/completions/render"
    json_type = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), json_type)
    while server.poll() is None:
        try:
            return tokenizer.decode(json.load(urllib.request.urlopen(request))["token_ids"])
        except urllib.error.URLError:
            time.sleep(1)


def python(template):
    return tokenizer.apply_chat_template(chat, tools, chat_template=template, tokenize=False)


try:
    for name in ("nemotron_3_nano", "qwen3"):
        template = templates.read(f"trl/chat_templates/{name}.jinja").decode()
        for render in (python, rust):
            found = re.findall(r"<type>.*number.*|minimum[^}\n]*", render(template))
            print(name, render.__name__, *found)
finally:
    server.terminate()
PY
HF_HUB_OFFLINE=1 timeout 60 python/bin/python prompts.py 2>python.log | tee output
cat >expected <<'TXT'
nemotron_3_nano python <type>['number', 'null']</type> minimum>1e-05</minimum>
nemotron_3_nano rust <type>["number", "null"]</type> minimum>0.00001</minimum>
qwen3 python minimum": 1e-05
qwen3 rust minimum": 0.00001
TXT
cmp expected output
