#!/bin/sh
# A model that transformers 5 has saved, after fine-tuning say, is another one to older readers. 5 writes
# the base of rotary embeddings and their scaling into `rope_parameters` alone, even where it has read
# `rope_theta` and `rope_scaling`. To transformers 4 and mlx-lm's Llama that word means nothing: without
# one of their own they take the base 10,000 and no scaling, and the model is loaded and served with
# other positions than it was trained with. With the old words copied in beside it all agree.
# Seen with transformers 5.24.0 and 4.57.3 and mlx-lm 0.32.2, which wants transformers 5 itself: the
# output below. Of mlx-lm it's the class that reads a Llama's configuration; the rest would need MLX.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 5.24.0 4.57.3; do
  python3 -m venv "$version"
  "$version"/bin/pip install -q "transformers==$version" 2>pip.log
done
python3 -m pip download -q --no-deps mlx-lm==0.32.2

mkdir original
cat >original/config.json <<'JSON'
{"model_type": "llama", "max_position_embeddings": 131072, "rope_theta": 500000, "rope_scaling":
  {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192}, "hidden_size": 64, "num_hidden_layers": 2,
  "intermediate_size": 64, "num_attention_heads": 8, "rms_norm_eps": 1e-5, "vocab_size": 64}
JSON
cat >save.py <<'PY'
import json
import pathlib
import shutil

from transformers import AutoConfig

AutoConfig.from_pretrained("original").save_pretrained("saved")
shutil.copytree("saved", "both")
old, path = (pathlib.Path(folder, "config.json") for folder in ("original", "both"))
path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(old.read_text())))
PY
cat >read.py <<'PY'
import ast
import dataclasses
import glob
import inspect
import json
import typing
import zipfile

from transformers import AutoConfig, __version__


def show(reader, folder, theta, scaling):
    kind = (scaling or {}).get("rope_type", "default")
    print(f"{reader}, {folder}: {theta:g}, {kind}")


names = {**vars(dataclasses), **vars(typing), "inspect": inspect}
wheel = zipfile.ZipFile(*glob.glob("mlx_lm*.whl"))
for file, wanted in ("base", "BaseModelArgs"), ("llama", "ModelArgs"):
    body = ast.parse(wheel.read(f"mlx_lm/models/{file}.py")).body
    (node,) = (part for part in body if getattr(part, "name", "") == wanted)
    exec(ast.unparse(node), names)
for folder in ("original", "saved", "both"):
    config = AutoConfig.from_pretrained(folder)
    if __version__ == "5.24.0":
        show(5, folder, config.rope_parameters["rope_theta"], config.rope_parameters)
        continue
    show(4, folder, config.rope_theta, config.rope_scaling)
    args = names["ModelArgs"].from_dict(json.load(open(f"{folder}/config.json")))
    show("mlx-lm", folder, args.rope_theta, args.rope_scaling)
PY
5.24.0/bin/python save.py 2>log
for version in 5.24.0 4.57.3; do timeout 60 $version/bin/python read.py 2>>log; done | tee output
cat >expected <<'TXT'
5, original: 500000, llama3
5, saved: 500000, llama3
5, both: 500000, llama3
4, original: 500000, llama3
mlx-lm, original: 500000, llama3
4, saved: 10000, default
mlx-lm, saved: 10000, default
4, both: 500000, llama3
mlx-lm, both: 500000, llama3
TXT
cmp expected output
