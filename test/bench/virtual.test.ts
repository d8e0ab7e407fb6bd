/** Benchmarks of simulated engines in virtual time: the client's side, and whole reports. */

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { runMatrix } from "../../src/bench/matrix.ts";
import { writeReport } from "../../src/bench/report.ts";
import type { CellRun, RequestRecord } from "../../src/bench/samples.ts";
import { parseSpec } from "../../src/bench/spec.ts";
import { readHeads, readRun } from "../../src/bench/store.ts";
import { VirtualLoad } from "../../src/bench/virtual-load.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { quickProfile } from "./helpers/profile.ts";

const silent = {
  phase: () => undefined,
  requests: () => undefined,
  cell: () => undefined,
  cellDone: () => undefined,
};

async function runsOf(
  spec: object,
  signal: AbortSignal = new AbortController().signal,
): Promise<{ folder: string; runs: CellRun[] }> {
  const folder = join(await temporaryFolder(), "out");
  await runMatrix({ spec: parseSpec(spec), folder, progress: silent, signal });
  const runs: CellRun[] = [];
  for (const head of await readHeads(folder)) runs.push(await readRun(folder, head));
  return { folder, runs };
}

function find(runs: readonly CellRun[], mode: string): CellRun {
  const run = runs.find(({ cell }) => cell.mode === mode);
  if (run === undefined) throw new Error(`No run of ${mode}.`);
  return run;
}

const LOAD = { arrivals: "poisson", requestRate: 4, seconds: 600, outputLen: 20 } as const;

describe("a report in virtual time", () => {
  test("ten minutes of four modes: marked as simulated, every request in it", {
    timeout: 120_000,
  }, async () => {
    const simulated = { profile: await quickProfile(8), jitter: 0.02 };
    const modes = {
      stock: { simulated },
      eager: { simulated, mode: "eager" },
      lazy: { simulated, mode: "lazy" },
      idle: { simulated, mode: "idle", controller: { policy: "costed" } },
    };
    const { folder, runs } = await runsOf({ modes, loads: { calm: LOAD }, numWarmups: 20 });
    const { summary, markdown } = await writeReport(folder);
    expect(markdown).toMatch(/^\*\*SIMULATED: .+; in virtual time\)\.\*\*$/m);
    expect(summary).toMatchObject({ simulated: true, partial: false });
    for (const run of runs) {
      expect(run.simulated).toContain("in virtual time");
      const own = run.requests.filter(({ warmUp }) => !warmUp);
      expect(own).toHaveLength(run.requestsScheduled);
      expect(run.requests.length - own.length).toBe(21);
      expect(
        own.every(({ itlMicros, outputTokens }) => itlMicros.length + 1 === outputTokens),
      ).toBe(true);
      expect(run.times.endSeconds).toBeGreaterThan(590);
      const first = Math.min(...run.requests.map(({ firstSeconds = 0 }) => firstSeconds));
      expect(run.times.firstTokenSeconds).toBe(first);
      expect(first).toBeGreaterThan(run.times.readySeconds ?? Number.NaN);
    }
    const [stock, eager, idle] = ["stock", "eager", "idle"].map((mode) => find(runs, mode));
    expect(stock?.times.readySeconds).toBeGreaterThan(eager?.times.readySeconds ?? Number.NaN);
    expect(eager?.times.readySeconds).toBeGreaterThan(idle?.times.readySeconds ?? Number.NaN);
    // Stock and eager capture all before ready, idle mode the most of it after.
    expect(stock?.captures).toEqual([]);
    expect(idle?.captures.length).toBeGreaterThan(0);
    expect(idle?.engine?.graphsCaptured).toBe(
      (idle?.graphsAtReady?.length ?? 0) + (idle?.captures.length ?? 0),
    );
    const replays = idle?.engine?.graphs.reduce((sum, graph) => sum + graph.replays, 0);
    expect(replays).toBeGreaterThan(0);
  });

  test("the same again, run for run; runs of one cell differ", async () => {
    const simulated = { profile: await quickProfile(), jitter: 0.1 };
    const load = { ...LOAD, seconds: 20 };
    const spec = { modes: { idle: { simulated, mode: "idle" } }, loads: { load }, runs: 2 };
    const [one, other] = [await runsOf(spec), await runsOf(spec)];
    expect(one.runs.map(({ requests }) => requests)).toEqual(
      other.runs.map(({ requests }) => requests),
    );
    const [first, second] = one.runs;
    expect(first?.requests).not.toEqual(second?.requests);
  });

  test("from spawn requests wait for the engine at the client", async () => {
    const simulated = { profile: await quickProfile(5) };
    const load = { arrivals: "constant", requestRate: 2, numPrompts: 20, start: "spawn" };
    const { runs } = await runsOf({ modes: { stock: { simulated } }, loads: { load } });
    const { requests, times } = find(runs, "stock");
    const { readySeconds = Number.NaN } = times;
    expect(requests.map(({ dueSeconds }) => dueSeconds)).toEqual(
      Array.from({ length: 20 }, (_, index) => index / 2),
    );
    for (const { dueSeconds, sentSeconds } of requests) {
      expect(sentSeconds).toBeCloseTo(Math.max(dueSeconds, readySeconds), 5);
    }
    expect(times).toMatchObject({ scheduleSeconds: 0 });
  });

  test("settled: the fill is over before the first request of the schedule", async () => {
    const simulated = { profile: await quickProfile(), sizes: [1, 2, 4, 8] };
    const load = { ...LOAD, seconds: 5, start: "settled" };
    const modes = { idle: { simulated, mode: "idle" } };
    const { runs } = await runsOf({ modes, loads: { load } });
    const { requests, times, captures } = find(runs, "idle");
    const due = requests.filter(({ warmUp }) => !warmUp).map(({ dueSeconds }) => dueSeconds);
    expect(captures).toHaveLength(6);
    expect(Math.min(...due)).toBeGreaterThanOrEqual(captures.at(-1)?.endSeconds ?? Number.NaN);
    expect(times.scheduleSeconds).toBeGreaterThanOrEqual(times.settledSeconds ?? Number.NaN);
  });

  test("an engine that never settles makes the run partial, and says what to do", async () => {
    const simulated = { profile: await quickProfile() };
    const load = { ...LOAD, seconds: 5, start: "settled" };
    const modes = { lazy: { simulated, mode: "lazy" } };
    const { runs } = await runsOf({ modes, loads: { load }, readySecondsMax: 60 });
    expect(find(runs, "lazy")).toMatchObject({
      status: "partial",
      reason: expect.stringContaining("Expected the engine to settle within 60 s"),
    });
  });

  test("what can never fit is a failed request", async () => {
    const simulated = { profile: await quickProfile() };
    const load = { arrivals: "constant", requestRate: 1, numPrompts: 2, inputLen: 1_000_000 };
    const { runs } = await runsOf({ modes: { stock: { simulated } }, loads: { load } });
    const { requests, status, reason } = find(runs, "stock");
    expect(requests.filter(({ failure }) => failure?.kind === "http_error")).toHaveLength(2);
    expect({ status, reason }).toEqual({ status: "partial", reason: "No request succeeded." });
  });

  test("stopped, it is partial", async () => {
    const simulated = { profile: await quickProfile() };
    const stop = new AbortController();
    const spec = parseSpec({ modes: { stock: { simulated } }, loads: { load: LOAD } });
    const folder = join(await temporaryFolder(), "out");
    const progress = { ...silent, requests: () => stop.abort() };
    const { ran } = await runMatrix({ spec, folder, progress, signal: stop.signal });
    expect(ran).toMatchObject([{ status: "partial", reason: "The benchmark was stopped." }]);
    expect(await readdir(join(folder, "runs"))).toContain("stock~load~1.ndjson.gz");
  });
});

describe("the client's side", () => {
  const schedule = [
    { atSeconds: 0, promptTokens: 10, outputTokens: 2 },
    { atSeconds: 1, promptTokens: 11, outputTokens: 1 },
  ];

  function loadOf(fromSpawn: boolean, numWarmups: number) {
    const records: RequestRecord[] = [];
    const onRecord = (record: RequestRecord) => records.push(record);
    return { load: new VirtualLoad({ schedule, fromSpawn, numWarmups, onRecord }), records };
  }

  test("one request first, then the warm-up eight at once, then the schedule", () => {
    const { load, records } = loadOf(false, 10);
    expect(load.next).toBeUndefined();
    load.ready(5);
    expect(load.next).toMatchObject({ atSeconds: 5, promptTokens: 16, outputTokens: 1 });
    const [first] = [load.next?.tag ?? 0];
    load.shift(true);
    expect(load.next).toBeUndefined();
    load.token(first, 0, 5.5);
    const tags: number[] = [];
    const send = () => {
      while (load.next !== undefined) {
        tags.push(load.next.tag ?? 0);
        load.shift(true);
      }
    };
    send();
    expect(tags).toHaveLength(8);
    load.token(tags[0] ?? 0, 0, 6);
    send();
    expect(tags).toHaveLength(9);
    for (const tag of tags.slice(1)) load.token(tag, 0, 7);
    expect(load.warm).toBe(false);
    send();
    load.token(tags[9] ?? 0, 0, 7);
    expect(load.warm).toBe(true);
    expect(records.every(({ warmUp }) => warmUp)).toBe(true);
    load.begin(8);
    expect(load.next).toMatchObject({ atSeconds: 8, promptTokens: 10 });
  });

  test("a request's record has the times of its tokens; a refused one is a failure", () => {
    const { load, records } = loadOf(true, 0);
    expect(load.next).toBeUndefined();
    load.ready(0.25);
    const tag = load.next?.tag ?? 0;
    load.shift(true);
    load.token(tag, 1, 0.5);
    load.token(tag, 0, 0.625);
    expect(load.done).toBe(false);
    load.shift(false);
    expect(load.done).toBe(true);
    expect(records).toEqual([
      {
        ...{ index: 0, warmUp: false, dueSeconds: 0, sentSeconds: 0.25, firstSeconds: 0.5 },
        ...{ lastSeconds: 0.625, itlMicros: [125_000], promptTokensWanted: 10 },
        ...{ outputTokensWanted: 2, promptTokens: 10, outputTokens: 2 },
      },
      {
        ...{ index: 1, warmUp: false, dueSeconds: 1, sentSeconds: 1, itlMicros: [] },
        ...{ promptTokensWanted: 11, outputTokensWanted: 1 },
        failure: { kind: "http_error", detail: expect.any(String) },
      },
    ]);
  });
});
