#!/bin/sh
# vLLM's help calls `--compilation-config '{"a": 1}'` and `--compilation-config.a 1` equivalent. Given
# together, or one in a file for `--config` and one on the command line, they aren't merged: the dotted
# option replaces the JSON whole, wherever it stands. Nor are `-cc.a` and `--compilation-config.b`,
# two names of one option: one of them is dropped. Of a JSON given twice vLLM warns, of these it says
# nothing. So who caps the size of CUDA graphs by a dotted option loses the mode that a JSON asks for.
# A dotted list given twice is added to, where of any other value the last counts.
# Seen with vLLM 0.33.0: the output below. Its parser is run by itself, taken from the wheel, with one
# of its server's options: all of vLLM would need torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pyyaml==6.0.3 regex==2026.1.15
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

printf 'compilation-config:\n  cudagraph_mode: PIECEWISE\n' >mode.yaml
cat >parse.py <<'PY'
import glob
import json
import sys
import types
import zipfile

warnings = []
logger = types.SimpleNamespace(warning=lambda *words: warnings.append(words))
sys.modules["vllm.logger"] = types.SimpleNamespace(init_logger=lambda _: logger)
(wheel,) = glob.glob("vllm-*.whl")
source = zipfile.ZipFile(wheel).read("vllm/utils/argparse_utils.py").decode()
parsing = types.ModuleType("parsing")
exec(compile(source, "parsing", "exec"), parsing.__dict__)
CONFIG = "--compilation-config"
JSON = [CONFIG, '{"cudagraph_mode":"PIECEWISE"}']
CAP = "max_cudagraph_capture_size"
DOTTED = [f"{CONFIG}.{CAP}", "64"]
LIST = f"{CONFIG}.cudagraph_capture_sizes"
for what, words in {
    "JSON": JSON,
    "JSON, dotted": [*JSON, *DOTTED],
    "dotted, JSON": [*DOTTED, *JSON],
    "file, dotted": ["--config", "mode.yaml", *DOTTED],
    "two names": [f"-cc.{CAP}", "64", f"{CONFIG}.cudagraph_mode", "PIECEWISE"],
    "JSON twice": [*JSON, CONFIG, '{"%s":64}' % CAP],
    "list twice": [LIST, "[1,2]", LIST, "[4]"],
}.items():
    warnings.clear()
    parser = parsing.FlexibleArgumentParser()
    serve = parser.add_subparsers(dest="subparser").add_parser("serve")
    serve.add_argument("model_tag", nargs="?")
    serve.add_argument("--config")
    serve.add_argument(CONFIG, "-cc", type=json.loads)
    got = json.dumps(parser.parse_args(["serve", "model", *words]).compilation_config)
    print(f"{what}: {got}" + (", warned" if warnings else ""))
PY
python/bin/python parse.py | tee output
cat >expected <<'TXT'
JSON: {"cudagraph_mode": "PIECEWISE"}
JSON, dotted: {"max_cudagraph_capture_size": 64}
dotted, JSON: {"max_cudagraph_capture_size": 64}
file, dotted: {"max_cudagraph_capture_size": 64}
two names: {"cudagraph_mode": "PIECEWISE"}
JSON twice: {"max_cudagraph_capture_size": 64}, warned
list twice: {"cudagraph_capture_sizes": [1, 2, 4]}
TXT
cmp expected output
