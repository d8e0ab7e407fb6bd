#!/bin/sh
# What a YAML file for `vllm serve --config` switches off stays on. vLLM makes `--no-NAME` of
# `NAME: false` where the parser has that option; but the parser that reads the file is that of `vllm`,
# and the options are its subcommand's, so `false` is dropped without a word. It works for `python -m
# vllm.entrypoints.openai.api_server`, which has no subcommands, and there in dashes alone: with
# underscores, which do for everything else, it's dropped too. And `--config=FILE`, written as one
# word, is taken for an option that was read, and the file is not.
# Seen with vLLM 0.33.0: the output below. Its parser is run by itself, taken from the wheel, with
# three of its server's options: all of vLLM would need torch. With all of it the same comes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pyyaml==6.0.3 regex==2026.1.15
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

printf 'port: 9000\nenable-prefix-caching: true\n' >on.yaml
printf 'port: 9000\nenable-prefix-caching: false\n' >off.yaml
printf 'port: 9000\nenable_prefix_caching: false\n' >under.yaml
cat >parse.py <<'PY'
import argparse
import glob
import logging
import sys
import types
import zipfile

(wheel,) = glob.glob("vllm-*.whl")
sys.modules["vllm.logger"] = types.SimpleNamespace(init_logger=logging.getLogger)
exec(zipfile.ZipFile(wheel).read("vllm/utils/argparse_utils.py"))


def add_options(parser):
    parser.add_argument("--config")
    parser.add_argument("--port", type=int, default=8000)
    # The default is true for most models, and None here.
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)
    return parser


def vllm_serve(*words):
    parser = FlexibleArgumentParser()
    serve = parser.add_subparsers(dest="subparser").add_parser("serve")
    add_options(serve).add_argument("model_tag", nargs="?")
    return parser.parse_args(["serve", "model", *words])


def api_server(*words):
    return add_options(FlexibleArgumentParser()).parse_args(list(words))


for server in (vllm_serve, api_server):
    for words in (
        ("--no-enable-prefix-caching",),
        ("--config", "on.yaml"),
        ("--config", "off.yaml"),
        ("--config", "under.yaml"),
        ("--config=on.yaml",),
    ):
        got = server(*words)
        print(f"{server.__name__} {' '.join(words)}: {got.port}, {got.enable_prefix_caching}")
PY
python/bin/python parse.py | tee output
cat >expected <<'TXT'
vllm_serve --no-enable-prefix-caching: 8000, False
vllm_serve --config on.yaml: 9000, True
vllm_serve --config off.yaml: 9000, None
vllm_serve --config under.yaml: 9000, None
vllm_serve --config=on.yaml: 8000, None
api_server --no-enable-prefix-caching: 8000, False
api_server --config on.yaml: 9000, True
api_server --config off.yaml: 9000, False
api_server --config under.yaml: 9000, None
api_server --config=on.yaml: 8000, None
TXT
cmp expected output
