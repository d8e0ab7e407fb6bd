#!/usr/bin/env bash
# The main job on a real engine: stock and our three modes, starts interleaved, over HTTP.
#
#   bench/gpu/main-job.sh OUT_DIR
#
# Resumable: a cell (round × mode) whose file is in OUT_DIR/cells is not run again.
#   MODEL         what to serve          (default: a Llama-3.1-8B shape with random weights)
#   VLLM_SERVE    the serve command      (default: vllm serve)
#   SERVE_ARGS    its further arguments
#   GPUS          one cell at a time on each, e.g. 0,1,2,3   (default: 0)
#   ROUNDS        starts per mode        (default: 5)
#   MODES         (default: stock eager lazy idle; stock-plan: with VLLM_ENABLE_STARTUP_PLAN=1, whose
#                 first start makes the plan; stock-ten: ten sizes by hand)
#   REPETITIONS   of each decode level per start (default: 3)
#   WARM_UP=0     leave out the first, uncounted start that fills the compile caches
# At 256 concurrent streams the API server's own work shows in the time per token; add
# `--stream-interval 8` to SERVE_ARGS to see the engine's.
# Needs Node >= 20, `npm install && npm run build`, and in vLLM's Python both plugins:
#   pip install ./worker ./worker/testing
# (worker/testing only times stock's capture exactly; vLLM itself logs whole seconds.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/main-job.sh OUT_DIR}
mkdir -p "$out/cells"
if [ -z "${MODEL:-}" ]; then
  export MODEL=$out/llama-3.1-8b SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
  [ -e "$MODEL/tokenizer.json" ] || python3 "$here/random_model.py" llama-3.1-8b "$MODEL"
fi
runner=(node)
node -e 'process.exit(process.features.typescript ? 0 : 1)' || runner=(node --import tsx)
exec "${runner[@]}" "$here/main-job.ts" "$out"
