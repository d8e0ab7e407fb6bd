#!/usr/bin/env bash
# Many ranks: a 70B on four and eight GPUs, a mixture of experts on four with expert parallelism.
#
#   bench/gpu/many.sh GPUS OUT_DIR           GPUS: 4, 8, or which, such as 0,1,2,3
#   LIST=1 bench/gpu/many.sh GPUS OUT_DIR    what is open; runs nothing
#   REPORT=1 bench/gpu/many.sh GPUS OUT_DIR  sums up what there is into OUT_DIR/many.json
#
# Hypothesis: captures before ready take at most 1/30 of stock's on four and eight ranks too; every
# rank holds and serves the same graphs at every step; graphs are bit for bit an ungraphed run on
# every rank; the longest stall grows by at most half with twice the ranks; and a rank that has no
# memory for a graph, or is killed while it captures, ends the engine with a reason and hangs nobody.
# Refuted if the claims `many.*` that `npm run claims` makes of bench/results/many-*.json don't hold.
#
# Resumable: each part keeps what it has in a folder of its own and runs what is open. One that
# fails is told at the end (exit code 1) and costs none of the others. What says most comes first.
#   starts    families.sh with many.json: stock and idle in turns, from a launcher: no imports
#   checks    checks.py: each graph against an ungraphed run, with controls, and the ranks' steps
#   faults    rank_faults.py: one rank short of memory, out of it, or killed in mid-capture
#   launcher  launcher.sh: spawn to first token, stock as people start it beside forked and lazy
#   tokens    checks.py: sequences by batch-invariant kernels, which leave custom all-reduce out
#   PARTS         which of them, in this order    (default: all)
#   FAMILIES      names, with commas              (default: those of SPEC for at most so many GPUs)
#   SPEC          another file of families        (default: bench/gpu/many.json)
#   CHECKS        kinds of checks                 (default: "ranks verify control-rank control")
#   SECONDS_MAX   begins nothing that is not expected to end in this time   (default: none)
#   READY_WITHIN  longest wait for one server     (default: 240)
#   CHECK_WITHIN  longest time of one engine of checks                      (default: 180)
#   MODELS        folder of models by shape; missing ones are made          (default: OUT_DIR/models)
#   PYTHON        vLLM's                          (default: python3)
#   VLLM          vLLM's command                  (default: vllm)
#   RUNS          starts per variant of launcher  (default: 2)
#   VARIANTS      of launcher, beside stock       (default: forked-lazy)
#   HOST          what the report calls this host (default: its name)
# OUT_DIR/many.tar.gz has all of it, logs too. All servers get this script's environment, and the
# report says what it has of NCCL's and of all-reduces.
# Needs Node >= 20, `npm install && npm run build`, and in vLLM's Python both plugins:
#   pip install ./worker ./worker/testing
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=bench/gpu/lib/listens.sh
. "$here/lib/listens.sh"
usage="usage: bench/gpu/many.sh GPUS OUT_DIR"
gpus=${1:?$usage} out=${2:?$usage}
case $gpus in
  4 | 8) gpus=$(seq -s, 0 $((gpus - 1))) ;;
  *[!0-9,]* | [0-9]) gpus= ;;
esac
count=$(tr ',' '\n' <<< "$gpus" | grep -c .) || true
if [ "$count" -lt 4 ]; then
  echo "Expected GPUS of 4, 8, or at least four numbers with commas, got $1." >&2
  exit 2
fi
parts=${PARTS:-starts checks faults launcher tokens}
for part in $parts; do
  case $part in
    starts | checks | faults | launcher | tokens) ;;
    *) echo "Expected PARTS of starts, checks, faults, launcher and tokens, got $part." >&2; exit 2 ;;
  esac
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
python=${PYTHON:-python3} vllm=${VLLM:-vllm} spec=${SPEC:-$here/many.json}
models=${MODELS:-$out/models}
export READY_WITHIN=${READY_WITHIN:-240}
# A path of at most 107 bytes, wherever OUT_DIR is.
folder=$(mktemp -d)
trap 'kill "${launcher_pid:-}" 2> /dev/null; rm -rf "$folder"' EXIT
runner=(node)
node -e 'process.exit(process.features.typescript ? 0 : 1)' || runner=(node --import tsx)

# A line for each family that fits: name, GPUs, shape, arguments.
families=$(node -e '
  const [spec, count, names] = process.argv.slice(1);
  const { families } = JSON.parse(require("node:fs").readFileSync(spec, "utf8"));
  const wanted = names === "" ? undefined : names.split(",");
  const unknown = wanted?.find((name) => !families.some((family) => family.name === name));
  if (unknown !== undefined) {
    const known = families.map(({ name }) => name).join(", ");
    console.error(`Expected FAMILIES to be of ${known}, got ${unknown}.`);
    process.exit(2);
  }
  for (const { name, gpus = 1, shape, args = [] } of families) {
    if (wanted === undefined ? gpus > Number(count) : !wanted.includes(name)) continue;
    console.log([name, gpus, shape, args.join(" ")].join("\t"));
  }
' "$spec" "$count" "${FAMILIES:-}") || exit 2
names=$(cut -f1 <<< "$families" | paste -sd,)

left() { [ -z "${SECONDS_MAX:-}" ] || echo $((SECONDS_MAX > SECONDS ? SECONDS_MAX - SECONDS : 1)); }

# SECONDS NAME…: whether what has no estimate of its own is begun; it is told when not.
begins() {
  [ -z "${SECONDS_MAX:-}" ] || [ "$(left)" -ge "$1" ] || { echo "left: ${*:2}" >&2; return 1; }
}

# The first so many of GPUS.
first() { cut -d, -f"1-$1" <<< "$gpus"; }

model() {
  [ -e "$models/$1/tokenizer.json" ] || "$python" "$here/random_model.py" "$1" "$models/$1" < /dev/null >&2
  echo "$models/$1"
}

start_launcher() {
  "$python" -m lazygraph_vllm.launcher --socket "$folder/launcher" ${LAUNCHER_ARGS:-} \
    > "$folder/listens" 2> "$out/launcher.log" &
  launcher_pid=$!
  listens $launcher_pid "$folder/listens" "$out/launcher.log" "$READY_WITHIN"
}

starts() {
  local seconds words=(SPEC="$spec" FAMILIES="$names" GPUS="$gpus" MODELS="$models")
  if [ -z "${LIST:-}" ] && [ -n "$(env "${words[@]}" LIST=1 "$here/families.sh" "$out/starts")" ]; then
    # Without one they are spawned, which their cells tell.
    start_launcher && words+=(LAUNCHER="$folder/launcher")
  fi
  seconds=$(left)
  env "${words[@]}" ${seconds:+SECONDS_MAX="$seconds"} "$here/families.sh" "$out/starts" || return 1
  # A cell that failed costs none of the others there.
  [ -n "${LIST:-}" ] || ! grep -q '"failed":\[{' "$out/starts/families.json"
}

checks() {
  local name kind seconds open=()
  while IFS=$'\t' read -r name _; do
    for kind in ${1:-${CHECKS:-ranks verify control-rank control}}; do
      [ -e "$out/checks/$name.$kind.json" ] || open+=("$name.$kind")
    done
  done <<< "$families"
  [ ${#open[@]} -gt 0 ] || return 0
  if [ -n "${LIST:-}" ]; then
    printf '%s\n' "${open[@]}"
    return
  fi
  begins 90 "${open[@]}" || return 1
  seconds=$(left)
  # One engine at a time: those of several ranks would wait for each other's turns on each GPU.
  "$python" "$here/checks.py" "$out/checks" --spec "$spec" --gpus "$gpus" --models "$models" \
    --seconds "${seconds:-100000}" --seconds-each "${CHECK_WITHIN:-180}" "${open[@]}" < /dev/null
}

tokens() { checks tokens; }

faults() {
  local held=0 name needs shape arguments seconds served
  while IFS=$'\t' read -r name needs shape arguments; do
    if [ -n "${LIST:-}" ]; then served=MODEL; else served=$(model "$shape") || return 1; fi
    seconds=$(left)
    "$python" "$here/rank_faults.py" "$out/faults/$name.json" \
      --cases killed,oom,short,control --gpus "$(first "$needs")" \
      ${LIST:+--list} ${seconds:+--within "$seconds"} \
      -- $vllm serve "$served" --load-format dummy $arguments < /dev/null > "$out/faults.lines" || held=1
    sed "s/^/$name: /" "$out/faults.lines"
    rm -f "$out/faults.lines"
  done <<< "$families"
  return $held
}

launcher() {
  local held=0 name needs shape arguments seconds served place
  while IFS=$'\t' read -r name needs shape arguments; do
    place=$out/launcher/$name
    [ -e "$place/held" ] && continue
    if [ -n "${LIST:-}" ]; then
      echo "$name"
      continue
    fi
    # An import, and a start with imports.
    begins 150 "$name" || return 1
    served=$(model "$shape") || return 1
    seconds=$(left)
    # A start has filled the compile caches.
    compgen -G "$out/starts/cells/$name.start.*.json" > /dev/null && warm= || warm=warm-up
    if CUDA_VISIBLE_DEVICES=$(first "$needs") PARTS="$warm compare" RUNS=${RUNS:-2} \
      VARIANTS=${VARIANTS:-forked-lazy} VLLM=$vllm PYTHON=$python \
      MODEL=$served SERVE_ARGS="--load-format dummy $arguments" \
      ${seconds:+env WITHIN="$seconds"} "$here/launcher.sh" "$place" < /dev/null; then
      touch "$place/held"
    else
      held=1
    fi
  done <<< "$families"
  return $held
}

failed=()
if [ -z "${REPORT:-}" ]; then
  names_told='^(NCCL|NVSHMEM|TORCH_SYMM_MEM|VLLM_ALLREDUCE)_'
  [ -n "${LIST:-}" ] || env | grep -E "$names_told" | sort > "$out/environment"
  for part in $parts; do
    echo "== $part, at second $SECONDS" >&2
    "$part" || failed+=("$part")
  done
fi
[ -z "${LIST:-}" ] || exit 0
"${runner[@]}" "$here/many-summary.ts" "$out" "$names" "${HOST:-$(uname -n)}" || exit 1
tar -C "$out" --exclude=./models --exclude=./many.tar.gz -czf "$folder/tar" . &&
  mv "$folder/tar" "$out/many.tar.gz"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
