#!/bin/sh
# OTEL_TRACES_SAMPLER=traceidratio decides by the trace's id, as if all services of a request would then
# keep the same traces. But JavaScript's SDK takes the id's four words by XOR, and Python's takes its
# lower half: at a tenth each keeps a tenth, and both keep the hundredth that chance gives. So of a
# gateway in Node and an engine in Python, nine of ten kept traces lack one half.
# `parentbased_traceidratio` follows who came first, and has whole traces.
# Seen with @opentelemetry/sdk-trace-base 2.12.1 and opentelemetry-sdk 1.45.2, whose provider vLLM
# leaves to these variables, on 10,000 requests with a `traceparent`: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @opentelemetry/api@1.9.1 \
  @opentelemetry/core@2.12.1 @opentelemetry/sdk-trace-base@2.12.1 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q opentelemetry-sdk==1.45.2

cat >gateway.mjs <<'JS'
import { createHash } from "node:crypto";
import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";

let made = 0;
const hex = () => createHash("sha256").update(`${made++}`).digest("hex");
const idGenerator = { generateTraceId: () => hex().slice(0, 32), generateSpanId: () => hex().slice(0, 16) };
const tracer = new BasicTracerProvider({ idGenerator }).getTracer("gateway");
const propagator = new W3CTraceContextPropagator();
const setter = { set: (headers, name, value) => (headers[name] = value) };
for (let request = 0; request < 10_000; request++) {
  const headers = {};
  const span = tracer.startSpan("request", {}, ROOT_CONTEXT);
  propagator.inject(trace.setSpan(ROOT_CONTEXT, span), headers, setter);
  console.log(headers.traceparent);
}
JS
cat >engine.py <<'PY'
import os
import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

tracer = TracerProvider().get_tracer("engine")
propagator = TraceContextTextMapPropagator()
gateway = engine = both = 0
for line in sys.stdin:
    parent = propagator.extract({"traceparent": line.strip()})
    kept = tracer.start_span("llm_request", parent).get_span_context().trace_flags.sampled
    kept_before = line.strip().endswith("01")
    gateway += kept_before
    engine += kept
    both += kept_before and kept
print(f"{os.environ['OTEL_TRACES_SAMPLER']}: gateway {gateway}, engine {engine}, both {both}")
PY
export OTEL_TRACES_SAMPLER_ARG=0.1
for OTEL_TRACES_SAMPLER in traceidratio parentbased_traceidratio; do
  export OTEL_TRACES_SAMPLER
  node gateway.mjs >traceparents
  python/bin/python engine.py <traceparents
done | tee output
cat >expected <<'TXT'
traceidratio: gateway 1025, engine 1005, both 118
parentbased_traceidratio: gateway 1025, engine 1025, both 1025
TXT
cmp expected output
