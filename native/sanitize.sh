#!/bin/sh
# Builds the native code with sanitizers and runs its driver, then the addon in Node.
#   sh native/sanitize.sh          address and undefined behaviour
#   sh native/sanitize.sh thread   data races; without Node, which that sanitizer can't watch
set -eu
cd "$(dirname "$0")"
kind=${1:-address,undefined}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cxx=${CXX:-c++}
flags="-std=c++20 -g -O1 -Wall -Wextra -Wpedantic -fno-omit-frame-pointer -fsanitize=$kind -fno-sanitize-recover=all"
export UBSAN_OPTIONS=print_stacktrace=1

# shellcheck disable=SC2086 # the flags are words
$cxx $flags -shared -fPIC -Isrc fake/nvml.cc -o "$out/libnvidia-ml.so" -pthread
# shellcheck disable=SC2086
$cxx $flags src/nvml.cc src/trend.cc src/watch.cc -Isrc test/driver.cc -o "$out/driver" -ldl -pthread
ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 \
  "$out/driver" "$out/libnvidia-ml.so" ../test/gpu-memory/trend-cases.txt "$out"

if [ "$kind" != thread ]; then
  api=$(node -p 'require("node-api-headers").include_dir')
  cpp=$(node -p 'require("node-addon-api").include_dir')
  defines="-DNAPI_VERSION=8 -DNODE_ADDON_API_CPP_EXCEPTIONS -DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS -DBUILDING_NODE_EXTENSION"
  # shellcheck disable=SC2086
  $cxx $flags $defines -isystem "$api" -isystem "$cpp" -shared -fPIC src/*.cc \
    -o "$out/gpu_memory.node" -ldl -pthread
  free=$(node -p 'Array.from({ length: 2000 }, (_, i) => (i % 2 ? 1 : 900)).join()')
  echo "device GPU-a total=1000 free=$free" >"$out/storm"
  # Node itself is not instrumented, so the sanitizer comes first by hand, and what Node keeps
  # until its end is no leak of ours.
  ADDON=$out/gpu_memory.node LIBRARY=$out/libnvidia-ml.so LAZYGRAPH_FAKE_NVML=$out/storm \
    ASAN_OPTIONS=detect_leaks=0 \
    LD_PRELOAD="$($cxx -print-file-name=libasan.so) $($cxx -print-file-name=libstdc++.so)" \
    node test/storm.cjs
fi
echo "clean under -fsanitize=$kind"
