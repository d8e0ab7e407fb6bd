/**
 * A run in the shape of `vllm bench serve --save-detailed` (vLLM 0.26), so that its readers read
 * ours. As there, times count from when a request was sent, standard deviations are of the
 * population, and `burstiness` is the shape of the gamma distribution.
 */

import { mean, sortedOf, sortedQuantile } from "../measure/statistics.ts";
import type { CellRun, RequestRecord } from "./samples.ts";
import type { Goodput } from "./spec.ts";
import { completedOf, outputTokensOf, tpotMs } from "./windows.ts";

const PERCENTILES = [50, 90, 95, 99, 99.9];

export function vllmResult(run: CellRun, goodput: Goodput): Readonly<Record<string, unknown>> {
  const requests = run.requests.filter(({ warmUp }) => !warmUp);
  const completed = completedOf(run);
  const duration = durationSeconds(requests);
  const outputTokens = completed.reduce((sum, request) => sum + outputTokensOf(request), 0);
  const inputTokens = completed.reduce((sum, request) => sum + inputTokensOf(request), 0);
  const limited = Object.keys(goodput).length > 0;
  const good = completed.filter((request) => isGood(request, goodput)).length;
  const perSecond = (count: number): number => (duration === 0 ? 0 : count / duration);
  return {
    ...headOf(run),
    duration,
    completed: completed.length,
    failed: requests.length - completed.length,
    total_input_tokens: inputTokens,
    total_output_tokens: outputTokens,
    request_throughput: perSecond(completed.length),
    request_goodput: limited ? perSecond(good) : null,
    output_throughput: perSecond(outputTokens),
    total_token_throughput: perSecond(inputTokens + outputTokens),
    input_lens: requests.map(inputTokensOf),
    output_lens: requests.map((r) => (r.failure === undefined ? outputTokensOf(r) : 0)),
    ttfts: requests.map((request) => (sentTtftMs(request) ?? 0) / 1000),
    itls: requests.map(({ itlMicros }) => itlMicros.map((micros) => micros / 1e6)),
    start_times: requests.map(({ sentSeconds }) => sentSeconds),
    // The texts themselves are not kept.
    generated_texts: requests.map(() => ""),
    errors: requests.map(({ failure }) =>
      failure === undefined ? "" : `${failure.kind}: ${failure.detail}`,
    ),
    ...peaks(completed),
    rtfx: 0,
    ...metric(
      "ttft",
      completed.flatMap((request) => sentTtftMs(request) ?? []),
    ),
    ...metric(
      "tpot",
      completed.flatMap((request) => tpotMs(request) ?? []),
    ),
    ...metric(
      "itl",
      completed.flatMap(({ itlMicros }) => itlMicros.map((micros) => micros / 1000)),
    ),
    ...metric("e2el", completed.map(latencyMs)),
  };
}

function headOf({ cell, startedAt, model, load, requestsScheduled, endpoint }: CellRun): object {
  const ramp =
    load.rampUpStartRps === undefined
      ? {}
      : {
          ramp_up_strategy: load.rampUpStrategy ?? "linear",
          ramp_up_start_rps: load.rampUpStartRps,
          ramp_up_end_rps: load.rampUpEndRps,
        };
  return {
    date: startedAt.replaceAll(/[-:]/g, "").replace("T", "-").slice(0, 15),
    endpoint_type: endpoint === "chat" ? "openai-chat" : "openai",
    backend: endpoint === "chat" ? "openai-chat" : "openai",
    label: `${cell.mode}~${cell.load}~${cell.run}`,
    model_id: model ?? null,
    tokenizer_id: null,
    num_prompts: requestsScheduled,
    request_rate: load.requestRate ?? "inf",
    burstiness: load.arrivals === "constant" ? "inf" : (load.burstiness ?? 1),
    max_concurrency: null,
    ...ramp,
  };
}

function inputTokensOf({ promptTokens, promptTokensWanted }: RequestRecord): number {
  return promptTokens ?? promptTokensWanted;
}

/** From when it was sent, as vLLM's own client counts. */
export function sentTtftMs({ sentSeconds, firstSeconds }: RequestRecord): number | undefined {
  return firstSeconds === undefined ? undefined : (firstSeconds - sentSeconds) * 1000;
}

function latencyMs({ sentSeconds, lastSeconds = sentSeconds }: RequestRecord): number {
  return (lastSeconds - sentSeconds) * 1000;
}

/** Within every limit given; an answer of one token has no time per token to be late with. */
export function isGood(request: RequestRecord, { ttft, tpot, e2el }: Goodput): boolean {
  return (
    (ttft === undefined || (sentTtftMs(request) ?? Number.POSITIVE_INFINITY) <= ttft) &&
    (tpot === undefined || (tpotMs(request) ?? 0) <= tpot) &&
    (e2el === undefined || latencyMs(request) <= e2el)
  );
}

export function durationSeconds(requests: readonly RequestRecord[]): number {
  let first = Number.POSITIVE_INFINITY;
  let last = 0;
  for (const { sentSeconds, lastSeconds = sentSeconds } of requests) {
    first = Math.min(first, sentSeconds);
    last = Math.max(last, lastSeconds);
  }
  return requests.length === 0 ? 0 : last - first;
}

function metric(name: string, values: readonly number[]): Record<string, number> {
  // NumPy's mean of no samples, as vLLM calls it, is that of a single zero.
  const some = values.length === 0 ? [0] : values;
  const average = mean(some);
  const variance = mean(some.map((value) => (value - average) ** 2));
  const sorted = sortedOf(some);
  const percentiles = PERCENTILES.map((p) => {
    return [`p${p}_${name}_ms`, sortedQuantile(sorted, p / 100)];
  });
  return {
    [`mean_${name}_ms`]: average,
    [`median_${name}_ms`]: sortedQuantile(sorted, 0.5),
    [`std_${name}_ms`]: Math.sqrt(variance),
    ...Object.fromEntries(percentiles),
  };
}

/**
 * As vLLM counts: chunks for tokens, and requests under way at any time within a second, so that
 * neither is a peak of what it is called (findings/vllm-bench-peaks.sh).
 */
function peaks(completed: readonly RequestRecord[]): Record<string, number> {
  const start = completed.reduce(
    (min, r) => Math.min(min, r.sentSeconds),
    Number.POSITIVE_INFINITY,
  );
  const tokens: number[] = [];
  const requests: number[] = [];
  const bump = (list: number[], second: number): void => {
    list[second] = (list[second] ?? 0) + 1;
  };
  for (const { sentSeconds, firstSeconds = 0, lastSeconds = 0, itlMicros } of completed) {
    let at = firstSeconds - start;
    bump(tokens, Math.floor(at));
    for (const micros of itlMicros) {
      at += micros / 1e6;
      bump(tokens, Math.floor(at));
    }
    for (let s = Math.floor(sentSeconds - start); s <= Math.floor(lastSeconds - start); s++) {
      bump(requests, s);
    }
  }
  return {
    max_output_tokens_per_s: highest(tokens),
    max_concurrent_requests: highest(requests),
  };
}

function highest(counts: readonly (number | undefined)[]): number {
  return counts.reduce<number>((most, count) => Math.max(most, count ?? 0), 0);
}
