#!/usr/bin/env bash
# Starts from a launcher beside starts as people know them: every phase, first token, that forked
# servers answer alike, end cleanly and leave nothing behind, and what packed caches save.
#
#   bench/gpu/launcher.sh OUT_DIR
#
# Each part writes what it has as it comes; one that fails is told at the end (exit code 1) and costs
# none of the others:
#   warm-up   one uncounted start, which fills the compile caches
#   compare   startup.json, startup-trace.json and logs of stock, forked-lazy, lazy and forked in turns
#   checks    checks.json of launcher_checks.py
#   caches    caches/startup.json: starts with empty caches beside starts with an unpacked pack, from
#             a launcher and spawned; caches-pack.json, the pack's size and how long packing took
# and always price.json (what one timed span costs here), launcher.json (the launcher's own words)
# and parts.json. `node --import tsx bench/gpu/launcher-summary.ts OUT_DIR` sums it up.
#   PARTS         which of them, in this order   (default: "warm-up compare checks")
#   WITHIN        seconds for all: no start is begun that would not end in time   (default: none)
#   COMPARE_WITHIN, CHECKS_WITHIN, CACHES_WITHIN   the same for one part          (default: what is left)
#   READY_WITHIN  longest wait for one server                                     (default: 400)
#   SHAPE         of random weights, by model_shapes.py                     (default: llama-3.1-8b)
#   MODEL         another model to serve
#   VLLM          vLLM's command         (default: vllm)
#   PYTHON        its interpreter        (default: python3)
#   SERVE_ARGS    further arguments      (for example --tensor-parallel-size 2)
#   RUNS          starts per variant     (default: 5)
#   VARIANTS      those to compare with stock   (default: "forked-lazy lazy forked")
#   CACHES_RUNS   the same of the caches (default: 3)
#   STARTS        forked starts in checks.json, of which nothing may be left (default: 10)
#   KILL_AFTER    seconds after which a server is killed, a start each (default: "1 4 8 11")
#   LAUNCHER_ARGS further arguments of the launcher
# Needs Node >= 20, `npm install && npm run build`, and the plugin in vLLM's Python:
#   pip install ./worker
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=bench/gpu/lib/listens.sh
. "$here/lib/listens.sh"
out=${1:?usage: bench/gpu/launcher.sh OUT_DIR}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
vllm=${VLLM:-vllm} python=${PYTHON:-python3} shape=${SHAPE:-llama-3.1-8b}
parts=${PARTS:-warm-up compare checks}
ready_within=${READY_WITHIN:-400}
if [ -z "${MODEL:-}" ]; then
  MODEL=$out/$shape SERVE_ARGS="--load-format dummy ${SERVE_ARGS:-}"
  [ -e "$MODEL/tokenizer.json" ] || "$python" "$here/random_model.py" "$shape" "$MODEL" || exit 1
fi
# NVML counts all GPUs, CUDA those that it is shown.
gpu=${CUDA_VISIBLE_DEVICES:-0} gpu=${gpu%%,*}
lazygraph="node $here/../../dist/cli/main.js"
serve="$vllm serve $MODEL ${SERVE_ARGS:-}"
# A path of at most 107 bytes, wherever OUT_DIR is.
folder=$(mktemp -d)
declare -A launchers=()
trap 'kill "${launchers[@]}" 2> /dev/null; rm -rf "$folder"' EXIT

# Of what is left of WITHIN, or the part's own limit if that is less; words for a command.
within() {
  local own=$1 left=${WITHIN:+$((WITHIN - SECONDS))}
  if [ -n "$left" ] && [ "$left" -lt 1 ]; then left=1; fi
  if [ -n "$own" ] && { [ -z "$left" ] || [ "$own" -lt "$left" ]; }; then left=$own; fi
  [ -z "$left" ] || echo "--within $left"
}

# NAME WORDS…: a launcher at $folder/NAME, once for each name. WORDS are its variables.
start_launcher() {
  local name=$1
  shift
  [ -s "$out/$name.json" ] && [ -S "$folder/$name" ] && return 0
  rm -f "$out/$name.json"
  env "$@" "$python" -m lazygraph_vllm.launcher --socket "$folder/$name" ${LAUNCHER_ARGS:-} \
    > "$out/$name.json" 2> "$out/$name.log" &
  local pid=$!
  launchers[$name]=$pid
  listens $pid "$out/$name.json" "$out/$name.log" 300
}

# A start that was to be forked and was spawned instead is no measurement.
all_forked() {
  ! grep -l "Not forked but spawned" "$@" 2> /dev/null
}

warm_up() {
  $lazygraph startup --quiet --name warm-up --ready-within "$ready_within" --out "$out/warm-up" \
    -- $serve --port "{port}"
}

compare() {
  # Without a launcher the two others are still worth their time, but it is a failure.
  start_launcher launcher
  local launched=$?
  local forked="$lazygraph run --quiet --launcher $folder/launcher"
  # What is compared first comes first: time may be up.
  local words=()
  for variant in ${VARIANTS:-forked-lazy lazy forked}; do
    case $variant in
      forked-lazy) words+=(--compare "$variant=$forked --mode lazy -- $serve --port {port}") ;;
      lazy) words+=(--compare "$variant=$lazygraph run --quiet --mode lazy -- $serve --port {port}") ;;
      forked) words+=(--compare "$variant=env LAZYGRAPH_DISABLE=1 $forked -- $serve --port {port}") ;;
      *) echo "Expected VARIANTS of forked-lazy, lazy and forked, got $variant." >&2; return 2 ;;
    esac
  done
  $lazygraph startup --runs "${RUNS:-5}" --out "$out" --name stock --ready-within "$ready_within" \
    $(within "${COMPARE_WITHIN:-}") "${words[@]}" \
    -- $serve --port "{port}" > "$out/comparison.txt"
  local measured=$?
  cat "$out/comparison.txt"
  all_forked "$out"/forked*.log && [ $launched = 0 ] && [ $measured = 0 ]
}

checks() {
  start_launcher launcher || return 1
  "$python" "$here/launcher_checks.py" --launcher-pid "${launchers[launcher]}" \
    --socket "$folder/launcher" --gpu "$gpu" --out "$out/checks.json" $(within "${CHECKS_WITHIN:-}") \
    --starts "${STARTS:-10}" --kill-after ${KILL_AFTER:-1 4 8 11} -- $serve > /dev/null
  local held=$?
  # The last check has killed it.
  rm -f "$folder/launcher"
  return $held
}

caches() {
  local store=$folder/caches pack=$folder/caches.pack
  local run="$lazygraph run --quiet --mode lazy --caches $store"
  # Imports read where some caches are: the launcher has the same variables as its servers.
  start_launcher caches-launcher $($lazygraph caches list --caches "$store" --variables) || return 1
  local forked="$run --launcher $folder/caches-launcher"
  $lazygraph startup --quiet --name fill --ready-within "$ready_within" --out "$out/caches-fill" \
    -- $forked -- $serve --port "{port}" || return 1
  $lazygraph caches pack "$pack" --caches "$store" --json > "$out/caches-pack.json" || return 1
  local empty="rm -rf $store"
  local unpack="$empty && $lazygraph caches unpack $pack --caches $store -- $serve"
  $lazygraph startup --runs "${CACHES_RUNS:-3}" --out "$out/caches" --name forked-pack \
    --ready-within "$ready_within" $(within "${CACHES_WITHIN:-}") \
    --compare "forked-empty=$forked -- $serve --port {port}" \
    --compare "spawned-pack=$run -- $serve --port {port}" \
    --compare "spawned-empty=$run -- $serve --port {port}" \
    --prepare "forked-pack=$unpack" --prepare "spawned-pack=$unpack" \
    --prepare "forked-empty=$empty" --prepare "spawned-empty=$empty" \
    -- $forked -- $serve --port "{port}"
  local measured=$?
  all_forked "$out"/caches-fill/*.log "$out"/caches/forked*.log && [ $measured = 0 ]
}

"$python" "$here/../timeline_price.py" > "$out/price.json" || exit 1
for part in $parts; do
  case $part in
    warm-up | compare | checks | caches) ;;
    *) echo "Expected PARTS of warm-up, compare, checks and caches, got $part." >&2; exit 2 ;;
  esac
done
ended=() failed=()
for part in $parts; do
  began=$SECONDS state=held
  echo "== $part, at second $began" >&2
  if ! "${part/-/_}"; then
    state=failed
    failed+=("$part")
  fi
  ended+=("$part" "$state" $((SECONDS - began)))
  node -e '
    const [serve, ...words] = process.argv.slice(1);
    const parts = [];
    for (let at = 0; at < words.length; at += 3) {
      parts.push({ part: words[at], state: words[at + 1], seconds: Number(words[at + 2]) });
    }
    console.log(JSON.stringify({ serve, parts }, undefined, 1));
  ' "$serve" "${ended[@]}" > "$out/parts.json"
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
