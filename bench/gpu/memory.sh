#!/usr/bin/env bash
# GPU memory under load on an engine: who dies at which utilisation, what a reservation costs,
# and what happens when a stranger takes memory during a fill.
#
#   bench/gpu/memory.sh OUT_DIR [PIECE ...]
#
# Pieces, in order; without names all that are not done yet. A piece is one start of an engine (the
# first on a host also fills the compile caches), takes at most PIECE_SECONDS and leaves PIECE.json
# and PIECE.log in OUT_DIR; one that has its JSON is not run again.
#   warm            fills the compile caches, not counted
#   reference       stock with plenty of memory, two passes: the tokens to compare with
#   stock-0.985     none-0.985   ours-0.985      200 requests of 900 tokens in, 8 out, four waves
#   stock-0.99      none-0.99    ours-0.99       (none: cudagraph_mode=NONE, no graphs)
#   plan-0.99       plan-0.995      ours, with reserve=plan
#   none-0.995      the same utilisation without graphs
#   stranger        ours; 1 GiB of the GPU is taken during a fill, and given back
#   graphs          ours with plenty of memory: bytes of each graph, for `npm run bench:forecast`
#   report          no start: sums up what there is into OUT_DIR/memory.json and prints a table
# Variables:
#   MODEL           what to serve            (default: a Llama-3.1-8B shape with random weights)
#   VLLM_SERVE      the serve command        (default: vllm serve)
#   SERVE_ARGS      its further arguments    (for example --tensor-parallel-size 2)
#   LAZYGRAPH       our command              (default: node dist/cli/main.js)
#   MODE            ours: eager, lazy, idle  (default: idle)
#   GPU             which one                (default: 0)
#   STEP_LEVELS     concurrent requests at which a decode step is timed (default: 1 8 64 200)
#   PIECE_SECONDS   limit of one piece       (default: 460)
#   STRANGER_UTILIZATION (default: 0.975)    STRANGER_BYTES (default: 1 GiB)
# Needs Node >= 20, `npm install && npm run build`, and in vLLM's Python both plugins:
#   pip install ./worker ./worker/testing
# (worker/testing draws weights at fan-in scale: tokens mean something.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/memory.sh OUT_DIR [PIECE ...]}
shift
mkdir -p "$out"
if [ -z "${MODEL:-}" ]; then
  export MODEL=$out/llama-3.1-8b SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
  [ -e "$MODEL/tokenizer.json" ] || python3 "$here/random_model.py" llama-3.1-8b "$MODEL"
fi
export LAZYGRAPH=${LAZYGRAPH:-"node $here/../../dist/cli/main.js"}
exec python3 "$here/memory.py" "$out" "$@"
