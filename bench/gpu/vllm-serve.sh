#!/usr/bin/env bash
# One schedule through `lazygraph bench` and through `vllm bench serve`, one after the other against
# the same stock server: both must find the same medians.
#
#   bench/gpu/vllm-serve.sh OUT_DIR
#
#   MODEL, VLLM_SERVE, SERVE_ARGS   as for ttft.sh
#   VLLM_BENCH    the other client  (default: vllm bench serve)
#   RATE, SECONDS_MAX               Poisson arrivals a second (4), and for how long (120)
#   ROUNDS        of both clients   (default: 2)
# Hypothesis: median TTFT and time per output token agree within 5%. Refuted by a line that says
# `fails`. Their token counts must agree first, as the server counts them. OUT_DIR/agreement.json.
# Both clients take turns, so that a drift of the server shows.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:?usage: bench/gpu/vllm-serve.sh OUT_DIR}
mkdir -p "$out"
cd "$out"
if [ -z "${MODEL:-}" ]; then
  MODEL=llama-3.1-8b
  [ -e $MODEL/tokenizer.json ] || python3 "$here/random_model.py" llama-3.1-8b $MODEL
  SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
fi
# By its name alone, so that results don't hold this host's paths.
if [[ $MODEL = /* ]]; then
  ln -sfn "$MODEL" "$(basename "$MODEL")"
  MODEL=$(basename "$MODEL")
fi
# Their prompts are text: made of a model's random tokens, the server's tokenizer would make several
# times as many of it, unless each is a letter.
tokenizer=()
[ -d "$MODEL/letters" ] && tokenizer=(--tokenizer "$MODEL/letters")
run=(node --import "$root/node_modules/tsx/dist/loader.mjs" "$here/vllm-serve.ts")
port=$("${run[@]}" port)
# shellcheck disable=SC2086
LAZYGRAPH_DISABLE=1 ${VLLM_SERVE:-vllm serve} $MODEL ${SERVE_ARGS:-} --port "$port" >server.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
until curl -sf "http://127.0.0.1:$port/health" >/dev/null; do
  kill -0 $server || { echo "The server ended; see $out/server.log." >&2; exit 1; }
  sleep 0.2
done
pairs=()
for ((round = 1; round <= ${ROUNDS:-2}; round++)); do
  rm -rf "ours-$round"
  node "$root/dist/cli/main.js" bench --url "http://127.0.0.1:$port" --out "ours-$round" \
    --arrivals poisson --request-rate "${RATE:-4}" --seconds "${SECONDS_MAX:-120}" --seed "$round" \
    --input-len 256-2048 --output-len 64-192 --num-warmups 8 \
    --text-prompts >/dev/null
  count=$("${run[@]}" schedule "ours-$round/schedules/load.csv" "schedule-$round.jsonl" "$round")
  # shellcheck disable=SC2086
  ${VLLM_BENCH:-vllm bench serve} --backend openai --base-url "http://127.0.0.1:$port" \
    --endpoint /v1/completions --model $MODEL "${tokenizer[@]}" --dataset-name timed_trace \
    --dataset-path "schedule-$round.jsonl" --num-prompts "$count" --ignore-eos --temperature 0 \
    --num-warmups 8 --percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,99 \
    --save-result --result-dir . --result-filename "theirs-$round.json" >"theirs-$round.log" 2>&1
  pairs+=("ours-$round/vllm/live~load~1.json" "theirs-$round.json")
done
"${run[@]}" compare agreement.json "${pairs[@]}"
