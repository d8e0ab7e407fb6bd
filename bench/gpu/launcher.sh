#!/usr/bin/env bash
# Starts from a launcher beside starts as people know them: every phase, first token, and that
# forked servers answer alike, end cleanly and leave nothing behind.
#
#   bench/gpu/launcher.sh OUT_DIR
#
# Leaves in OUT_DIR: startup.json, startup-trace.json and logs of stock, lazy, forked and forked-lazy
# in turns; checks.json of launcher_checks.py; launcher.json, the launcher's own words.
#   MODEL         what to serve          (default: a Llama-3.1-8B shape with random weights)
#   VLLM          vLLM's command         (default: vllm)
#   PYTHON        its interpreter        (default: python3)
#   SERVE_ARGS    further arguments      (for example --tensor-parallel-size 2)
#   RUNS          starts per variant     (default: 5)
#   STARTS        forked starts in checks.json, of which nothing may be left (default: 10)
#   KILL_AFTER    seconds after which a server is killed, a start each (default: "1 4 8 11")
#   CHECKS=0      only the comparison    COMPARE=0  only the checks
#   WARM_UP=0     leave out the first, uncounted start that fills the compile caches
# Needs Node >= 20, `npm install && npm run build`, and the plugin in vLLM's Python:
#   pip install ./worker
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/launcher.sh OUT_DIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)
vllm=${VLLM:-vllm} python=${PYTHON:-python3}
if [ -z "${MODEL:-}" ]; then
  MODEL=$out/llama-3.1-8b SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
  [ -e "$MODEL/tokenizer.json" ] || "$python" "$here/random_model.py" llama-3.1-8b "$MODEL"
fi
lazygraph="node $here/../../dist/cli/main.js"
serve="$vllm serve $MODEL ${SERVE_ARGS:-}"
# A path of at most 107 bytes, wherever OUT_DIR is.
folder=$(mktemp -d)
socket=$folder/socket

"$python" -m lazygraph_vllm.launcher --socket "$socket" ${LAUNCHER_ARGS:-} \
  > "$out/launcher.json" 2> "$out/launcher.log" &
launcher=$!
trap 'kill $launcher 2> /dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 3000); do
  [ -s "$out/launcher.json" ] && break
  kill -0 $launcher 2> /dev/null || { cat "$out/launcher.log" >&2; exit 1; }
  sleep 0.1
done

if [ "${WARM_UP:-1}" != 0 ]; then
  $lazygraph startup --quiet --name warm-up --out "$out/warm-up" -- $serve --port "{port}"
fi
if [ "${COMPARE:-1}" != 0 ]; then
  $lazygraph startup --runs "${RUNS:-5}" --out "$out" --name stock \
    --compare "lazy=$lazygraph run --quiet --mode lazy -- $serve --port {port}" \
    --compare "forked=env LAZYGRAPH_DISABLE=1 $lazygraph run --quiet --launcher $socket -- $serve --port {port}" \
    --compare "forked-lazy=$lazygraph run --quiet --mode lazy --launcher $socket -- $serve --port {port}" \
    -- $serve --port "{port}" | tee "$out/comparison.txt"
  # A start that was to be forked and was spawned instead is no measurement.
  if grep -l "Not forked but spawned" "$out"/forked*.log; then exit 1; fi
fi
if [ "${CHECKS:-1}" != 0 ]; then
  "$python" "$here/launcher_checks.py" --launcher-pid $launcher --socket "$socket" \
    --starts "${STARTS:-10}" --kill-after ${KILL_AFTER:-1 4 8 11} -- $serve | tee "$out/checks.json"
fi
