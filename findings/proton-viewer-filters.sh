#!/bin/sh
# `proton-viewer`, which shows what Triton's profiler wrote, takes kernels out by --include,
# --exclude and --threshold. Of the scopes above them raw metrics are then added up again, while
# derived ones, such as time/ms, avg_time/us and tflop16/s, stay as they were with all kernels: one
# row says 7,000,000 ns and 20 ms. With --diff-profile, two profiles differ by 0 ns and 1 ms, the
# latter of a kernel that was left out of both.
# Seen with triton 3.9.0 and llnl-hatchet 2026.2.0: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q triton==3.9.0 llnl-hatchet==2026.2.0 pandas==2.3.3

cat >write.py <<'PY'
import json
import sys


def scope(name, children, **metrics):
    frame = {"name": name, "type": "function"}
    return {"frame": frame, "metrics": metrics, "children": children}


def kernel(name, ms, count, flops=0):
    times = {"time (ns)": ms * 1_000_000, "count": count, "flops16": flops}
    return scope(name, [], device_id="0", device_type="CUDA", **times)


gemm = int(sys.argv[1])
prefill = [kernel("gemm", gemm, 10, 9e12), kernel("norm", 1, 10)]
decode = [kernel("gemm", 4, 100, 1e12), kernel("attention", 6, 100, 1e12)]
root = scope("ROOT", [scope("prefill", prefill), scope("decode", decode)], count=0)
root["metrics"] |= {"time (ns)": 0, "flops16": 0}
print(json.dumps([root]))
PY
python/bin/python write.py 9 >profile.json
python/bin/python write.py 8 >faster.json
viewer() {
  echo "$@"
  python/bin/python -W ignore python/bin/proton-viewer "$@" | sed 's/\x1b\[[0-9;]*m//g' | grep '[0-9]'
}
{
  viewer -m time,time/ms -e gemm profile.json
  viewer -m time,time/ms -i '.*attention' profile.json
  viewer -m time/ms,time -t 5 profile.json
  viewer -m count,avg_time/us -e gemm profile.json
  viewer -m tflop16/s -e gemm profile.json
  viewer -m time,time/ms -e gemm -diff faster.json profile.json
} | tee output
cat >expected <<'TXT'
-m time,time/ms -e gemm profile.json
7000000.000 20.000 ROOT
├─ 6000000.000 10.000 decode
│  └─ 6000000.000 6.000 attention
└─ 1000000.000 10.000 prefill
   └─ 1000000.000 1.000 norm
-m time,time/ms -i .*attention profile.json
6000000.000 20.000 ROOT
└─ 6000000.000 10.000 decode
   └─ 6000000.000 6.000 attention
-m time/ms,time -t 5 profile.json
20.000 15000000.000 ROOT
├─ 10.000 6000000.000 decode
│  └─ 6.000 6000000.000 attention
└─ 10.000 9000000.000 prefill
   └─ 9.000 9000000.000 gemm
-m count,avg_time/us -e gemm profile.json
110.000 90.909 ROOT
├─ 100.000 50.000 decode
│  └─ 100.000 60.000 attention
└─ 10.000 500.000 prefill
   └─ 10.000 100.000 norm
-m tflop16/s -e gemm profile.json
550.000 ROOT
├─ 200.000 decode
│  └─ 166.667 attention
└─ 900.000 prefill
   └─ 0.000 norm
-m time,time/ms -e gemm -diff faster.json profile.json
0.000 1.000 ROOT
├─ 0.000 0.000 decode
│  └─ 0.000 0.000 attention
└─ 0.000 1.000 prefill
   └─ 0.000 0.000 norm
TXT
cmp expected output
