#!/bin/sh
# AIBrix's runtime gives metrics one name for all engines, and none of the counters gets it: rules are
# found by a family's name, which prometheus_client's parser tells without the `_total` of a counter,
# and named with it. Gauges and histograms are renamed, but for the time per output token, of which the
# rule has a name that vLLM no longer uses. An alert on aibrix:generation_tokens_total never sees it.
# Seen with aibrix 0.8.0 and the prometheus_client that it asks for, on metrics by the names of vLLM
# 0.33.0: the output below. It's installed without what its collector doesn't import.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps aibrix==0.8.0
python/bin/pip install -q prometheus-client==0.20.0 pydantic==2.14.4 pydantic-settings==2.6.1 \
  requests==2.32.5 structlog==24.4.0 2>pip.log

cat >scrape.py <<'PY'
import http.server
import threading

from aibrix.metrics.engine_rules import get_metric_standard_rules
from aibrix.metrics.http_collector import HTTPCollector
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

vllm = CollectorRegistry()
for name in ("prompt_tokens", "generation_tokens", "request_success"):
    Counter(f"vllm:{name}", "", registry=vllm).inc()
Gauge("vllm:num_requests_waiting", "", registry=vllm).set(1)
for name in ("time_to_first_token", "request_time_per_output_token", "e2e_request_latency"):
    Histogram(f"vllm:{name}_seconds", "", registry=vllm).observe(1)


class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(generate_latest(vllm))

    def log_message(self, *_):
        pass


rules = get_metric_standard_rules("vllm")
with http.server.HTTPServer(("127.0.0.1", 0), Engine) as engine:
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    collector = HTTPCollector(f"http://127.0.0.1:{engine.server_port}/metrics", rules)
    families = list(collector.collect())
    engine.shutdown()
samples = {sample.name for family in families for sample in family.samples}
for rule in rules.values():
    name = getattr(rule, "new_name", "")  # Some rules keep the name.
    if name.endswith(("_total", "_seconds", "_size")):
        print(name, "comes" if samples & {name, f"{name}_sum"} else "does not come")
PY
timeout 60 python/bin/python scrape.py | tee output
cat >expected <<'TXT'
aibrix:queue_size comes
aibrix:prompt_tokens_total does not come
aibrix:generation_tokens_total does not come
aibrix:time_to_first_token_seconds comes
aibrix:time_per_output_token_seconds does not come
aibrix:e2e_request_latency_seconds comes
aibrix:request_success_total does not come
TXT
cmp expected output
