#!/usr/bin/env bash
# Starts of many model families, stock and ours interleaved: capture before ready, decoding, memory,
# load that begins at ready, and the right tokens.
#
#   bench/gpu/families.sh OUT_DIR             the families of families.json
#   LIST=1 bench/gpu/families.sh OUT_DIR      which cells are open and how long they take; runs nothing
#   REPORT=1 bench/gpu/families.sh OUT_DIR    sums up what there is into OUT_DIR/families.json
#
# Resumable: a cell whose JSON is in OUT_DIR/cells is not run again; one that failed leaves its reason
# in CELL.failed, and a family with two of these is left (delete them to try again).
#   FAMILIES      names, with commas          (default: all of the file)
#   CELLS         parts of cells' names, with commas, such as .start.0.,.parity.   (default: all)
#   SPEC          another file of families    (default: bench/gpu/families.json)
#   GPUS          one family at a time on each, e.g. 0,1; families of several GPUs come last (0)
#   SECONDS_MAX   starts no cell that is not expected to end in this time   (default: none)
#   READY_WITHIN  longest wait for one server, from spawn                   (default: 420)
#   LAUNCHER      socket of `lazygraph launcher`: starts by fork, without imports   (default: none)
#   MODELS        folder of models by shape; missing ones are made           (default: OUT_DIR/models)
#   CACHES        folder of compile caches, one for each family              (default: vLLM's own;
#                 not with LAUNCHER: torch reads where Inductor's are when it is imported)
#   PYTHON        vLLM's                       (default: python3)
#   VLLM_SERVE    the serve command            (default: PYTHON -m vllm.entrypoints.cli.main serve)
#   LAZYGRAPH     our command                  (default: node dist/cli/main.js)
#   LEVELS        of concurrent requests to decode with                      (default: 1,8,64,256)
#   REPETITIONS   of each of them              (default: 3)
#   PIN=0         don't give each lane its own share of the cores
# Needs Node >= 20, `npm install && npm run build`, and in vLLM's Python both plugins:
#   pip install ./worker ./worker/testing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/families.sh OUT_DIR}
mkdir -p "$out/cells"
runner=(node)
node -e 'process.exit(process.features.typescript ? 0 : 1)' || runner=(node --import tsx)
exec "${runner[@]}" "$here/families.ts" "$out"
