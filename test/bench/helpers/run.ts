import type { CaptureRecord, CellRun, RequestRecord } from "../../../src/bench/samples.ts";

/** A request due at a second, with its first token after some ms and then one every 10 ms. */
export function request(
  index: number,
  dueSeconds: number,
  ttftMs: number,
  more: Partial<RequestRecord> = {},
): RequestRecord {
  const firstSeconds = dueSeconds + ttftMs / 1000;
  return {
    index,
    warmUp: false,
    dueSeconds,
    sentSeconds: dueSeconds,
    firstSeconds,
    lastSeconds: firstSeconds + 0.03,
    itlMicros: [10_000, 10_000, 10_000],
    promptTokensWanted: 100,
    outputTokensWanted: 4,
    promptTokens: 100,
    outputTokens: 4,
    ...more,
  };
}

export function capture(graph: string, startSeconds: number, ms: number): CaptureRecord {
  return {
    graph,
    whenIdle: true,
    reason: "a test",
    startSeconds,
    endSeconds: startSeconds + ms / 1000,
    ms,
    bytes: 2 ** 20,
    graphsCaptured: 1,
  };
}

export function cellRun(more: Partial<CellRun> = {}): CellRun {
  return {
    format: 1,
    cell: { mode: "stock", load: "load", run: 1 },
    status: "complete",
    startedAt: "2026-01-01T00:00:00.000Z",
    host: {
      name: "a-host",
      cpus: 2,
      cpuModel: "a processor",
      memoryBytes: 2 ** 30,
      node: "v20",
      lazygraph: "0.1.0",
      gpus: [],
    },
    mode: { command: ["serve", "{port}"] },
    load: { arrivals: "poisson", requestRate: 1, seconds: 10 },
    start: "ready",
    endpoint: "completions",
    model: "m",
    requestsScheduled: 0,
    times: { readySeconds: 0, scheduleSeconds: 0, endSeconds: 10 },
    requests: [],
    captures: [],
    steps: [],
    memory: [],
    ...more,
  };
}
