#!/bin/sh
# llm-d's converter of benchmark results takes AIPerf's files, and looks for the concurrency where
# an older AIPerf had it, under `loadgen`; today's has it with its phases. Nothing is refused: the
# report just has none. And whatever the load was, it says that prompts were random and of one
# length, the mean, even beside another least and most.
# Seen with llmd-benchmark-report 0.2.1 on what AIPerf 0.13.0 wrote of six requests with
# --concurrency 2 and prompts of 550 tokens with a deviation of 100, shortened to what is read.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q llmd-benchmark-report==0.2.1

cat >profile_export_aiperf.json <<'JSON'
{
  "schema_version": "1.4",
  "aiperf_version": "0.13.0",
  "request_throughput": { "unit": "requests/sec", "avg": 3.77 },
  "request_latency": { "unit": "ms", "avg": 24.7, "min": 23.7, "max": 25.6 },
  "request_count": { "unit": "requests", "avg": 6.0 },
  "time_to_first_token": { "unit": "ms", "avg": 4.9, "min": 4.4, "max": 5.5 },
  "inter_token_latency": { "unit": "ms", "avg": 9.9, "min": 9.7, "max": 10.1 },
  "output_token_throughput": { "unit": "tokens/sec", "avg": 11.3 },
  "total_token_throughput": { "unit": "tokens/sec", "avg": 2211.0 },
  "output_sequence_length": { "unit": "tokens", "avg": 3.0, "min": 3.0, "max": 3.0 },
  "input_sequence_length": { "unit": "tokens", "avg": 583.67, "min": 521.0, "max": 655.0 },
  "input_config": {
    "models": { "items": [{ "name": "plain" }] },
    "endpoint": { "urls": ["http://127.0.0.1:8000"], "type": "completions", "streaming": true },
    "datasets": [
      {
        "name": "main",
        "type": "synthetic",
        "entries": 6,
        "prompts": { "isl": { "mean": 550.0, "stddev": 100.0 }, "osl": { "mean": 3.0 } }
      }
    ],
    "phases": [
      { "name": "profiling", "type": "concurrency", "requests": 6, "concurrency": 2 }
    ],
    "artifacts": { "dir": "artifacts" }
  },
  "error_summary": []
}
JSON
cat >convert.py <<'PY'
import json

from llmd_benchmark_report.native_to_br0_2 import import_aiperf


def load_of(file):
    report = import_aiperf(file).model_dump(mode="json", exclude_none=True)
    return report["scenario"]["load"]["standardized"]


load = load_of("profile_export_aiperf.json")
length = load["input_seq_len"]
print("source:", load["source"])
print("prompts:", *(length[key] for key in ("distribution", "value", "min", "max")))
print("concurrency:", load.get("concurrency"))

with open("profile_export_aiperf.json") as file:
    older = json.load(file)
older["input_config"]["loadgen"] = {"concurrency": 2}
with open("older.json", "w") as file:
    json.dump(older, file)
print("concurrency, where it was:", load_of("older.json").get("concurrency"))
PY
python/bin/python convert.py 2>warnings | tee output
if grep -vi 'experiment ID' warnings; then echo "it warns now" && exit 1; fi
cat >expected <<'TXT'
source: random
prompts: fixed 583.67 521 655
concurrency: None
concurrency, where it was: 2
TXT
cmp expected output
