/**
 * A run as a Benchmark Report of llm-d, version 0.2, for its tools to compare.
 * Times count from the send, as there; deviations are of the sample.
 */

import { packageVersion } from "../base/version.ts";
import { mean, quantile, sortedOf, sortedQuantile } from "../measure/statistics.ts";
import type { CellRun, RequestRecord } from "./samples.ts";
import { durationSeconds, sentTtftMs } from "./vllm-result.ts";
import { completedOf, outputTokensOf, tpotMs } from "./windows.ts";

/** Units of llm-d's that a run of ours has. */
type Units = "count" | "ms" | "ms/token" | "tokens/s" | "queries/s";

const PERCENTILES = [
  ["p1", 0.01],
  ["p5", 0.05],
  ["p10", 0.1],
  ["p25", 0.25],
  ["p50", 0.5],
  ["p75", 0.75],
  ["p90", 0.9],
  ["p95", 0.95],
  ["p99", 0.99],
  ["p99p9", 0.999],
] as const;

export function benchmarkReport(run: CellRun): Readonly<Record<string, unknown>> {
  const requests = run.requests.filter(({ warmUp }) => !warmUp);
  return {
    version: "0.2",
    run: {
      uid: `${run.startedAt}~${run.cell.mode}~${run.cell.load}~${run.cell.run}`,
      time: { start: run.startedAt, duration: `PT${durationSeconds(requests).toFixed(3)}S` },
      description: `mode ${run.cell.mode}, load ${run.cell.load}, run ${run.cell.run}`,
      // Where it is simulated, every reader has to see it.
      ...(run.simulated === undefined ? {} : { keywords: ["simulated", run.simulated] }),
    },
    scenario: { load: loadOf(run, requests) },
    results: { request_performance: { aggregate: aggregateOf(run, requests) } },
  };
}

function loadOf({ load }: CellRun, requests: readonly RequestRecord[]): object {
  return {
    metadata: {},
    standardized: {
      tool: "lazygraph",
      tool_version: packageVersion(),
      // Texts of a file are sampled; others are made up.
      source: load.shareGpt === undefined ? "random" : "sampled",
      input_seq_len: lengthOf(requests.map(({ promptTokensWanted }) => promptTokensWanted)),
      output_seq_len: lengthOf(requests.map(({ outputTokensWanted }) => outputTokensWanted)),
      ...(load.requestRate === undefined ? {} : { rate_qps: load.requestRate }),
    },
    native: { config: load },
  };
}

/** As they were asked for. */
function lengthOf(lengths: readonly number[]): object {
  const some = lengths.length === 0 ? [0] : lengths;
  const [min, max] = [quantile(some, 0), quantile(some, 1)];
  if (min === max) return { distribution: "fixed", value: min };
  return { distribution: "other", value: mean(some), std_dev: deviation(some), min, max };
}

function aggregateOf(run: CellRun, requests: readonly RequestRecord[]): object {
  const completed = completedOf(run);
  const seconds = durationSeconds(requests);
  const tokensIn = completed.map(({ promptTokens, promptTokensWanted }) => {
    return promptTokens ?? promptTokensWanted;
  });
  const tokensOut = completed.map(outputTokensOf);
  const latencies = completed.map(({ sentSeconds, lastSeconds = sentSeconds }) => {
    return (lastSeconds - sentSeconds) * 1000;
  });
  const rate = (total: number, units: Units): object =>
    seconds === 0 ? {} : { units, mean: total / seconds };
  return {
    requests: {
      total: requests.length,
      failures: requests.length - completed.length,
      ...given("input_length", "count", tokensIn),
      ...given("output_length", "count", tokensOut),
    },
    latency: {
      ...given(
        "time_to_first_token",
        "ms",
        completed.flatMap((each) => sentTtftMs(each) ?? []),
      ),
      ...given(
        "time_per_output_token",
        "ms/token",
        completed.flatMap((each) => tpotMs(each) ?? []),
      ),
      ...given(
        "inter_token_latency",
        "ms/token",
        completed.flatMap(({ itlMicros }) => itlMicros.map((micros) => micros / 1000)),
      ),
      ...given("request_latency", "ms", latencies),
    },
    ...(seconds === 0
      ? {}
      : {
          throughput: {
            input_token_rate: rate(sum(tokensIn), "tokens/s"),
            output_token_rate: rate(sum(tokensOut), "tokens/s"),
            total_token_rate: rate(sum(tokensIn) + sum(tokensOut), "tokens/s"),
            request_rate: rate(completed.length, "queries/s"),
          },
        }),
  };
}

/** Left out where there is no sample: zeros would be figures. */
function given(name: string, units: Units, values: readonly number[]): object {
  if (values.length === 0) return {};
  const sorted = sortedOf(values);
  const percentiles = PERCENTILES.map(([key, share]) => [key, sortedQuantile(sorted, share)]);
  return {
    [name]: {
      units,
      mean: mean(values),
      stddev: deviation(values),
      min: sortedQuantile(sorted, 0),
      ...Object.fromEntries(percentiles),
      max: sortedQuantile(sorted, 1),
    },
  };
}

function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const average = mean(values);
  return Math.sqrt(sum(values.map((value) => (value - average) ** 2)) / (values.length - 1));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
