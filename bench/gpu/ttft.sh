#!/usr/bin/env bash
# Time to first token around captures, as `lazygraph bench` measures it on a real engine.
#
#   bench/gpu/ttft.sh OUT_DIR              the matrix of ttft.json
#   SPEC=agreement bench/gpu/ttft.sh DIR   three loads, lazily and fully captured, and then the same
#                                          requests in the simulator, side by side
#   SPEC=ttft-simulated bench/gpu/ttft.sh DIR   a dry run without a GPU
#
# Resumable: cells that OUT_DIR has complete are not run again, so stop it when you like.
#   MODEL        what to serve          (default: a Llama-3.1-8B shape with random weights)
#   VLLM_SERVE   the serve command      (default: vllm serve)
#   SERVE_ARGS   its further arguments
#   POLICY       simple or costed, of lazy and idle mode (default: simple)
#   TRACE        request trace          (default: the conversation trace)
#   CELLS        at most so many cells now             (default: all)
#   ONLY         only MODE/LOAD[/RUN], * for any part  (default: all)
# A first start on a host fills vLLM's compile caches: set WARM_UP=1 once, it is not counted.
# Needs `npm install && npm run build`, and for the real engine `pip install ./worker`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:?usage: bench/gpu/ttft.sh OUT_DIR}
spec=${SPEC:-ttft}
mkdir -p "$out"
out=$(cd "$out" && pwd)
# Files are named relative to the folder, so that results don't hold this host's paths.
cp -f "${TRACE:-$root/traces/azure-llm-2023-conversation.csv.gz}" "$out/trace.csv.gz"
cd "$out"
export TRACE=trace.csv.gz POLICY=${POLICY:-simple} VLLM_SERVE=${VLLM_SERVE:-vllm serve}
if [ -z "${MODEL:-}" ] && [ "$spec" != ttft-simulated ]; then
  [ -e llama-3.1-8b/tokenizer.json ] || python3 "$here/random_model.py" llama-3.1-8b llama-3.1-8b
  SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
fi
export MODEL=${MODEL:-llama-3.1-8b} SERVE_ARGS=${SERVE_ARGS:-}
bench=(node "$root/dist/cli/main.js" bench)
if [ -n "${WARM_UP:-}" ]; then
  "${bench[@]}" --out warm-up --no-report --arrivals constant --request-rate 1 --num-prompts 2 \
    -- sh -c "exec $VLLM_SERVE $MODEL $SERVE_ARGS --port {port}"
fi
limits=()
[ -z "${CELLS:-}" ] || limits+=(--cells "$CELLS")
[ -z "${ONLY:-}" ] || limits+=(--only "$ONLY")
status=0
"${bench[@]}" --spec "$here/$spec.json" --out results "${limits[@]}" || status=$?
if [ "$spec" = agreement ]; then
  node --import "$root/node_modules/tsx/dist/loader.mjs" "$root/bench/agreement.ts" results \
    --json results/agreement.json
fi
exit "$status"
