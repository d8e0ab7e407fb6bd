import { describe, expect, test } from "vitest";
import { createRandom, standardNormal } from "../../src/base/random.ts";
import { compare, estimate } from "../../src/bench/bootstrap.ts";
import { cautions } from "../../src/bench/cautions.ts";
import { conclusions } from "../../src/bench/conclusion.ts";
import { longestTokenGap } from "../../src/bench/gap.ts";
import { glanceOf } from "../../src/bench/glance.ts";
import { itlMs } from "../../src/bench/latencies.ts";
import { markdownOf } from "../../src/bench/markdown.ts";
import { numberText, rowGroups } from "../../src/bench/rows.ts";
import { runFigures } from "../../src/bench/run-figures.ts";
import { runTable } from "../../src/bench/run-table.ts";
import type { CellRun } from "../../src/bench/samples.ts";
import { summarise } from "../../src/bench/summary.ts";
import { traceEvents } from "../../src/bench/trace-events.ts";
import { vllmResult } from "../../src/bench/vllm-result.ts";
import { inWindow, tpotMs, ttftMs, WINDOWS } from "../../src/bench/windows.ts";
import { distributionOf, quantile } from "../../src/measure/statistics.ts";
import { capture, cellRun, request } from "./helpers/run.ts";

describe("distributions", () => {
  test("mean, deviation, cv and quantiles", () => {
    const figures = distributionOf([1, 2, 3, 4]);
    expect(figures).toMatchObject({ n: 4, mean: 2.5, p50: 2.5, max: 4 });
    expect(figures?.sd).toBeCloseTo(1.291, 3);
    expect(figures?.cv).toBeCloseTo(0.5164, 3);
    expect(distributionOf([])).toBeUndefined();
    expect(distributionOf([7])).toMatchObject({ sd: 0, cv: 0, p999: 7 });
  });

  test("inter-token latencies are exact, over all requests", () => {
    const itlMicros = Array.from({ length: 5000 }, (_, index) => 1000 + index * 3);
    const halves = [itlMicros.slice(0, 2000), itlMicros.slice(2000)];
    const found = itlMs(halves.map((half, index) => request(index, 0, 1, { itlMicros: half })));
    const exact = distributionOf(itlMicros.map((micros) => micros / 1000));
    expect(distributionOf(found)).toEqual(exact);
    expect(distributionOf(itlMs([]))).toBeUndefined();
  });
});

describe("intervals over runs and requests", () => {
  test("the value is the pooled one, between its ends", () => {
    const runs = [
      [1, 2, 3, 9],
      [2, 3, 4],
    ];
    const found = estimate(runs);
    expect(found?.p50.value).toBe(quantile(runs.flat(), 0.5));
    expect(found?.p99.value).toBeCloseTo(quantile(runs.flat(), 0.99), 10);
    expect(found).toMatchObject({ samples: 7, runs: 2 });
    expect(found?.p50.low).toBeLessThanOrEqual(found?.p50.value ?? 0);
    expect(found?.p50.high).toBeGreaterThanOrEqual(found?.p50.value ?? 0);
    expect(estimate([[], []])).toBeUndefined();
  });

  test("runs that differ widen the interval beyond what requests alone would give", () => {
    const random = createRandom(5);
    const run = (shift: number): number[] =>
      Array.from({ length: 400 }, () => 100 + shift + standardNormal(random));
    const same = estimate([run(0), run(0), run(0)]);
    const apart = estimate([run(0), run(10), run(20)]);
    const width = (found: ReturnType<typeof estimate>): number =>
      (found?.mean.high ?? 0) - (found?.mean.low ?? 0);
    expect(width(apart)).toBeGreaterThan(20 * width(same));
  });

  test("nineteen in twenty intervals of a median hold the truth", () => {
    const random = createRandom(77);
    let held = 0;
    const trials = 60;
    for (let trial = 0; trial < trials; trial++) {
      const values = Array.from({ length: 101 }, () => 50 + 5 * standardNormal(random));
      const found = estimate([values], trial)?.p50;
      if (found !== undefined && found.low <= 50 && found.high >= 50) held++;
    }
    expect(held / trials).toBeGreaterThan(0.85);
  });

  test("a ratio of two modes", () => {
    const base = [Array.from({ length: 200 }, (_, index) => 100 + (index % 10))];
    const slower = base.map((run) => run.map((value) => value * 1.2));
    const ratio = compare(slower, base)?.p50;
    expect(ratio?.value).toBeCloseTo(1.2, 10);
    expect(ratio?.low).toBeGreaterThan(1.1);
    expect(ratio?.high).toBeLessThan(1.3);
    expect(compare([], base)).toBeUndefined();
    const none = { low: -Infinity, high: Infinity };
    expect(compare([[], [120]], base)?.p50).toMatchObject(none);
    expect(compare(base, [[0, 0, 5]])).toBeUndefined();
  });
});

const filled = cellRun({
  cell: { mode: "idle", load: "load", run: 1 },
  times: { readySeconds: 10, firstTokenSeconds: 10.2, settledSeconds: 20, endSeconds: 200 },
  requests: [
    request(-1, 10.1, 50, { warmUp: true }),
    request(0, 11, 20),
    request(1, 14.99, 60),
    request(2, 17, 30),
    request(3, 30, 25),
    request(4, 140, 20),
    {
      index: 5,
      warmUp: false,
      dueSeconds: 31,
      sentSeconds: 31,
      itlMicros: [],
      promptTokensWanted: 1,
      outputTokensWanted: 1,
      failure: { kind: "rate_limited", detail: "429" },
    },
  ],
  captures: [capture("FULL:8", 15, 40), capture("FULL:4", 16, 20), capture("FULL:2", 19, 30)],
});

describe("a run", () => {
  test("its windows", () => {
    const counts = Object.fromEntries(
      WINDOWS.map((name) => [
        name,
        inWindow(filled, name, filled.requests.slice(1, 6)).map(({ index }) => index),
      ]),
    );
    expect(counts).toEqual({
      all: [0, 1, 2, 3, 4],
      before: [0, 1],
      during: [2],
      after: [3, 4],
      first120: [0, 1, 2, 3],
      later: [4],
      delayed: [1],
      undelayed: [0, 2, 3, 4],
    });
    expect(ttftMs(request(0, 3, 25))).toBeCloseTo(25, 6);
    expect(tpotMs(request(0, 3, 25))).toBeCloseTo(10, 6);
  });

  test("its figures", () => {
    const figures = runFigures(filled);
    expect(figures).toMatchObject({
      requests: 6,
      completed: 5,
      failures: { rate_limited: 1 },
      spawnToReadySeconds: 10,
      spawnToFirstTokenSeconds: 10.2,
      spawnToSettledSeconds: 20,
      readyToSettledSeconds: 10,
      capturesAfterReady: 3,
      capturesDelaying: 1,
      shareDelayed: 0.2,
    });
    expect(figures.longestCaptureMs).toBeCloseTo(40, 6);
    expect(figures.longestDelayingCaptureMs).toBeCloseTo(40, 6);
    expect(figures.readyToLastCaptureSeconds).toBeCloseTo(9.03, 6);
    expect(figures.longestTokenGap?.seconds).toBeCloseTo(0.06, 6);
    expect(figures.firstMinute).toBeUndefined();
  });

  test("who met a capture after the first token was not delayed, but met it", () => {
    const later = request(6, 18.9, 20, { lastSeconds: 19.2 });
    const figures = runFigures({ ...filled, requests: [...filled.requests, later] });
    expect(figures.shareDelayed).toBeCloseTo(1 / 6, 12);
    expect(figures.shareMet).toBeCloseTo(2 / 6, 12);
  });

  test("an engine that was settled before the HTTP server answered has no wait for it", () => {
    const times = { ...filled.times, settledSeconds: 9 };
    expect(runFigures({ ...filled, times }).readyToSettledSeconds).toBe(0);
    const { settledSeconds: _, ...never } = filled.times;
    expect(runFigures({ ...filled, times: never }).readyToSettledSeconds).toBeUndefined();
  });

  test("waits of the first minute from spawn", () => {
    const held = cellRun({
      start: "spawn",
      times: { readySeconds: 20 },
      requests: [
        request(0, 0, 20_000, { sentSeconds: 20 }),
        request(1, 59, 100),
        request(2, 61, 100),
      ],
    });
    const { firstMinute, latenessMs } = runFigures(held);
    expect(firstMinute).toMatchObject({ requests: 2, unanswered: 0 });
    expect(firstMinute?.waitSeconds).toBeCloseTo(20.1, 6);
    // Held back until ready is no lateness of the generator.
    expect(latenessMs?.max).toBe(0);
  });

  test("the longest gap counts from the send where nothing was under way", () => {
    const late = request(1, 10, 500, { sentSeconds: 10 });
    expect(longestTokenGap([request(0, 0, 20), late])).toEqual({ seconds: 0.5, atSeconds: 10.5 });
    const during = request(2, 0.01, 15, { itlMicros: [900_000], lastSeconds: 0.925 });
    expect(longestTokenGap([request(0, 0, 20), during])?.seconds).toBeCloseTo(0.875, 6);
    expect(longestTokenGap([])).toBeUndefined();
  });

  test("as `vllm bench serve` writes it", () => {
    const result = vllmResult(filled, { ttft: 40, tpot: 20 });
    expect(result).toMatchObject({
      backend: "openai",
      model_id: "m",
      request_rate: 1,
      burstiness: 1,
      completed: 5,
      failed: 1,
      total_input_tokens: 500,
      total_output_tokens: 20,
      max_concurrent_requests: 1,
    });
    expect(result["median_ttft_ms"]).toBeCloseTo(25, 6);
    expect(result["median_tpot_ms"]).toBeCloseTo(10, 6);
    expect(result["mean_itl_ms"]).toBeCloseTo(10, 6);
    expect(result["request_goodput"] as number).toBeLessThan(
      result["request_throughput"] as number,
    );
    expect(result["errors"]).toContain("rate_limited: 429");
    const lists = ["ttfts", "itls", "input_lens", "output_lens", "errors", "start_times"];
    for (const name of lists) expect(result[name]).toHaveLength(6);
    expect(vllmResult(filled, {})["request_goodput"]).toBeNull();
    expect(vllmResult(cellRun(), {})).toMatchObject({ completed: 0, mean_ttft_ms: 0 });
  });

  test("as a timeline: one row for what runs at the same time, captures as slices", () => {
    const { traceEvents: events } = traceEvents(filled);
    const captures = events.filter((event) => event["cat"] === "capture");
    expect(captures.map(({ name, ts }) => [name, ts])).toEqual([
      ["FULL:8", 15e6],
      ["FULL:4", 16e6],
      ["FULL:2", 19e6],
    ]);
    expect(events.filter(({ name }) => name === "rate_limited")).toHaveLength(1);
    for (const event of events) expect(Number.isFinite(event.ts)).toBe(true);
  });

  test("slices of a row follow each other: Perfetto drops one that begins within another", () => {
    const random = createRandom(9);
    const steps = Array.from({ length: 200 }, (_, index) => ({
      // Told up to 40 ms late, of steps that fill the time.
      atSeconds: index / 10 + random() / 25,
      running: 1,
      waiting: 0,
      steps: [0.04, 0.06].map((seconds) => {
        return { tokens: 1, requests: 1, served: "FULL:1", count: 3, seconds: seconds - 1e-7 };
      }),
    }));
    const requests = steps.map((_, i) => request(i, i / 9 + random() / 99, 20 + random()));
    const captures = steps.map(({ atSeconds }) => capture("FULL:8", atSeconds, 90));
    const rows = new Map<string, number>();
    for (const { ph, ts, pid, tid, dur } of traceEvents(cellRun({ steps, requests, captures }))
      .traceEvents) {
      if (ph !== "X") continue;
      const row = `${pid} ${tid}`;
      expect(ts).toBeGreaterThanOrEqual(rows.get(row) ?? 0);
      expect(dur).toBeGreaterThanOrEqual(0);
      rows.set(row, ts + Number(dur));
    }
    expect(rows.size).toBeGreaterThan(2);
  });
});

describe("all runs", () => {
  const base = [1, 2].map((run) =>
    cellRun({
      cell: { mode: "stock", load: "load", run },
      start: "spawn",
      times: { readySeconds: 12 + run },
      requests: Array.from({ length: 50 }, (_, i) =>
        request(i, i, i < 14 ? 14_000 - i * 1000 : 20),
      ),
    }),
  );
  const ours = [1, 2].map((run) =>
    cellRun({
      cell: { mode: "idle", load: "load", run },
      start: "spawn",
      times: { readySeconds: 10 },
      requests: Array.from({ length: 50 }, (_, i) =>
        request(i, i, i < 10 ? 10_000 - i * 1000 : 20),
      ),
      status: run === 2 ? "partial" : "complete",
    }),
  );
  const summary = summarise({
    title: "t",
    baseline: "stock",
    goodput: { ttft: 100 },
    runs: [...base, ...ours],
  });
  const [stock, idle] = summary.cells;

  test("of one request have no interval", () => {
    const runs = ["stock", "idle"].map((mode) =>
      cellRun({ cell: { mode, load: "load", run: 1 }, requests: [request(0, 1, 20)] }),
    );
    const found = summarise({ title: "t", baseline: "stock", goodput: {}, runs });
    expect(conclusions(found)[0]).toMatch(/1\.00 times as long \(one request: no/);
    expect(markdownOf(found)).toContain("| 20.0 (no interval)");
    const [one, another] = [base[0], ours[0]] as [CellRun, CellRun];
    const spawned = summarise({ ...summary, baseline: "stock", runs: [one, another] });
    expect(conclusions(spawned)[0]).toMatch(/less than with stock \(one run: no/);
  });

  test("of which one alone has a figure have no interval", () => {
    const cut = ours.map((run) => (run.cell.run === 2 ? { ...run, times: {}, requests: [] } : run));
    const found = summarise({ ...summary, runs: [...base, ...cut] });
    expect(conclusions(found)[0]).toMatch(/: ready 3\.50 s sooner \(one run: no interval\); a/);
    expect(markdownOf(found)).toMatch(/saved against the baseline, .*[|] 49\.9 \(no interval\)/);
  });

  test("with failures have the rate of the whole run", () => {
    const failure = { kind: "http_error", detail: "500" } as const;
    const failed = [0, 1, 4].map((at) => request(at, at, 0, { lastSeconds: at, failure }));
    const good = [0, 1].map((at) => request(at, at, 0, { lastSeconds: at }));
    const runs = [failed, [...good, ...failed.slice(2)]].map((requests) => cellRun({ requests }));
    const [one] = summarise({ ...summary, runs }).cells;
    expect(one?.throughputPerSecond?.mean).toBe(0.25);
  });

  test("of both kinds say which of them no GPU had a part in", () => {
    const [real, simulated] = ["stock", "idle"].map((mode) =>
      cellRun({ cell: { mode, load: "load", run: 1 } }),
    ) as [CellRun, CellRun];
    const said = (...runs: CellRun[]) => markdownOf(summarise({ ...summary, runs })).split("\n")[2];
    const made = { ...simulated, simulated: "a profile" };
    expect(said(real, made)).toBe(
      "**SIMULATED: no GPU was used for idle; times come from a cost profile (a profile); " +
        "the other modes are measured.**",
    );
    expect(said(made)).toMatch(/^\*\*SIMULATED: no GPU was used; .+ \(a profile\)\.\*\*$/);
    expect(said(real)).not.toContain("SIMULATED");
  });

  test("of two versions on one host name both", () => {
    const { host } = cellRun();
    const runs = ["1", "2"].map((lazygraph) => cellRun({ host: { ...host, lazygraph } }));
    expect(summarise({ ...summary, runs }).hosts).toHaveLength(2);
  });

  test("of two hosts of one name name both, and each host once", () => {
    const { host } = cellRun();
    const on = (...own: Partial<typeof host>[]) =>
      summarise({ ...summary, runs: own.map((more) => cellRun({ host: { ...host, ...more } })) });
    expect(on({}, { memoryBytes: 2 ** 36 }).hosts).toHaveLength(2);
    expect(on({}, { cpuModel: "another" }, {}).hosts).toHaveLength(2);
    expect(on({ gpus: ["A"] }, {}, { gpus: ["B"] }).hosts.map(({ gpus }) => gpus)).toEqual([
      ["A"],
      ["B"],
    ]);
    // Stock tells no GPU, a lane sees its own only, an engine may take two.
    const lanes = on({ visibleDevices: "1" }, { gpus: ["A"] }, { gpus: ["A", "A"] }, {});
    expect(lanes.hosts).toEqual([{ ...host, gpus: ["A", "A"] }]);
  });

  test("are compared with the baseline, in one figure for the first minute", () => {
    expect(stock?.versusBaseline?.firstMinuteSavedSeconds).toBeUndefined();
    const saved = idle?.versusBaseline?.firstMinuteSavedSeconds;
    // 14 + 13 + … + 1 seconds of stock less 10 + 9 + … + 1 of ours, less what 4 wait anyway.
    expect(saved?.value).toBeCloseTo(50 - 4 * 0.02, 6);
    expect(summary.partial).toBe(true);
    expect(idle?.partial).toBe(1);
    expect(idle?.goodputPerSecond?.mean).toBeGreaterThan(stock?.goodputPerSecond?.mean ?? 0);
  });

  test("from spawn have no ratios: every part of such a run waited for its start", () => {
    expect(idle?.versusBaseline?.ttft).toEqual({});
    expect(idle?.versusBaseline?.tpot).toEqual({});
  });

  test("the baseline's own parts stand beside those of others, against the same", () => {
    const long = (mode: string): CellRun =>
      cellRun({
        cell: { mode, load: "load", run: 1 },
        requests: Array.from({ length: 200 }, (_, i) => request(i, i, i < 120 ? 10 : 40)),
      });
    const runs = [long("stock"), long("idle")];
    const [own, other] = summarise({ title: "t", baseline: "stock", goodput: {}, runs }).cells;
    // The load itself made the first two minutes quicker, and who sees both columns sees that.
    expect(own?.versusBaseline?.ttft.first120?.p50.value).toBeCloseTo(0.25, 6);
    expect(other?.versusBaseline?.ttft.first120?.p50.value).toBeCloseTo(0.25, 6);
    expect(own?.versusBaseline?.ttft.later).toBeUndefined();
    expect(other?.versusBaseline?.ttft.later?.p50.value).toBeCloseTo(1, 6);
  });

  test("at a glance: a column for each mode under each load, loads as they were first run", () => {
    const of = (mode: string, load: string, startedAt: string, completed: number): CellRun =>
      cellRun({
        cell: { mode, load, run: 1 },
        startedAt,
        times: { readySeconds: 5 },
        requests: [
          ...Array.from({ length: completed }, (_, i) => request(i, 10 + i, 20)),
          { ...request(99, 90, 20), failure: { kind: "timeout", detail: "60 s" } },
        ],
      });
    const found = summarise({
      title: "t",
      baseline: "stock",
      goodput: {},
      runs: [
        of("idle", "a", "2026-01-02T00:00:00.000Z", 3),
        of("stock", "b", "2026-01-01T00:00:00.000Z", 2),
        of("idle", "b", "2026-01-03T00:00:00.000Z", 2),
      ],
    });
    const loads = glanceOf(found);
    expect(loads.map(({ load, tables }) => [load, tables.map(({ modes }) => modes)])).toEqual([
      ["b", [["stock", "idle"]]],
      ["a", [["idle"]]],
    ]);
    const row = (title: string): (readonly string[] | undefined)[] =>
      loads.map(({ tables }) => tables[0]?.rows.find((own) => own.title === title)?.cells);
    expect(row("requests")).toEqual([
      ["2, failed 1 (timeout 1)", "2, failed 1 (timeout 1)"],
      ["3, failed 1 (timeout 1)"],
    ]);
    expect(row("TTFT p50, ms")).toEqual([["20.0", "20.0"], ["20.0"]]);
    expect(row("TTFT p50 over stock's steady")).toEqual([["–", "1.00"], undefined]);
    expect(row("ready to settled, s")).toEqual([undefined, undefined]);
    // Start-up comes first.
    expect(loads[0]?.tables[0]?.rows[0]).toEqual({
      title: "spawn to ready, s",
      cells: ["5.00", "5.00"],
    });
    // Nobody captured anything.
    expect(row("graphs")).toEqual([undefined, undefined]);
    expect(markdownOf(found)).toContain("## At a glance\n\n| b | stock | idle |");
    expect(cautions(found)).toEqual([
      expect.stringMatching(
        /^FAILED: .+ idle, a: 1 \(timeout 1\) of 4\. First timeout: 60 s\. stock, b: .+ of 3\. .+ idle, b: .+ of 3\. First timeout: 60 s\.$/,
      ),
    ]);
    expect(conclusions(found)).toEqual([
      "Under b: idle against stock: ready 0 s sooner (one run: no interval); median time to first token " +
        "not certainly different (95%: 1.00 to 1.00); median time per output token not certainly " +
        "different (95%: 1.00 to 1.00).",
      "Under a: idle gave the first token after 20.0 ms at the median, 99% within 20.0 ms, over 3 " +
        "requests in one run.",
    ]);
  });

  test("of stock and of an endpoint have no windows that nobody can know", () => {
    const requests = [request(0, 130, 20), request(1, 131, 20)];
    const told = (run: CellRun): string[] =>
      Object.keys(
        summarise({ title: "t", baseline: "stock", goodput: {}, runs: [run] }).cells[0]?.windows ??
          {},
      );
    expect(told(cellRun({ requests }))).toEqual(["all", "later"]);
    expect(told(cellRun({ requests, mode: { url: "http://h" }, times: {} }))).toEqual(["all"]);
    const ours = cellRun({ requests, mode: { simulated: {}, mode: "eager" } });
    expect(told(ours)).toEqual(["all", "after", "later", "undelayed"]);
  });

  test.for([
    [1, undefined],
    [3, "TOO BUSY: the host was too busy: figures of these runs are not the engine's."],
  ] as const)("of a generator %d ms late at p99: %s", ([lateMs, loud]) => {
    const requests = Array.from({ length: 200 }, (_, i) =>
      request(i, i / 10, 20, { sentSeconds: i / 10 + (i % 50 === 0 ? lateMs / 1000 : 0) }),
    );
    const late = (more: Partial<CellRun>) =>
      summarise({ title: "t", baseline: "stock", goodput: {}, runs: [cellRun(more)] });
    const told = late({ requests });
    expect(cautions(told)).toEqual(
      loud === undefined
        ? []
        : [expect.stringMatching(/^TOO BUSY: .+ stock, load, run 1: 3\.00 ms\.$/)],
    );
    expect(markdownOf(told).includes("**TOO BUSY")).toBe(loud !== undefined);
    // No ratio of a run whose figures are the generator's.
    const other = cellRun({ requests, cell: { mode: "idle", load: "load", run: 1 } });
    const both = [cellRun({ requests: requests.map(onTime) }), other];
    const compared = summarise({ title: "t", baseline: "stock", goodput: {}, runs: both }).cells;
    const ratio = compared[1]?.versusBaseline?.ttft.all?.p50.value;
    expect(ratio).toBe(loud === undefined ? 1 : undefined);
    // What waited for an engine from its spawn on was not held up by the host.
    const held = requests.filter(({ index }) => index > 0 && index % 50 !== 0);
    const waiting = { ...request(0, 0, 900), sentSeconds: 0.5 };
    expect(cautions(late({ start: "spawn", requests: [waiting, ...held] }))).toEqual([]);
  });

  test("of a generator that was never late over more requests than a call takes arguments", () => {
    const requests = Array.from({ length: 150_000 }, () => request(1, 0.1, 20));
    const runs = [cellRun({ start: "spawn", requests })];
    const told = summarise({ title: "t", baseline: "stock", goodput: {}, runs });
    expect(cautions(told)).toEqual([]);
  }, 240_000);

  test("make rows without holes, and leave out figures that nobody has", () => {
    const groups = rowGroups(summary.cells);
    const titles = groups.flatMap(({ rows }) => rows.map(({ title }) => title));
    expect(titles).toContain("saved against the baseline, request-seconds");
    expect(titles).not.toContain("graphs captured");
    for (const { rows } of groups) for (const { cells } of rows) expect(cells).toHaveLength(2);
    const runs = groups[1]?.rows.find(({ title }) => title === "runs");
    expect(runs?.cells).toEqual(["2", "2 (1 partial)"]);
  });

  test.for([
    [0, "0"],
    [0.01234, "0.0123"],
    [1.5, "1.50"],
    [99.96, "100"],
    [123.4, "123"],
    [12345.6, "12,346"],
    [-2.5, "-2.50"],
  ] as const)("%d is told as %s", ([value, text]) => {
    expect(numberText(value)).toBe(text);
  });
});

function onTime(own: ReturnType<typeof request>): ReturnType<typeof request> {
  return { ...own, sentSeconds: own.dueSeconds };
}

describe("many modes and runs", () => {
  const of = (mode: string, run: number, readySeconds: number, ttft: number): CellRun =>
    cellRun({
      cell: { mode, load: "load", run },
      times: { readySeconds },
      requests: Array.from({ length: 40 }, (_, i) => request(i, readySeconds + 1 + i, ttft)),
    });
  const modes = ["stock", "eager", "idle", "lazy", "ten", "none", "a", "b"];
  const all = modes.flatMap((mode, index) =>
    [1, 2, 3].map((run) => of(mode, run, 50 - index + run / 10, 20 + index * 2)),
  );
  const found = summarise({ title: "t", baseline: "stock", goodput: {}, runs: all });

  test("six columns stand beside each other, the baseline in each table", () => {
    const [load] = glanceOf(found);
    expect(load?.tables.map((table) => table.modes)).toEqual([
      ["stock", "eager", "idle", "lazy", "ten", "none"],
      ["stock", "a", "b"],
    ]);
  });

  test("a sentence for each mode says what is certain", () => {
    const said = conclusions(found);
    expect(said).toHaveLength(modes.length - 1);
    expect(said[0]).toMatch(
      /^eager against stock: ready 1\.00 s sooner \(95%: [\d.]+ to [\d.]+ s\); median time to first token 1\.10 times as long/,
    );
  });

  test("runs stand side by side; of single ones there is no such table", () => {
    const table = runTable(found.cells);
    expect(table?.rows).toHaveLength(all.length);
    expect(table?.head.slice(0, 2)).toEqual(["run", "spawn to ready, s"]);
    expect(table?.rows[1]?.slice(0, 3)).toEqual(["stock 2", "50.2", "20.0"]);
    const single = summarise({ title: "t", baseline: "stock", goodput: {}, runs: all.slice(0, 1) });
    expect(runTable(single.cells)).toBeUndefined();
  });
});
