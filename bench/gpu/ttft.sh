#!/usr/bin/env bash
# Time to first token around captures, as `lazygraph bench` measures it on a real engine.
#
#   bench/gpu/ttft.sh OUT_DIR              the matrix of ttft.json
#   SPEC=agreement bench/gpu/ttft.sh DIR   three loads, lazily and fully captured, and then the same
#                                          requests in the simulator, side by side
#   SPEC=ttft-simulated bench/gpu/ttft.sh DIR   a dry run without a GPU
#   LIST=1 bench/gpu/ttft.sh OUT_DIR       which cells are open and how long they take; runs nothing
#
# The whole of ttft.json takes about 118 min on one GPU and 59 min on two (GPUS=0,1),
# at 56 s from the spawn of an engine to ready. Cell by cell: LIST=1.
# Resumable: cells that OUT_DIR has complete are not run again, so stop it when you like. SIGTERM
# ends engines and leaves the cells under way partial; complete ones are never touched.
#   GPUS         one cell at a time on each, e.g. 0,1; each lane gets its share of the cores
#                (default: one lane, on whatever GPU the engine takes)
#   SECONDS_MAX  starts no cell that is not expected to end in this time, counted without WARM_UP
#                (default: none)
#   START_SECONDS  from spawn to ready, for that and for LIST (default: 56)
#   CELLS        at most so many cells now             (default: all)
#   ONLY         only MODE/LOAD[/RUN], * for any part  (default: all)
#   REPORT=0     leave out report and figures, which need no GPU
#   MODEL        what to serve          (default: a Llama-3.1-8B shape with random weights)
#   VLLM_SERVE   the serve command      (default: vllm serve)
#   SERVE_ARGS   its further arguments
#   POLICY       simple or costed, of lazy and idle mode (default: simple)
#   TRACE        request trace          (default: the conversation trace)
# A start that is not ready within the spec's readySecondsMax is stopped, and its lane goes on.
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
cp -f "${TRACE:-$root/traces/azure-llm-2023-conversation.json.xz}" "$out/trace"
cd "$out"
export TRACE=trace POLICY=${POLICY:-simple} VLLM_SERVE=${VLLM_SERVE:-vllm serve}
ts=(node --import "$root/node_modules/tsx/dist/loader.mjs")
if [ -n "${LIST:-}" ]; then
  export MODEL=${MODEL:-llama-3.1-8b} SERVE_ARGS=${SERVE_ARGS:-}
  exec "${ts[@]}" "$here/ttft.ts" "$here/$spec.json" results
fi
if [ -z "${MODEL:-}" ] && [ "$spec" != ttft-simulated ]; then
  [ -e llama-3.1-8b/tokenizer.json ] || python3 "$here/random_model.py" llama-3.1-8b llama-3.1-8b
  SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
fi
# By its name alone, for the same reason.
if [[ ${MODEL:-} = /* ]]; then
  ln -sfn "$MODEL" "$(basename "$MODEL")"
  MODEL=$(basename "$MODEL")
fi
export MODEL=${MODEL:-llama-3.1-8b} SERVE_ARGS=${SERVE_ARGS:-}
bench=(node "$root/dist/cli/main.js" bench)
if [ -n "${WARM_UP:-}" ]; then
  "${bench[@]}" --out warm-up --no-report --arrivals constant --request-rate 1 --num-prompts 2 \
    -- sh -c "exec $VLLM_SERVE $MODEL $SERVE_ARGS --port {port}"
fi
# In the background, so that a signal to this shell reaches it, and tied to this shell's life.
tied=()
command -v setpriv >/dev/null && tied=(setpriv --pdeathsig TERM --)
"${tied[@]}" "${ts[@]}" "$here/ttft.ts" "$here/$spec.json" results &
lanes=$!
stopped=
trap 'stopped=1; kill -TERM $lanes 2>/dev/null || true' TERM INT HUP
status=0
wait $lanes || status=$?
# A trapped signal ends the first wait; the engines are still ending then.
while kill -0 $lanes 2>/dev/null; do wait $lanes || status=$?; done
trap - TERM INT HUP
# Who stops it has no time for a report; `lazygraph bench report` makes it later.
[ "${REPORT:-}" = 0 ] || [ -n "$stopped" ] && exit "$status"
"${bench[@]}" report results >/dev/null
case $spec in
  agreement) "${ts[@]}" "$root/bench/agreement.ts" results --json results/agreement.json ;;
  *)
    "${ts[@]}" "$root/bench/ttft-figures.ts" results --json results/figures.json ||
      echo "Not every claim holds, or not every cell has been run." >&2
    ;;
esac
exit "$status"
