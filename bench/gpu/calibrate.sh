#!/usr/bin/env bash
# A cost profile of a real engine, and what the policies come to with it in simulation.
#
#   bench/gpu/calibrate.sh OUT_DIR
#
# Writes OUT_DIR/profile.json (`lazygraph calibrate`), and with TRACE set OUT_DIR/plan.json and the
# simulated figures of that trace with the measured profile, OUT_DIR/simulate-{first,second}.json.
# Resumable: a file that is there is not made again. An 8B is expected to take some four minutes;
# it has not run on a GPU yet.
#   MODEL         what to serve          (default: a Llama-3.1-8B shape with random weights)
#   VLLM_SERVE    the serve command      (default: vllm serve)
#   SERVE_ARGS    its further arguments
#   PORT          of its API             (default: 8311)
#   SIZES         planned sizes to measure, with commas (default: some fifteen in octaves)
#   TRACE         a request trace for the simulations (default: none are made)
#   LAZYGRAPH     how to start lazygraph (default: node dist/cli/main.js of this checkout)
# Needs Node >= 20, `npm install && npm run build`, and `pip install ./worker` in vLLM's Python.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/calibrate.sh OUT_DIR}
port=${PORT:-8311}
mkdir -p "$out"
read -ra lazygraph <<<"${LAZYGRAPH:-node $here/../../dist/cli/main.js}"
read -ra serve <<<"${VLLM_SERVE:-vllm serve}"
read -ra serve_args <<<"${SERVE_ARGS:-}"
if [ -z "${MODEL:-}" ]; then
  MODEL=$out/llama-3.1-8b
  serve_args+=(--load-format dummy)
  [ -e "$MODEL/tokenizer.json" ] || python3 "$here/random_model.py" llama-3.1-8b "$MODEL"
fi

if [ ! -e "$out/profile.json" ]; then
  "${lazygraph[@]}" calibrate --url "http://127.0.0.1:$port" --model "$MODEL" \
    --output "$out/profile.json" ${SIZES:+--sizes "$SIZES"} \
    -- "${serve[@]}" "$MODEL" --port "$port" "${serve_args[@]}"
fi

[ -n "${TRACE:-}" ] || exit 0
simulate() {
  "${lazygraph[@]}" simulate --trace "$TRACE" --seconds 300 --profile "$out/profile.json" --json "$@"
}
[ -e "$out/simulate-first.json" ] || {
  simulate --policy idle-costed --write-plan "$out/plan.json" >"$out/simulate-first.json.part"
  mv "$out/simulate-first.json.part" "$out/simulate-first.json"
}
[ -e "$out/simulate-second.json" ] || {
  simulate --policy floor,stock,idle-costed --plan "$out/plan.json" >"$out/simulate-second.json.part"
  mv "$out/simulate-second.json.part" "$out/simulate-second.json"
}
