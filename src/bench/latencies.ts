/** Inter-token latencies: millions in a run, so they go into an HDR histogram. */

import { build, type Histogram } from "hdr-histogram-js";
import type { RequestRecord } from "./samples.ts";
import type { Distribution } from "./stats.ts";

/** Ten minutes in microseconds, to three significant digits. */
const MICROS_MAX = 600_000_000;

export function itlHistogram(requests: readonly RequestRecord[]): Histogram {
  const histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: MICROS_MAX,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
  });
  for (const { itlMicros } of requests) {
    for (const micros of itlMicros) histogram.recordValue(Math.min(micros, MICROS_MAX));
  }
  return histogram;
}

/** In milliseconds; undefined of an empty histogram. */
export function itlDistribution(histogram: Histogram): Distribution | undefined {
  if (histogram.totalCount === 0) return undefined;
  const ms = (percentile: number): number => histogram.getValueAtPercentile(percentile) / 1000;
  const mean = histogram.mean / 1000;
  const sd = histogram.stdDeviation / 1000;
  return {
    n: histogram.totalCount,
    mean,
    sd,
    cv: mean === 0 ? 0 : sd / mean,
    p50: ms(50),
    p90: ms(90),
    p95: ms(95),
    p99: ms(99),
    p999: ms(99.9),
    max: histogram.maxValue / 1000,
  };
}
