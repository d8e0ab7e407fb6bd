#!/usr/bin/env bash
# The main job on a real engine: stock and our three modes, starts interleaved, over HTTP.
#
#   bench/gpu/main-job.sh OUT_DIR
#
# Resumable: a cell (round × mode) whose file is in OUT_DIR/cells is not run again.
#   MODEL         what to serve          (default: a Llama-3.1-8B shape with random weights)
#   VLLM_SERVE    the serve command      (default: vllm serve)
#   SERVE_ARGS    its further arguments  (default with random weights: --load-format dummy)
#   GPUS          one cell at a time on each, e.g. 0,1,2,3   (default: 0)
#   ROUNDS        starts per mode        (default: 5)
#   MODES         (default: stock eager lazy idle)
# Needs Node >= 20, `npm install && npm run build`, and in vLLM's Python both plugins:
#   pip install ./worker ./worker/testing
# (worker/testing only times stock's capture exactly; vLLM itself logs whole seconds.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/main-job.sh OUT_DIR}
mkdir -p "$out/cells"
if [ -z "${MODEL:-}" ]; then
  export MODEL=$out/llama-3.1-8b SERVE_ARGS="${SERVE_ARGS:---load-format dummy}"
  [ -e "$MODEL/tokenizer.json" ] || python3 "$here/random_model.py" llama-3.1-8b "$MODEL"
fi
runner=(node)
node -e 'process.exit(process.features.typescript ? 0 : 1)' || runner=(node --import tsx)
exec "${runner[@]}" "$here/main-job.ts" "$out"
