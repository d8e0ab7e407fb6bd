#!/bin/sh
# An exponential histogram of OpenTelemetry counts zeros apart, so that they cost no resolution. But of an
# interval with nothing else both SDKs note scale 0, and merge by the lower scale: after one reading in
# which all waits were 0, a cumulative histogram is coarse for as long as the process lives. In Python,
# and in JavaScript if it was the first, every bucket is then twice as wide as the one before.
# Seen with @opentelemetry/sdk-metrics 2.12.1 (and 3.1.1) and opentelemetry-sdk 1.45.2: the
# output below, where waits of five lengths fill so many buckets.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @opentelemetry/api@1.9.1 \
  @opentelemetry/sdk-metrics@2.12.1 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q opentelemetry-sdk==1.45.2

# Waits in ms, by interval.
cat >waits.json <<'JSON'
{
  "zeros too": [[0, 100, 110, 120, 130, 140], [100, 110, 120, 130, 140, 0]],
  "zeros first": [[0, 0, 0], [100, 110, 120, 130, 140], [100, 110, 120, 130, 140]],
  "zeros later": [[100, 110, 120, 130, 140], [0, 0, 0], [100, 110, 120, 130, 140]]
}
JSON
cat >record.mjs <<'JS'
import { readFileSync } from "node:fs";
import * as sdk from "@opentelemetry/sdk-metrics";
class Reader extends sdk.MetricReader {
  async onShutdown() {}
  async onForceFlush() {}
}
const aggregation = { type: sdk.AggregationType.EXPONENTIAL_HISTOGRAM };
const views = [{ instrumentName: "*", aggregation }];
for (const [name, intervals] of Object.entries(JSON.parse(readFileSync("waits.json")))) {
  for (const temporality of ["CUMULATIVE", "DELTA"]) {
    const aggregationTemporalitySelector = () => sdk.AggregationTemporality[temporality];
    const reader = new Reader({ aggregationTemporalitySelector });
    const meter = new sdk.MeterProvider({ views, readers: [reader] }).getMeter("m");
    const histogram = meter.createHistogram("h");
    let last;
    for (const waits of intervals) {
      for (const wait of waits) histogram.record(wait);
      const { resourceMetrics } = await reader.collect();
      last = resourceMetrics.scopeMetrics[0].metrics[0].dataPoints[0].value;
    }
    const filled = last.positive.bucketCounts.filter((count) => count > 0).length;
    console.log(`js, ${temporality}, ${name}: scale ${last.scale}, ${filled} of 5`);
  }
}
JS
cat >record.py <<'PY'
import json

from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

for name, intervals in json.load(open("waits.json")).items():
    for temporality in ("CUMULATIVE", "DELTA"):
        view = View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation())
        reader = InMemoryMetricReader({Histogram: AggregationTemporality[temporality]})
        meter = MeterProvider(metric_readers=[reader], views=[view]).get_meter("m")
        histogram = meter.create_histogram("h")
        for waits in intervals:
            for wait in waits:
                histogram.record(wait)
            (metric,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        (last,) = metric.data.data_points
        filled = sum(count > 0 for count in last.positive.bucket_counts)
        print(f"py, {temporality}, {name}: scale {last.scale}, {filled} of 5")
PY
{
  node record.mjs
  python/bin/python record.py
} | tee output
cat >expected <<'TXT'
js, CUMULATIVE, zeros too: scale 8, 5 of 5
js, DELTA, zeros too: scale 8, 5 of 5
js, CUMULATIVE, zeros first: scale 0, 2 of 5
js, DELTA, zeros first: scale 8, 5 of 5
js, CUMULATIVE, zeros later: scale 4, 5 of 5
js, DELTA, zeros later: scale 8, 5 of 5
py, CUMULATIVE, zeros too: scale 8, 5 of 5
py, DELTA, zeros too: scale 8, 5 of 5
py, CUMULATIVE, zeros first: scale 0, 2 of 5
py, DELTA, zeros first: scale 8, 5 of 5
py, CUMULATIVE, zeros later: scale 0, 2 of 5
py, DELTA, zeros later: scale 8, 5 of 5
TXT
cmp expected output
