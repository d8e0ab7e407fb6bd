#!/bin/sh
# parse-prometheus-text-format, which many Node programs read Prometheus' text format with, makes one of
# all histograms of a name. The buckets are those of the last on the page; labels, sum and count are gone.
# So it is with one histogram too, once it has a label, as all of vLLM's have, and with summaries; only
# without labels they are whole. Counters and gauges keep their labels, and nothing is said.
# Seen with parse-prometheus-text-format 1.1.1 on a page of two engines, of which one answers within a
# second and the other doesn't: the output below. prometheus_client 0.26.0 reads all of it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit parse-prometheus-text-format@1.1.1 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q prometheus_client==0.26.0

cat >page <<'TXT'
# HELP waits Of one queue, without labels.
# TYPE waits histogram
waits_bucket{le="1.0"} 6
waits_bucket{le="+Inf"} 8
waits_sum 12.0
waits_count 8
# HELP ttft Of two engines.
# TYPE ttft histogram
ttft_bucket{engine="0",le="1.0"} 950
ttft_bucket{engine="0",le="+Inf"} 1000
ttft_sum{engine="0"} 300.0
ttft_count{engine="0"} 1000
ttft_bucket{engine="1",le="1.0"} 2
ttft_bucket{engine="1",le="+Inf"} 50
ttft_sum{engine="1"} 400.0
ttft_count{engine="1"} 50
# HELP pause Of the garbage collector.
# TYPE pause summary
pause{engine="0",quantile="0.5"} 0.25
pause_sum{engine="0"} 8.0
pause_count{engine="0"} 30
# HELP running Requests.
# TYPE running gauge
running{engine="0"} 3
running{engine="1"} 5
TXT
cat >read.mjs <<'JS'
import { readFileSync } from "node:fs";
import parse from "parse-prometheus-text-format";
for (const { name, metrics } of parse(readFileSync("page", "utf8"))) {
  for (const metric of metrics) console.log(`${name}: ${JSON.stringify(metric)}`);
}
JS
cat >read.py <<'PY'
from prometheus_client.parser import text_string_to_metric_families

for family in text_string_to_metric_families(open("page").read()):
    if family.type == "histogram":
        for sample in family.samples:
            print(*("python:", sample.name, *sample.labels.values()), f"= {sample.value:g}")
PY
{
  node read.mjs
  python/bin/python read.py
} | tee output
cat >expected <<'TXT'
waits: {"buckets":{"1.0":"6","+Inf":"8"},"count":"8","sum":"12.0"}
ttft: {"buckets":{"1.0":"2","+Inf":"50"}}
pause: {"quantiles":{"0.5":"0.25"}}
running: {"value":"3","labels":{"engine":"0"}}
running: {"value":"5","labels":{"engine":"1"}}
python: waits_bucket 1.0 = 6
python: waits_bucket +Inf = 8
python: waits_sum = 12
python: waits_count = 8
python: ttft_bucket 0 1.0 = 950
python: ttft_bucket 0 +Inf = 1000
python: ttft_sum 0 = 300
python: ttft_count 0 = 1000
python: ttft_bucket 1 1.0 = 2
python: ttft_bucket 1 +Inf = 50
python: ttft_sum 1 = 400
python: ttft_count 1 = 50
TXT
cmp expected output
