/** Claims about TTFT around captures: each holds on runs made for it, and each can fail. */

import { describe, expect, test } from "vitest";
import { captureHolds } from "../../bench/lib/capture-holds.ts";
import { fillCost, stretches } from "../../bench/lib/fill-cost.ts";
import { matched } from "../../bench/lib/matched.ts";
import { firstMinute, tradeOff } from "../../bench/lib/ttft-tables.ts";
import { type Verdict, verdicts } from "../../bench/lib/ttft-verdicts.ts";
import { createRandom } from "../../src/base/random.ts";
import { longestTokenGap } from "../../src/bench/gap.ts";
import type { CaptureRecord, CellRun, RequestRecord } from "../../src/bench/samples.ts";
import type { EngineSnapshot } from "../../src/engine/snapshot.ts";
import { capture, cellRun, request } from "./helpers/run.ts";

const PLANNED = 20;
const READY = 10;
const REQUESTS = 460;
const GAP_SECONDS = 0.35;
const STEP_SECONDS = 0.08;

/** TTFT of a request with everything captured: by its number, the same in every mode. */
function baseMs(index: number): number {
  return 20 + 60 * ((index * 0.618034) % 1);
}

interface Making {
  readonly mode: string;
  readonly load?: string;
  readonly run: number;
  readonly ttftMs?: (index: number, dueSeconds: number) => number;
  readonly captures?: readonly CaptureRecord[];
  readonly requests?: number;
  readonly more?: Partial<CellRun>;
  readonly request?: (index: number) => Partial<RequestRecord>;
}

function run(making: Making): CellRun {
  const { mode, load = "conversation", run: number, requests = REQUESTS } = making;
  const ttftMs = making.ttftMs ?? ((index) => baseMs(index));
  return cellRun({
    cell: { mode, load, run: number },
    mode: mode === "stock" ? { command: ["x {port}"] } : { command: ["x {port}"], mode: "idle" },
    times: { readySeconds: READY, scheduleSeconds: READY },
    load: { arrivals: "trace", trace: "t.csv" },
    requestsScheduled: requests,
    requests: Array.from({ length: requests }, (_, index) => {
      const due = READY + index * GAP_SECONDS;
      return request(index, due, ttftMs(index, due) + number / 100, making.request?.(index));
    }),
    captures: making.captures ?? [],
    steps: [
      {
        ...{ atSeconds: 20, running: 1, waiting: 0 },
        steps: [
          { tokens: 9, requests: 1, served: "", count: 3, seconds: 2 * STEP_SECONDS, timed: 2 },
        ],
      },
    ],
    ...(mode === "stock"
      ? {}
      : { engine: { graphsPlanned: PLANNED, graphs: [] } as unknown as EngineSnapshot }),
    ...making.more,
  });
}

/** One every two seconds from ready on: the fill is over after 36 s. */
function fill(count = PLANNED - 2, everySeconds = 2): CaptureRecord[] {
  return Array.from({ length: count }, (_, index) => ({
    ...capture(`FULL:${index}`, READY + 1 + index * everySeconds, 30),
    graphsCaptured: index + 3,
  }));
}

const RUNS = [1, 2, 3];

function judged(
  idle: Partial<Making> = {},
  stock: Partial<Making> = {},
  spawn: readonly CellRun[] = [],
): Verdict[] {
  const runs = RUNS.flatMap((number) => [
    run({ mode: "stock", run: number, ...stock }),
    run({ mode: "idle", run: number, captures: fill(), ...idle }),
  ]);
  return verdicts({
    ...{ runs: [...runs, ...spawn], mode: "idle", baseline: "stock" },
    ...{ loads: ["conversation"], spawnLoad: "from-spawn" },
  });
}

function fromSpawn(mode: string, readySeconds: number): CellRun[] {
  return RUNS.map((number) => {
    const requests = Array.from({ length: 100 }, (_, index) => {
      const due = index * 0.5;
      return request(index, due, (Math.max(due, readySeconds) - due) * 1000 + 20);
    });
    const more = { start: "spawn", requests, times: { readySeconds } } as const;
    return run({ mode, load: "from-spawn", run: number, more });
  });
}

const SPAWNS = [...fromSpawn("stock", 11), ...fromSpawn("idle", 8)];

function verdictOf(found: readonly Verdict[], words: string): Verdict {
  const one = found.find(({ claim }) => claim.includes(words));
  if (one === undefined) throw new Error(`no claim with ${words}`);
  return one;
}

/** Words of each claim, in order. */
const CLAIMS = [
  "share of the plan",
  "requests of the first two minutes",
  "first two minutes, same requests",
  "steady requests",
  "p99 TTFT",
  "longest gap",
  "later than two minutes",
  "after the last capture",
  "from spawn",
];

function failing(found: readonly Verdict[]): string[] {
  return CLAIMS.filter((words) => verdictOf(found, words).verdict === "fails");
}

const slower =
  (factor: number, applies: (index: number, due: number) => boolean) =>
  (index: number, due: number): number =>
    baseMs(index) * (applies(index, due) ? factor : 1);
const early = (_: number, due: number): boolean => due < READY + 120;

describe("the claims", () => {
  test("an idle mode that costs nothing holds them all", () => {
    const found = judged({}, {}, SPAWNS);
    expect(found.map(({ claim }) => CLAIMS.findIndex((words) => claim.includes(words)))).toEqual(
      CLAIMS.map((_, index) => index),
    );
    expect(failing(found)).toEqual([]);
    expect(verdictOf(found, "share of the plan")).toMatchObject({ verdict: "holds" });
    expect(verdictOf(found, "requests of").estimate?.value).toBe(3 * 343);
    expect(verdictOf(found, "same requests").verdict).toBe("holds");
    expect(verdictOf(found, "from spawn").estimate?.value).toBeGreaterThan(0.3);
  });

  // Each with what it must make fail, and nothing else.
  const late = (_: number, due: number): boolean => due >= READY + 120;
  test.for<[what: string, found: () => Verdict[], fails: string[]]>([
    [
      "too little captured",
      () => judged({ captures: fill(10, 10) }, {}, SPAWNS),
      ["share of the plan"],
    ],
    [
      "too few requests",
      () => judged({ requests: 320 }, {}, SPAWNS),
      ["requests of the first two minutes"],
    ],
    [
      "a median 8% up in the first two minutes",
      () => judged({ ttftMs: slower(1.08, early) }, {}, SPAWNS),
      ["first two minutes, same requests", "steady requests", "after the last capture"],
    ],
    [
      "a baseline that was slower only in the beginning",
      () => judged({ ttftMs: slower(1.2, early) }, { ttftMs: slower(1.2, early) }, SPAWNS),
      ["steady requests"],
    ],
    [
      "one request in fifty a quarter of a second late",
      () => judged({ ttftMs: (i) => baseMs(i) + (i % 50 === 7 ? 250 : 0) }, {}, SPAWNS),
      ["p99 TTFT", "longest gap"],
    ],
    [
      "a median 4% up later",
      () => judged({ ttftMs: slower(1.04, late) }, {}, SPAWNS),
      ["later than two minutes"],
    ],
    [
      "a median 4% up from the last capture on",
      () => judged({ ttftMs: slower(1.04, (_, due) => due > READY + 36) }, {}, SPAWNS),
      ["later than two minutes", "after the last capture"],
    ],
    [
      "a later start than the baseline's",
      () => judged({}, {}, [...fromSpawn("stock", 8), ...fromSpawn("idle", 9)]),
      ["from spawn"],
    ],
  ])("%s fails what it must", ([, found, fails]) => {
    expect(failing(found())).toEqual(fails);
  });

  test("a gap that no capture and no step explains", () => {
    const stalled = judged(
      {
        request: (index) => (index === 50 ? { itlMicros: [10_000, 180_000], lastSeconds: 99 } : {}),
      },
      {},
      SPAWNS,
    );
    expect(verdictOf(stalled, "longest gap").note).toContain("capture 30.0 ms, step 80.0 ms");
    expect(failing(stalled)).toEqual(["longest gap"]);
  });

  test("nothing measured is no claim", () => {
    const found = verdicts({
      ...{ runs: [], mode: "idle", baseline: "stock" },
      ...{ loads: ["conversation"], spawnLoad: "from-spawn" },
    });
    expect(new Set(found.map(({ verdict }) => verdict))).toEqual(new Set(["no data"]));
  });

  test("an interval past the limit is unsure, and wants more runs", () => {
    const random = createRandom(4);
    const noisy = (index: number): number => baseMs(index) * (0.5 + random());
    const found = judged({ ttftMs: noisy }, { ttftMs: noisy }, SPAWNS);
    expect(verdictOf(found, "later than two minutes").verdict).not.toBe("holds");
  });

  test("a load that ends with the two minutes has no later part", () => {
    const load = { arrivals: "poisson", requestRate: 3, seconds: 120 } as const;
    const found = judged({ more: { load } }, {}, SPAWNS);
    expect(found.some(({ claim }) => claim.includes("later than"))).toBe(false);
  });
});

describe("matched requests", () => {
  const values = (shift: number, count = 300): Map<number, number> =>
    new Map(Array.from({ length: count }, (_, index) => [index, baseMs(index) * 10 + shift]));

  test("what both have in common is not in the interval", () => {
    const found = matched([values(8), values(8)], [values(0), values(0)]);
    expect(found?.p99Difference).toEqual({ value: 8, low: 8, high: 8 });
    // Prompts alone spread these values by a factor of four.
    const { low = 0, high = 9 } = found?.medianRatio ?? {};
    expect(high - low).toBeLessThan(0.02);
  });

  test("only requests that both have count; none in common is no figure", () => {
    expect(matched([values(0, 120)], [values(0, 300)])?.requests).toBe(120);
    expect(matched([values(0)], [])).toBeUndefined();
    expect(matched([new Map([[1, 1]])], [new Map([[2, 1]])])).toBeUndefined();
  });

  test("runs that differ are in the interval", () => {
    const found = matched([values(0), values(100)], [values(0), values(0)])?.medianRatio;
    expect((found?.high ?? 0) - (found?.low ?? 0)).toBeGreaterThan(0.1);
  });
});

test("a gap counts where it ends", () => {
  const requests = [
    request(0, 0, 10, { itlMicros: [500_000, 10_000, 200_000] }),
    request(1, 5, 10),
  ];
  expect(longestTokenGap(requests)?.seconds).toBeCloseTo(0.5, 9);
  expect(longestTokenGap(requests, { from: 0.515 })?.seconds).toBeCloseTo(0.2, 9);
  expect(longestTokenGap(requests, { from: 0.8, to: 4 })).toBeUndefined();
});

describe("the stall budget's trade-off", () => {
  const point = (mode: string, fillShare: number, captures: readonly CaptureRecord[]): CellRun[] =>
    RUNS.map((number) => {
      const spec = { command: ["x {port}"], mode: "idle", controller: { fillShare } } as const;
      return run({ mode, load: "busy", run: number, captures, more: { mode: spec } });
    });

  test("in order of the budget; who didn't settle in time has no seconds", () => {
    const runs = [...point("all", 1, fill()), ...point("none", 0, fill(3, 100))];
    const [none, all] = tradeOff([...runs, run({ mode: "stock", load: "busy", run: 1 })], "busy");
    expect(none).toMatchObject({ mode: "none", fillShare: 0, settledRuns: 0 });
    expect(none?.secondsToSettled).toBeUndefined();
    expect(none?.capturedShare?.mean).toBeCloseTo(4 / PLANNED, 9);
    expect(all).toMatchObject({ mode: "all", fillShare: 1, settledRuns: 3 });
    expect(all?.secondsToSettled?.mean).toBeCloseTo(35.03, 9);
    const [low, high] = [none?.shareDelayed, all?.shareDelayed];
    expect(high?.value).toBeGreaterThan(low?.value ?? 1);
    // Requests of one run differ, so that a single run has an interval, too.
    const [alone] = tradeOff(runs.slice(0, 1), "busy");
    expect(alone?.shareDelayed?.low).toBeLessThan(alone?.shareDelayed?.value ?? 0);
    expect(alone?.shareDelayed?.high).toBeGreaterThan(alone?.shareDelayed?.value ?? 1);
    expect(tradeOff(runs, "calm")).toEqual([]);
  });

  test("steps without a graph are those that a planned graph could have served", () => {
    const step = (tokens: number, served: string, count: number) =>
      ({ tokens, requests: 1, served, count, seconds: 0.01, timed: 1 }) as const;
    const steps = [step(8, "FULL:8", 6), step(8, "", 3), step(9, "", 1)];
    const more = point("some", 0.1, fill()).map((one) => ({
      ...one,
      engine: {
        ...one.engine,
        graphs: [{ id: "FULL:8", kind: "FULL", tokens: 8, status: "captured" }],
      } as unknown as NonNullable<CellRun["engine"]>,
      steps: [{ atSeconds: 1, running: 1, waiting: 0, steps }],
    }));
    expect(tradeOff(more, "busy")[0]?.ungraphedShare?.mean).toBeCloseTo(0.3, 12);
    const untold = point("some", 0.1, fill()).map((one) => ({ ...one, steps: [] }));
    expect(tradeOff(untold, "busy")[0]?.ungraphedShare).toBeUndefined();
  });
});

test("all modes on the requests of the shortest load", () => {
  const short = (mode: string, factor: number): CellRun =>
    run({
      ...{ mode, load: "first-minute", run: 1, requests: 100 },
      ttftMs: (index) => baseMs(index) * factor,
    });
  const slowLater = slower(9, (index) => index >= 100);
  const stock = run({ mode: "stock", run: 1, ttftMs: slowLater });
  const rows = firstMinute([short("lazy", 1.5), stock], ["conversation", "first-minute"], "stock");
  expect(rows.map(({ mode, requests }) => [mode, requests])).toEqual([
    ["stock", 100],
    ["lazy", 100],
  ]);
  expect(rows[0]?.ttftRatio).toBeUndefined();
  expect(rows[1]?.ttftRatio?.value).toBeCloseTo(1.5, 2);
});

describe("what the fill costs who comes during it", () => {
  // The fill is over 36 s after ready, and every fifth capture holds a request up for 25 ms.
  const held = (index: number, due: number): number =>
    baseMs(index) + (due < READY + 35 && index % 5 === 0 ? 25 : 0);
  const runs = RUNS.flatMap((number) => [
    run({ mode: "stock", run: number }),
    run({ mode: "idle", run: number, captures: fill(), ttftMs: held }),
  ]);

  test("the same requests, less what they took without captures", () => {
    const cost = fillCost(runs, "conversation", "idle", "stock");
    const last = READY + 1 + 2 * (PLANNED - 3) + 0.03;
    const due = Array.from({ length: REQUESTS }, (_, index) => READY + index * GAP_SECONDS);
    const during = due.filter((at) => at >= READY + 1 && at <= last).length;
    expect(cost).toMatchObject({ runs: 3, requests: 3 * during });
    expect(cost?.longestExtraMs).toBeGreaterThan(24.9);
    expect(cost?.extraMs?.value).toBeGreaterThan(4);
    expect(cost?.extraMs?.value).toBeLessThan(6);
    expect(cost?.delayed).toBeGreaterThan(0);
    expect(cost?.delayed).toBeLessThan(cost?.requests ?? 0);
    expect(fillCost(runs, "calm", "idle", "stock")).toBeUndefined();
    // Each waits 25 ms more, and no capture holds for more than 30 ms: none waits for two.
    expect(cost?.overCaptureMs).toHaveLength(cost?.delayed ?? 0);
    expect(Math.max(...(cost?.overCaptureMs ?? [0]))).toBeLessThan(0);
  });

  test("nothing where both took the same, and no figure without a baseline", () => {
    const same = RUNS.flatMap((number) => [
      run({ mode: "stock", run: number }),
      run({ mode: "idle", run: number, captures: fill() }),
    ]);
    const cost = fillCost(same, "conversation", "idle", "stock");
    expect(cost?.extraMs?.value).toBeCloseTo(0, 2);
    const alone = fillCost(runs.slice(1, 2), "conversation", "idle", "stock");
    expect(alone?.requests).toBeGreaterThan(0);
    expect(alone?.extraMs).toBeUndefined();
  });

  test("stretch by stretch: what is over early is not spread over the whole", () => {
    const early = (index: number, due: number): number =>
      baseMs(index) * (due < READY + 15 ? 2 : 1);
    const all = RUNS.flatMap((number) => [
      run({ mode: "stock", run: number }),
      run({ mode: "lazy", load: "first-minute", run: number, requests: 171, ttftMs: early }),
    ]);
    const found = stretches(all, ["conversation", "first-minute"], "stock", [0, 15, 30, 60]);
    expect(found.map(({ mode, from, to }) => [mode, from, to])).toEqual([
      ["lazy", 0, 15],
      ["lazy", 15, 30],
      ["lazy", 30, 60],
    ]);
    const ratios = found.map(({ ratio }) => ratio?.value ?? Number.NaN);
    expect(ratios[0]).toBeCloseTo(2, 2);
    expect(ratios[1]).toBeCloseTo(1, 2);
    expect(ratios[2]).toBeCloseTo(1, 2);
  });
});

test("one start of each mode is no verdict on starts", () => {
  const pair = [fromSpawn("stock", 11)[0], fromSpawn("idle", 8)[0]].filter(
    (one) => one !== undefined,
  );
  expect(verdictOf(judged({}, {}, pair), "first minute from spawn").verdict).toBe("unsure");
  expect(verdictOf(judged({}, {}, SPAWNS), "first minute from spawn").verdict).toBe("holds");
});

test("runs that started together are told pair by pair, each once", () => {
  const began = (runs: readonly CellRun[], ...seconds: readonly number[]): CellRun[] =>
    runs.map((one, index) => {
      const startedAt = new Date(Date.UTC(2026, 0, 1) + (seconds[index] ?? 0) * 1000).toISOString();
      return { ...one, startedAt };
    });
  const stock = fromSpawn("stock", 11);
  const idle = fromSpawn("idle", 8);
  const note = (...pairs: readonly CellRun[]): string =>
    verdictOf(judged({}, {}, pairs), "first minute from spawn").note;
  // Waits of 0.5 s steps: (11 + 10.5 + … + 0.5 − (8 + 7.5 + … + 0.5)) / 100 requests.
  expect(note(...began(stock, 0, 300, 600), ...began(idle, 1, 299, 900))).toMatch(
    /; of runs started together: 0\.59, 0\.59 s$/,
  );
  expect(note(...began(stock, 0, 1, 2), ...began(idle, 600, 700, 800))).not.toContain("together");
});

test("how long captures held engines up, and what of that was not the capture", () => {
  const at = (startSeconds: number, holdMs: number, ms: number): CaptureRecord => ({
    ...capture("FULL:1", startSeconds, ms),
    endSeconds: startSeconds + holdMs / 1000,
  });
  const captures = [at(1, 30, 28), at(2, 42, 40), at(3, 171, 44)];
  const found = captureHolds([
    run({ mode: "stock", run: 1 }),
    run({ mode: "idle", run: 1, captures }),
  ]);
  expect(found).toMatchObject({ captures: 3, besidesOver10: 1 });
  expect(found?.holdMs.p50).toBeCloseTo(42, 6);
  expect(found?.holdMs.max).toBeCloseTo(171, 6);
  expect(found?.besidesMs.p50).toBeCloseTo(2, 6);
  expect(found?.besidesMs.max).toBeCloseTo(127, 6);
  expect(captureHolds([run({ mode: "stock", run: 1 })])).toBeUndefined();
});

test("the longest gap says whether a capture is in it", () => {
  const note = (captures: readonly CaptureRecord[]): string =>
    verdictOf(judged({ captures }), "longest gap").note;
  // Each request has its one token after up to 80 ms: captures there, or before anybody came.
  const everywhere = Array.from({ length: 1300 }, (_, index) => ({
    ...capture("FULL:1", READY + index * 0.1, 90),
    graphsCaptured: PLANNED,
  }));
  expect(note(everywhere)).not.toContain("no capture in it");
  expect(note([capture("FULL:1", READY - 5, 30)])).toMatch(/^gap [\d.]+ ms with no capture in it,/);
});
