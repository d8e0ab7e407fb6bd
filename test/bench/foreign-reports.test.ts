import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { aiperfRecords } from "../../src/bench/aiperf-records.ts";
import { benchmarkReport } from "../../src/bench/benchmark-report.ts";
import type { CellRun, RequestRecord } from "../../src/bench/samples.ts";
import { readHeads, readRun } from "../../src/bench/store.ts";

const FOLDER = fileURLToPath(new URL("./fixtures/measured", import.meta.url));

async function measured(): Promise<CellRun> {
  const [head] = await readHeads(FOLDER);
  if (head === undefined) throw new Error("Expected runs among the fixtures.");
  return readRun(FOLDER, head);
}

const request = (more: Partial<RequestRecord>): RequestRecord => ({
  index: 0,
  warmUp: false,
  dueSeconds: 1,
  sentSeconds: 1.001,
  firstSeconds: 1.101,
  lastSeconds: 1.301,
  itlMicros: [100_000, 100_000],
  promptTokensWanted: 10,
  outputTokensWanted: 3,
  promptTokens: 11,
  outputTokens: 3,
  ...more,
});

async function runOf(...requests: RequestRecord[]): Promise<CellRun> {
  return { ...(await measured()), startedAt: "2026-01-02T03:04:05.678Z", requests };
}

test("llm-d's report has figures with units, and none where there is no sample", async () => {
  const failed = request({ index: 1, failure: { kind: "status", detail: "500" } as never });
  const report = benchmarkReport(await runOf(request({}), failed)) as {
    version: string;
    results: { request_performance: { aggregate: Record<string, Record<string, object>> } };
  };
  expect(report.version).toBe("0.2");
  const { requests, latency, throughput } = report.results.request_performance.aggregate;
  expect(requests).toMatchObject({
    total: 2,
    failures: 1,
    input_length: { units: "count", mean: 11, stddev: 0, p50: 11, max: 11 },
    output_length: { units: "count", mean: 3 },
  });
  expect(latency?.["time_to_first_token"]).toMatchObject({ units: "ms" });
  expect(Object(latency?.["time_to_first_token"]).mean).toBeCloseTo(100, 6);
  expect(Object(latency?.["request_latency"]).p99).toBeCloseTo(300, 6);
  expect(Object(throughput?.["output_token_rate"]).mean).toBeCloseTo(3 / 0.3, 6);
  const nothing = benchmarkReport(await runOf(failed)) as typeof report;
  expect(nothing.results.request_performance.aggregate["latency"]).toEqual({});
});

test("AIPerf's records are one line a request, nanoseconds whole, errors told", async () => {
  const failed = request({
    index: 1,
    warmUp: true,
    failure: { kind: "cut", detail: "x" } as never,
  });
  const lines = aiperfRecords(await runOf(request({}), failed))
    .trimEnd()
    .split("\n");
  expect(lines).toHaveLength(2);
  // 2026-01-02T03:04:05.678Z and 1.001 s.
  expect(lines[0]).toContain('"request_start_ns":1767323046679000000');
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    metadata: { session_num: 0, benchmark_phase: "profiling" },
    metrics: {
      input_sequence_length: { value: 11, unit: "tokens" },
      inter_chunk_latency: { value: [100, 100], unit: "ms" },
    },
    error: null,
  });
  expect(JSON.parse(lines[1] ?? "")).toMatchObject({
    metadata: { session_num: 1, benchmark_phase: "warmup" },
    metrics: {},
    error: { type: "cut", message: "cut: x" },
  });
});

test("a measured run goes into both forms", async () => {
  const run = await measured();
  expect(run.requests).toHaveLength(8);
  expect(aiperfRecords(run).trimEnd().split("\n")).toHaveLength(run.requests.length);
  expect(benchmarkReport(run)).toMatchObject({
    run: { uid: expect.stringContaining(run.startedAt) },
  });
});
