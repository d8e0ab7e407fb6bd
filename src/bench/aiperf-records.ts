/**
 * A run as AIPerf's per-record export (`profile_export.jsonl`): one request a line, with its
 * metadata, its metrics with their units, and its error.
 */

import type { CellRun, RequestRecord } from "./samples.ts";
import { sentTtftMs } from "./vllm-result.ts";
import { outputTokensOf, tpotMs } from "./windows.ts";

interface MetricValue {
  readonly value: number | readonly number[];
  readonly unit: string;
}

const NANOS_PER_SECOND = 1e9;

/** Lines with their ends; empty where the run has no request. */
export function aiperfRecords(run: CellRun): string {
  const startedMs = Date.parse(run.startedAt);
  return run.requests.map((request) => `${recordOf(run, startedMs, request)}\n`).join("");
}

function recordOf(run: CellRun, startedMs: number, request: RequestRecord): string {
  const { index, warmUp, dueSeconds, sentSeconds, lastSeconds = sentSeconds, failure } = request;
  const at = (seconds: number): bigint =>
    BigInt(startedMs) * 1_000_000n + BigInt(Math.round(seconds * NANOS_PER_SECOND));
  const metadata = {
    session_num: index,
    x_request_id: null,
    credit_issued_ns: at(dueSeconds),
    request_start_ns: at(sentSeconds),
    request_ack_ns: null,
    request_end_ns: at(lastSeconds),
    worker_id: `lazygraph-${run.host.name}`,
    record_processor_id: "lazygraph",
    benchmark_phase: warmUp ? "warmup" : "profiling",
    was_cancelled: false,
  };
  const error =
    failure === undefined
      ? null
      : { code: null, type: failure.kind, message: `${failure.kind}: ${failure.detail}` };
  return stringify({ metadata, metrics: error === null ? metricsOf(request) : {}, error });
}

function metricsOf(request: RequestRecord): Readonly<Record<string, MetricValue>> {
  const { sentSeconds, firstSeconds, lastSeconds = sentSeconds, itlMicros } = request;
  const outputTokens = outputTokensOf(request);
  const ttft = sentTtftMs(request);
  const tpot = tpotMs(request);
  return {
    request_latency: { value: (lastSeconds - sentSeconds) * 1000, unit: "ms" },
    input_sequence_length: {
      value: request.promptTokens ?? request.promptTokensWanted,
      unit: "tokens",
    },
    output_sequence_length: { value: outputTokens, unit: "tokens" },
    output_token_count: { value: outputTokens, unit: "tokens" },
    ...(ttft === undefined ? {} : { time_to_first_token: { value: ttft, unit: "ms" } }),
    ...(tpot === undefined ? {} : { inter_token_latency: { value: tpot, unit: "ms" } }),
    ...(firstSeconds === undefined || itlMicros.length === 0
      ? {}
      : {
          inter_chunk_latency: { value: itlMicros.map((micros) => micros / 1000), unit: "ms" },
        }),
  };
}

/** Nanoseconds since 1970 are beyond what a double keeps, and their readers want whole numbers. */
function stringify(value: unknown): string {
  const marked = JSON.stringify(value, (_, item) =>
    typeof item === "bigint" ? `#${item}#` : item,
  );
  return marked.replaceAll(/"#(\d+)#"/g, "$1");
}
