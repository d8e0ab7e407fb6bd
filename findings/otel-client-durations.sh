#!/bin/sh
# OpenTelemetry's `http.client.request.duration` of one answer, which comes in pieces for a second as
# tokens do, is a second for JavaScript's fetch and Python's requests, and the time to the head for
# httpx, httpx2 (OpenAI's client) and aiohttp: spans and histograms end there, though `get()` returns
# the whole body. On one dashboard the latter's engine seems many times as fast; and an answer that
# breaks off, for which all of them raise, is a success.
# Seen with the instrumentations of httpx, aiohttp and requests 0.66b1 and of undici 0.33.0: the output
# below, of a whole answer and one cut off.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @opentelemetry/api@1.9.1 \
  @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/instrumentation-undici@0.33.0 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-httpx==0.66b1 \
  opentelemetry-instrumentation-aiohttp-client==0.66b1 httpx==0.28.1 httpx2==2.16.2 \
  aiohttp==3.14.5 opentelemetry-instrumentation-requests==0.66b1 requests==2.34.2

cat >ask.mjs <<'JS'
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { UndiciInstrumentation } from "@opentelemetry/instrumentation-undici";
import { AggregationTemporality, MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";
const reader = new MetricReader({ aggregationTemporalitySelector: () => AggregationTemporality.DELTA });
const instrumentation = new UndiciInstrumentation();
instrumentation.setMeterProvider(new MeterProvider({ readers: [reader] }));
// Answers at once, in pieces for a second; /cut is cut off.
const server = createServer((request, answer) => {
  answer.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
  setTimeout(() => answer.write("data: x\n\n"), 500);
  setTimeout(() => (request.url === "/cut" ? answer.destroy() : answer.end()), 1000);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const url = `http://127.0.0.1:${server.address().port}`;
const seen = [];
for (const path of ["whole", "cut"]) {
  const text = (await fetch(`${url}/${path}`)).text();
  const got = await text.then(() => "got", () => "raised");
  const { resourceMetrics } = await reader.collect();
  const { attributes, value } = resourceMetrics.scopeMetrics[0].metrics[0].dataPoints[0];
  const error = attributes["error.type"] ? " error" : "";
  seen.push(`${got} ${value.sum > 0.8 ? "end" : "head"}${error}`);
}
console.log(`fetch: ${seen.join(", ")}`);
spawn("python/bin/python", ["ask.py", url], { stdio: "inherit" }).on("exit", () => server.close());
JS
cat >ask.py <<'PY'
import asyncio
import sys

import aiohttp
import httpx
import httpx2
import requests
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

reader = InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})
provider = MeterProvider(metric_readers=[reader])
for its in (
    AioHttpClientInstrumentor,
    HTTPX2ClientInstrumentor,
    HTTPXClientInstrumentor,
    RequestsInstrumentor,
):
    its().instrument(meter_provider=provider)


async def by_aiohttp(url):
    async with aiohttp.request("GET", url) as answer:
        await answer.read()


for name, get in {
    "requests": requests.get,
    "httpx": httpx.get,
    "httpx2": httpx2.get,
    "aiohttp": lambda url: asyncio.run(by_aiohttp(url)),
}.items():
    seen = []
    for path in ("whole", "cut"):
        got = "got"
        try:
            get(f"{sys.argv[1]}/{path}")
        except Exception:
            got = "raised"
        scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
        (point,) = [p for s in scopes for m in s.metrics for p in m.data.data_points]
        got += " end" if point.sum > 0.8 else " head"
        seen.append(got + " error" * ("error.type" in point.attributes))
    print(f"{name}: {', '.join(seen)}")
PY
OTEL_SEMCONV_STABILITY_OPT_IN=http node ask.mjs | tee output
cat >expected <<'TXT'
fetch: got end, raised end error
requests: got end, raised end error
httpx: got head, raised head
httpx2: got head, raised head
aiohttp: got head, raised head
TXT
cmp expected output
