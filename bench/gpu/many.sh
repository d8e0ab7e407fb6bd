#!/usr/bin/env bash
# Many ranks: a 70B on four and eight GPUs, a mixture of experts on four with expert parallelism.
#
#   bench/gpu/many.sh GPUS OUT_DIR           GPUS: 4, 8, or which, such as 0,1,2,3
#   LIST=1 bench/gpu/many.sh GPUS OUT_DIR    what is open; runs nothing
#   REPORT=1 bench/gpu/many.sh GPUS OUT_DIR  sums up what there is into OUT_DIR/many.json
#
# Hypothesis: captures before ready take at most 1/30 of stock's on four and eight ranks too; every
# rank holds and serves the same graphs at every step; graphs are bit for bit an ungraphed run on
# every rank; the longest stall grows by at most half from four ranks to eight; and a rank that has no
# memory for a graph, or is killed while it captures, ends the engine with a reason and hangs nobody.
# Refuted if the claims `many.*` that `npm run claims` makes of bench/results/many-*.json don't hold.
#
# Resumable: each part keeps what it has in a folder of its own and runs no more than is open. One
# that fails is told at the end (exit code 1) and costs none of the others.
#   starts    families.sh with many.json: stock and idle in turns, each graph against an ungraphed run
#   checks    checks.py: verify, control, control-rank, ranks and tokens of each family, one by one
#   faults    rank_faults.py: one rank short of memory, out of it, or killed in mid-capture
#   launcher  launcher.sh: spawn to first token, stock beside forked and lazy
#   PARTS         which of them, in this order    (default: "starts checks faults launcher")
#   FAMILIES      names, with commas              (default: those of SPEC for at most so many GPUs)
#   SPEC          another file of families        (default: bench/gpu/many.json)
#   CHECKS        kinds of checks                 (default: "verify control control-rank ranks tokens")
#   SECONDS_MAX   begins nothing that is not expected to end in this time   (default: none)
#   MODELS        folder of models by shape; missing ones are made          (default: OUT_DIR/models)
#   PYTHON        vLLM's                          (default: python3)
#   VLLM          vLLM's command                  (default: vllm)
#   RUNS          starts per variant of launcher  (default: 3)
#   HOST          what the report calls this host (default: its name)
# Needs Node >= 20, `npm install && npm run build`, and in vLLM's Python both plugins:
#   pip install ./worker ./worker/testing
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
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
parts=${PARTS:-starts checks faults launcher}
for part in $parts; do
  case $part in
    starts | checks | faults | launcher) ;;
    *) echo "Expected PARTS of starts, checks, faults and launcher, got $part." >&2; exit 2 ;;
  esac
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
python=${PYTHON:-python3} vllm=${VLLM:-vllm} spec=${SPEC:-$here/many.json}
models=${MODELS:-$out/models}
kinds=${CHECKS:-verify control control-rank ranks tokens}
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

# The first so many of GPUS.
first() { cut -d, -f"1-$1" <<< "$gpus"; }

model() {
  [ -e "$models/$1/tokenizer.json" ] || "$python" "$here/random_model.py" "$1" "$models/$1" < /dev/null >&2
  echo "$models/$1"
}

starts() {
  local seconds
  seconds=$(left)
  SPEC=$spec FAMILIES=$names GPUS=$gpus MODELS=$models ${seconds:+env SECONDS_MAX="$seconds"} \
    "$here/families.sh" "$out/starts" || return 1
  # A cell that failed costs none of the others there.
  [ -n "${LIST:-}" ] || ! grep -q '"failed":\[{' "$out/starts/families.json"
}

checks() {
  local held=0 name needs shape arguments kind seconds
  while IFS=$'\t' read -r name needs shape arguments; do
    # Engines of one call share GPUs: a 70B has room for those of one check.
    for kind in $kinds; do
      [ -e "$out/checks/$name.$kind.json" ] && continue
      if [ -n "${LIST:-}" ]; then
        printf '%s.%s\n' "$name" "$kind"
        continue
      fi
      seconds=$(left)
      [ -n "$seconds" ] && [ "$seconds" -lt 60 ] && { echo "$name.$kind: left" >&2; held=1; continue; }
      "$python" "$here/checks.py" "$out/checks" --spec "$spec" --gpus "$(first "$needs")" \
        --models "$models" ${seconds:+--seconds "$seconds"} "$name.$kind" < /dev/null || held=1
    done
  done <<< "$families"
  return $held
}

faults() {
  local held=0 name needs shape arguments seconds served
  while IFS=$'\t' read -r name needs shape arguments; do
    if [ -n "${LIST:-}" ]; then served=MODEL; else served=$(model "$shape") || return 1; fi
    seconds=$(left)
    "$python" "$here/rank_faults.py" "$out/faults/$name.json" --gpus "$(first "$needs")" \
      ${LIST:+--list} ${seconds:+--within "$seconds"} \
      -- $vllm serve "$served" --load-format dummy $arguments < /dev/null > "$out/faults.lines" || held=1
    sed "s/^/$name: /" "$out/faults.lines"
    rm -f "$out/faults.lines"
  done <<< "$families"
  return $held
}

launcher() {
  local held=0 name needs shape arguments seconds served folder
  while IFS=$'\t' read -r name needs shape arguments; do
    folder=$out/launcher/$name
    [ -e "$folder/held" ] && continue
    if [ -n "${LIST:-}" ]; then
      echo "$name"
      continue
    fi
    served=$(model "$shape") || return 1
    seconds=$(left)
    if CUDA_VISIBLE_DEVICES=$(first "$needs") PARTS="warm-up compare" RUNS=${RUNS:-3} \
      MODEL=$served SERVE_ARGS="--load-format dummy $arguments" VLLM=$vllm PYTHON=$python \
      ${seconds:+env WITHIN="$seconds"} "$here/launcher.sh" "$folder" < /dev/null; then
      touch "$folder/held"
    else
      held=1
    fi
  done <<< "$families"
  return $held
}

failed=()
if [ -z "${REPORT:-}" ]; then
  for part in $parts; do
    echo "== $part" >&2
    "$part" || failed+=("$part")
  done
fi
[ -z "${LIST:-}" ] || exit 0
"${runner[@]}" "$here/many-summary.ts" "$out" "$names" "${HOST:-$(uname -n)}" || exit 1
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
