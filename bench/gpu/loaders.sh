#!/usr/bin/env bash
# vLLM's loaders side by side, over safetensors of random weights on disk: with a cold and a warm
# page cache, phase by phase.
#
#   bench/gpu/loaders.sh OUT_DIR
#
# Leaves in OUT_DIR cold/ and warm/, each with startup.html, startup.json and logs, and skipped.txt:
# loaders whose package vLLM's Python lacks. Servers capture lazily: little but loading differs.
# Weights are in the phase `weights`, with loader and bytes.
#   LOADERS       names, in this order
#                 (default: "default prefetch eager fastsafetensors runai_streamer instanttensor ipc_cache")
#   CACHES        page caches to try           (default: "cold warm")
#   RUNS          starts of each               (default: 3)
#   WITHIN        seconds in which all starts end   (default: none)
#   MODELS        folder of the model          (default: OUT_DIR/models; 16 GB for the 8B)
#   SHAPE         of the weights, a dense Llama of model_shapes.py   (default: llama-3.1-8b)
#   LAUNCHER      socket of `lazygraph launcher`: starts without imports   (default: none)
#   VLLM, PYTHON  vLLM's command and interpreter   (default: vllm, python3)
#   SERVE_ARGS    further arguments
# Needs Node >= 20, `npm install && npm run build`, and the plugin in vLLM's Python:
#   pip install ./worker
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bench/gpu/loaders.sh OUT_DIR}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
vllm=${VLLM:-vllm} python=${PYTHON:-python3} shape=${SHAPE:-llama-3.1-8b}
model=${MODELS:-$out/models}/$shape
lazygraph="node $here/../../dist/cli/main.js"
loaders=${LOADERS:-default prefetch eager fastsafetensors runai_streamer instanttensor ipc_cache}

if [ ! -e "$model/model.safetensors.index.json" ]; then
  [ -e "$model/config.json" ] || "$python" "$here/random_model.py" "$shape" "$model" || exit 1
  "$python" "$here/random_weights.py" "$model" || exit 1
fi

# Options of a loader, or exit code 1 without its package.
options() {
  case $1 in
    default) ;;
    prefetch | eager) echo "--safetensors-load-strategy $1" ;;
    fastsafetensors | instanttensor)
      "$python" -c "import importlib.util as u; raise SystemExit(u.find_spec('$1') is None)" || return 1
      echo "--load-format $1" ;;
    runai_streamer)
      "$python" -c "import importlib.util as u; raise SystemExit(u.find_spec('runai_model_streamer') is None)" || return 1
      echo "--load-format runai_streamer" ;;
    ipc_cache) echo "--load-format ipc_cache" ;;
    *) echo "Expected LOADERS of those in the head of this script, got $1." >&2; exit 2 ;;
  esac
}

daemon=
stop_daemon() {
  [ -z "$daemon" ] || { kill "$daemon" 2> /dev/null; wait "$daemon" 2> /dev/null; daemon=; }
}
trap stop_daemon EXIT

run="$lazygraph run --quiet --mode lazy ${LAUNCHER:+--launcher $LAUNCHER} -- $vllm serve $model"
failed=0
: > "$out/skipped.txt"
for cache in ${CACHES-cold warm}; do
  words=() first=
  for loader in $loaders; do
    chosen=$(options "$loader")
    case $? in
      0) ;;
      2) exit 2 ;;
      *) echo "$loader: its package is not in $python" >> "$out/skipped.txt"; continue ;;
    esac
    # Its weights lie in another process, on the GPU: a part of its own, below.
    [ "$loader" = ipc_cache ] && continue
    command="$run $chosen ${SERVE_ARGS:-} --port {port}"
    if [ -z "$first" ]; then
      first=$loader first_command=$command
    else
      words+=(--compare "$loader=$command")
    fi
    words+=(--prepare "$loader=$python $here/page_cache.py $cache $model/*.safetensors")
  done
  [ -n "$first" ] || continue
  $lazygraph startup --runs "${RUNS:-3}" --out "$out/$cache" --name "$first" \
    ${WITHIN:+--within $((WITHIN > SECONDS ? WITHIN - SECONDS : 1))} "${words[@]}" \
    -- sh -c "exec $first_command" | tee "$out/$cache.txt" || failed=1
done

case " $loaders " in
  *" ipc_cache "*)
    : > "$out/preload.log"
    $vllm preload --model "$model" ${SERVE_ARGS:-} >> "$out/preload.log" 2>&1 &
    daemon=$!
    for _ in $(seq 300); do
      kill -0 $daemon 2> /dev/null || break
      grep -q "daemon rank 0 serving on" "$out/preload.log" && break
      sleep 1
    done
    if grep -q "daemon rank 0 serving on" "$out/preload.log"; then
      $lazygraph startup --runs "${RUNS:-3}" --out "$out/ipc_cache" --name ipc_cache \
        ${WITHIN:+--within $((WITHIN > SECONDS ? WITHIN - SECONDS : 1))} \
        -- sh -c "exec $run --load-format ipc_cache ${SERVE_ARGS:-} --port {port}" || failed=1
    else
      echo "ipc_cache: \`vllm preload\` does not serve, see preload.log" >> "$out/skipped.txt"
    fi
    ;;
esac
cat "$out/skipped.txt" >&2
exit $failed
