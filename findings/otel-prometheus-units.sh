#!/bin/sh
# One instrument of OpenTelemetry has two names in Prometheus. By the specification an exporter adds
# the unit, spelled out, to the end of a name, as Python's does; JavaScript's leaves it out. So of a
# gateway in Node and an engine in Python, instrumented by the same conventions, a dashboard or an
# alert finds one half.
# Seen with @opentelemetry/exporter-prometheus 0.223.0 (and 0.301.0, which wants Node 22) and
# opentelemetry-exporter-prometheus 0.66b2 on three instruments: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @opentelemetry/api@1.9.1 \
  @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/exporter-prometheus@0.223.0 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q opentelemetry-sdk==1.45.2 opentelemetry-exporter-prometheus==0.66b2 \
  prometheus-client==0.26.0

cat >metrics.mjs <<'JS'
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
const exporter = new PrometheusExporter({ preventServerStart: true });
const meter = new MeterProvider({ readers: [exporter] }).getMeter("example");
meter.createHistogram("gen_ai.server.time_to_first_token", { unit: "s" }).record(0.3);
meter.createHistogram("gen_ai.client.token.usage", { unit: "{token}" }).record(210);
meter.createCounter("system.network.io", { unit: "By" }).add(10);
const { resourceMetrics } = await exporter.collect();
console.log(new PrometheusSerializer().serialize(resourceMetrics));
JS
cat >metrics.py <<'PY'
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest

meter = MeterProvider(metric_readers=[PrometheusMetricReader()]).get_meter("example")
meter.create_histogram("gen_ai.server.time_to_first_token", unit="s").record(0.3)
meter.create_histogram("gen_ai.client.token.usage", unit="{token}").record(210)
meter.create_counter("system.network.io", unit="By").add(10)
print(generate_latest().decode())
PY
{
  node metrics.mjs
  python/bin/python metrics.py
} | sed -n 's/^# TYPE \(gen_ai\|system\)/\1/p' | tee output
cat >expected <<'TXT'
gen_ai_server_time_to_first_token histogram
gen_ai_client_token_usage histogram
system_network_io_total counter
gen_ai_server_time_to_first_token_seconds histogram
gen_ai_client_token_usage histogram
system_network_io_bytes_total counter
TXT
cmp expected output
