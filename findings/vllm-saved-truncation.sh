#!/bin/sh
# A tokenizer that was called with `max_length`, as for fine-tuning, is saved with it: `save_pretrained()`
# writes it into tokenizer.json. transformers, and so vLLM, overlooks it there. vLLM's front end in Rust
# doesn't where it has to take the library tokenizers, as for Gemma's kind of tokenizer: without a word
# every prompt ends after that many tokens, and after `padding="max_length"` shorter ones are filled up.
# Seen with vLLM 0.33.0 and transformers 5.20.0 on a tokenizer with Gemma's normalizer: the output below,
# each's tokens. `vllm-rs render` is the front end without an engine.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q tokenizers==0.23.3 transformers==5.20.0
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >prompts.py <<'PY'
import glob
import json
import os
import subprocess
import time
import urllib.request
import zipfile

from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

zipfile.ZipFile(glob.glob("vllm-*.whl")[0]).extract("vllm/vllm-rs")
os.chmod("vllm/vllm-rs", 0o755)
raw = Tokenizer(models.BPE({"<pad>": 0, "▁": 1, "a": 2}, []))
raw.normalizer = normalizers.Replace(" ", "▁")
trained = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>")
url = "http://127.0.0.1:18941/v1/completions/render"


def rust(prompt):
    body = json.dumps({"model": "m", "prompt": prompt}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    while server.poll() is None:
        try:
            return json.load(urllib.request.urlopen(request))[0]["token_ids"]
        except OSError:
            time.sleep(1)


for options in {}, {"max_length": 16, "padding": "max_length", "truncation": True}:
    trained("a", **options)
    trained.save_pretrained("m")
    with open("m/config.json", "w") as file:
        file.write('{"model_type": "llama", "vocab_size": 3}')
    server = subprocess.Popen("exec timeout 60 vllm/vllm-rs render m --port 18941 >&2", shell=True)
    for prompt in " a" * 50, " a":
        print(*options, len(AutoTokenizer.from_pretrained("m")(prompt)[0]), len(rust(prompt)))
    server.terminate()
    server.wait()
PY
HF_HUB_OFFLINE=1 python/bin/python prompts.py 2>log | tee output
cat >expected <<'TXT'
100 100
2 2
max_length padding truncation 100 16
max_length padding truncation 2 16
TXT
cmp expected output
