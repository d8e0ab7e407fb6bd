import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { createRandom, type Random, standardNormal } from "../../src/base/random.ts";
import { Cells, type Observation } from "../../src/calibrate/cells.ts";
import { type ProfileInput, profileDocument, Unmeasured } from "../../src/calibrate/document.ts";
import { estimateSteps, promptPairs } from "../../src/calibrate/estimate.ts";
import { frontEndSeconds } from "../../src/calibrate/front-end.ts";
import {
  cellFigures,
  planeSlopes,
  planeThroughOrigin,
  slopeWithin,
} from "../../src/calibrate/robust-fit.ts";
import { defaultSizes, wavesOf } from "../../src/calibrate/waves.ts";
import { loadProfile, parseProfile } from "../../src/profile/load.ts";
import type { Profile } from "../../src/profile/profile.ts";
import { createCostModel } from "../../src/sim/model/cost.ts";
import { createSetup } from "../../src/sim/virtual/setups.ts";
import { simulate } from "../../src/sim/virtual/virtual.ts";

describe("robust statistics", () => {
  test("a cell's middle, by weight", () => {
    const values = [1, 2, 3, 100].map((value) => ({ value, weight: value === 3 ? 10 : 1 }));
    expect(cellFigures(values)).toEqual({ median: 3, q1: 3, q3: 3, samples: 13 });
    expect(cellFigures([])).toBeUndefined();
    expect(cellFigures([{ value: 1, weight: 0 }])).toBeUndefined();
  });

  test("a slope within groups, whatever lies between them and however wild a tenth is", () => {
    const points = Array.from({ length: 100 }, (_, index) => ({
      group: index % 2 === 0 ? "a" : "b",
      x: index,
      y: 3 * index + (index % 2 === 0 ? 0 : 1000) + (index % 10 === 7 ? 5000 : 0),
      weight: 1,
    }));
    expect(slopeWithin(points)).toBeCloseTo(3, 0);
    expect(slopeWithin(points.map((p) => ({ ...p, x: 1 })))).toBeUndefined();
    expect(slopeWithin(points.map((p) => ({ ...p, y: -p.y })))).toBe(0);
  });

  test("a plane through the origin", () => {
    const points = Array.from({ length: 40 }, (_, index) => {
      const x = [index + 1, (index + 1) ** 2 * 1000] as const;
      return { x, y: 2 * x[0] + 0.003 * x[1] + (index % 10 === 3 ? 10_000 : 0), weight: 1 };
    });
    const [a, b] = planeThroughOrigin(points) ?? [];
    expect(a).toBeCloseTo(2, 1);
    expect(b).toBeCloseTo(0.003, 4);
    expect(planeThroughOrigin([{ x: [2, 0], y: 4, weight: 1 }])).toEqual([2, 0]);
  });

  test("the slopes of a plane, whatever its constant and however a tenth is off", () => {
    const points = Array.from({ length: 40 }, (_, index) => {
      const x = [index + 1, (index + 1) ** 2 * 1000] as const;
      const wild = index % 10 === 3 ? 4 : 1;
      return { x, y: wild * (2 * x[0] + 0.003 * x[1] + 50), weight: 1 };
    });
    const [a, b] = planeSlopes(points) ?? [];
    expect(a).toBeCloseTo(2, 1);
    expect(b).toBeCloseTo(0.003, 4);
    // Points that differ in nothing have no slope.
    expect(planeSlopes(points.slice(0, 1))).toBeUndefined();
  });
});

// ------------------------------------------------------------------ synthetic steps of a profile

const profile = loadProfile();
const costs = createCostModel(profile);
const graphs = profile.captures.costs.map(({ graph }) => graph);
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

interface Noise {
  readonly random: Random;
  /** Relative standard deviation of a report. */
  readonly deviation: number;
  /** Share of reports that took five times as long. */
  readonly wild: number;
}

function decode(requests: number, context: number, served: Graph | undefined): Observation {
  const work = { tokens: requests, requests, contextTokens: requests * context, promptPairs: 0 };
  return {
    served: served?.id ?? "",
    tokens: requests,
    requests,
    uniform: 1,
    contextTokens: context,
    seconds: costs.stepSeconds(served, work),
    weight: 10,
  };
}

function prompt(tokens: number, computed: number, served: Graph | undefined): Observation {
  const seen = {
    served: served?.id ?? "",
    tokens,
    requests: 1,
    uniform: 0,
    contextTokens: computed + tokens,
    seconds: 0,
    weight: 1,
  };
  const work = { tokens, requests: 1, contextTokens: 0, promptPairs: promptPairs(seen) };
  return { ...seen, seconds: costs.stepSeconds(served, work) };
}

/** The reports that a calibration's waves bring about, at these sizes. */
function observations(sizes: readonly number[], noise?: Noise): Observation[] {
  const graph = (kind: string, tokens: number): Graph | undefined =>
    graphs.find((candidate) => candidate.kind === kind && candidate.tokens === tokens);
  const all: Observation[] = [];
  for (const size of sizes) {
    for (let report = 0; report < 30; report++) {
      const context = (report % 2 === 0 ? 40 : 2060) + report;
      all.push(decode(size, context, undefined));
      all.push(decode(size, context, graph("FULL", 512)));
      all.push(decode(size, context, graph("FULL", size)));
      if (size === 1) continue;
      all.push(prompt(size, 0, undefined), prompt(size, 0, graph("PIECEWISE", size)));
    }
  }
  for (const [tokens, computed] of [
    [1024, 0],
    [2048, 0],
    [4096, 0],
    [8192, 0],
    [8192, 8192],
  ] as const) {
    for (let report = 0; report < 6; report++) all.push(prompt(tokens, computed, undefined));
  }
  if (noise === undefined) return all;
  return all.map((seen) => {
    const wild = noise.random() < noise.wild ? 5 : 1;
    const factor = wild * (1 + noise.deviation * standardNormal(noise.random));
    return { ...seen, seconds: seen.seconds * Math.max(0.1, factor) };
  });
}

/** The largest relative error of all cells against the profile the steps were made from. */
function worstCell(estimates: ReturnType<typeof estimateSteps>): number {
  let worst = 0;
  const nothing = { requests: 0, contextTokens: 0, promptPairs: 0 };
  for (const { cell, tokens, median } of [
    ...estimates.full,
    ...estimates.piecewise,
    ...estimates.ungraphed,
  ]) {
    const served = graphs.find(({ id }) => id === cell);
    const truth = costs.stepSeconds(served, { tokens, ...nothing });
    worst = Math.max(worst, Math.abs(median / truth - 1));
  }
  return worst;
}

describe("the estimator", () => {
  test("gives back a profile from its own steps", () => {
    const estimates = estimateSteps(observations(SIZES), graphs, 1);
    expect(estimates.full.map(({ tokens }) => tokens)).toEqual(SIZES);
    expect(estimates.piecewise.map(({ tokens }) => tokens)).toEqual(SIZES.slice(1));
    expect(estimates.ungraphed.map(({ tokens }) => tokens)).toEqual(SIZES);
    expect(worstCell(estimates)).toBeLessThan(0.002);
    const { steps } = profile;
    expect(estimates.secondsPerContextToken).toBeCloseTo(steps.secondsPerContextToken, 10);
    expect(estimates.secondsPerRequest).toBeCloseTo(steps.secondsPerRequest, 8);
    expect((estimates.secondsPerTokenBeyond ?? 0) / steps.secondsPerTokenBeyond).toBeCloseTo(1, 2);
    expect((estimates.secondsPerPromptPair ?? 0) / steps.secondsPerPromptPair).toBeCloseTo(1, 2);
  });

  test.for([1, 2, 3])("and from noisy ones, a twentieth of them wild, seed %i", (seed) => {
    const noise = { random: createRandom(seed), deviation: 0.03, wild: 0.05 };
    const estimates = estimateSteps(observations(SIZES, noise), graphs, 1);
    expect(worstCell(estimates)).toBeLessThan(0.05);
    const { steps } = profile;
    for (const name of [
      "secondsPerContextToken",
      "secondsPerRequest",
      "secondsPerTokenBeyond",
    ] as const) {
      expect(Math.abs((estimates[name] ?? 0) / steps[name] - 1)).toBeLessThan(0.25);
    }
  });

  // What an H200's 8B takes for prompts that meet an idle engine, in ms; the last is the second half
  // of 16,384 tokens. Most waves begin with a prompt of 2,048.
  const LONG = [
    [1024, 0, 28.2, 6],
    [2048, 0, 52.3, 33],
    [4096, 0, 104.6, 6],
    [8192, 0, 223.0, 12],
    [8192, 8192, 276.2, 6],
  ] as const;
  const long = (contextOf: (tokens: number, computed: number) => number): Observation[] =>
    LONG.flatMap(([tokens, computed, ms, count]) =>
      Array.from({ length: count }, () => ({
        ...prompt(tokens, computed, undefined),
        contextTokens: contextOf(tokens, computed),
        seconds: ms / 1000,
      })),
    );

  test("finds what attention takes of long prompts, and leaves out what an idle engine adds", () => {
    const steps = long((tokens, computed) => tokens + computed);
    const { secondsPerTokenBeyond, secondsPerPromptPair } = estimateSteps(steps, graphs, 1);
    expect(secondsPerPromptPair).toBeGreaterThan(7e-10);
    expect(secondsPerPromptPair).toBeLessThan(1.1e-9);
    expect(secondsPerTokenBeyond).toBeGreaterThan(2.1e-5);
    expect(secondsPerTokenBeyond).toBeLessThan(2.5e-5);
    const later = steps.map((seen) => ({ ...seen, seconds: seen.seconds + 0.004 }));
    const shifted = estimateSteps(later, graphs, 1);
    expect((shifted.secondsPerTokenBeyond ?? 0) / (secondsPerTokenBeyond ?? 1)).toBeCloseTo(1, 1);
  });

  test("would not find it with the mean context of what was counted meanwhile", () => {
    // As the plugin told it once: both chunks of a prompt are counted before the first has ended, so
    // that the first got the context of both, and the second none of its own.
    const steps = long((tokens) => tokens);
    const firsts = steps.filter(({ tokens }) => tokens === 8192).slice(0, 6);
    const told = steps.map((seen) =>
      firsts.includes(seen) ? { ...seen, contextTokens: 12_288 } : seen,
    );
    const { secondsPerPromptPair } = estimateSteps(told, graphs, 1);
    expect(secondsPerPromptPair).toBeLessThan(7e-10);
  });

  test("would be found out if it ignored context: the same steps, their context not told", () => {
    const blind = observations(SIZES).map((seen) => ({ ...seen, contextTokens: 0 }));
    expect(worstCell(estimateSteps(blind, graphs, 1))).toBeGreaterThan(0.05);
  });

  test("tells other figures for another engine: half the speed, twice the seconds", () => {
    const slower = observations(SIZES).map((seen) => ({ ...seen, seconds: 2 * seen.seconds }));
    expect(worstCell(estimateSteps(slower, graphs, 1))).toBeCloseTo(1, 2);
  });

  test("leaves out cells with fewer than eight steps, and slopes that nothing tells", () => {
    const few = [decode(4, 40, undefined)].map((seen) => ({ ...seen, weight: 7 }));
    expect(estimateSteps(few, graphs, 1)).toEqual({
      full: [],
      piecewise: [],
      ungraphed: [],
      secondsPerRequest: undefined,
      secondsPerContextToken: undefined,
      secondsPerTokenBeyond: undefined,
      secondsPerPromptPair: undefined,
    });
  });
});

describe("cells", () => {
  test("keep means with their weight, and count timed steps by shape", () => {
    const cells = new Cells();
    const seen = {
      served: "",
      tokens: 4,
      requests: 4,
      uniform: 1,
      count: 10,
      timed: 8,
      seconds: 0.8,
      contextTokens: 40,
    };
    cells.add([seen, { ...seen, timed: 0, seconds: 0 }, { ...seen, tokens: 5, requests: 5 }]);
    expect(cells.all()).toHaveLength(2);
    expect(cells.all()[0]).toMatchObject({ weight: 8, seconds: expect.closeTo(0.1, 12) });
    expect(cells.timed({ served: "", tokens: 4, requests: 4, uniform: 1 })).toBe(8);
  });

  test("leave out seconds that came without their context", () => {
    const cells = new Cells();
    const late = { served: "", tokens: 8192, requests: 1, uniform: 8192, count: 0, timed: 1 };
    cells.add([{ ...late, seconds: 0.28, contextTokens: 0 }]);
    expect(cells.all()).toEqual([]);
    cells.add([{ ...late, seconds: 0.28, contextTokens: 16_384 }]);
    expect(cells.all()).toHaveLength(1);
  });

  test("are bounded", () => {
    const cells = new Cells();
    const seen = { served: "", tokens: 4, requests: 4, uniform: 1, contextTokens: 40 };
    for (let report = 0; report < 1000; report++) {
      cells.add([{ ...seen, count: 1, timed: 1, seconds: 1 }]);
    }
    expect(cells.all()).toHaveLength(512);
  });
});

// ------------------------------------------------------------------ the profile

function input(more: Partial<ProfileInput> = {}): ProfileInput {
  const { engine, limits, memory } = profile;
  return {
    name: "mine",
    measuredOn: "2026-11-21",
    command: "vllm serve MODEL",
    waves: [
      {
        wave: {
          table: "none",
          requests: 1,
          promptTokens: 32,
          outputTokens: 49,
          rounds: 1,
          optional: false,
        },
        seconds: [0.123456789],
      },
    ],
    lazygraphVersion: "0.1.0",
    pluginVersion: "0.1.0",
    simulated: undefined,
    engine,
    limits,
    memory,
    startupSeconds: 31.5,
    steps: estimateSteps(observations(SIZES), graphs, 1),
    captures: profile.captures.costs.map(({ graph, laterMs, bytes }) => ({
      graph,
      ms: laterMs,
      bytes,
    })),
    tops: new Set(["FULL:512", "PIECEWISE:512"]),
    ...more,
  };
}

describe("a calibration's profile", () => {
  test("is one that `simulate` takes, and costs what the engine's own does", () => {
    const mine = parseProfile(JSON.stringify(profileDocument(input())), "mine.json");
    const own = createCostModel(mine);
    for (const { graph } of mine.captures.costs) {
      const work = {
        tokens: graph.tokens,
        requests: graph.tokens,
        contextTokens: 100 * graph.tokens,
        promptPairs: 0,
      };
      // Sizes between the measured ones are interpolated.
      expect(own.stepSeconds(graph, work) / costs.stepSeconds(graph, work)).toBeCloseTo(1, 1);
      expect(own.laterSeconds(graph)).toBeCloseTo(costs.laterSeconds(graph), 4);
    }
    expect(mine.startupSeconds).toBe(31.5);
    expect(mine.provenance["steps.full"]?.how).toContain(
      "at 1, 2, 4, 8, 16, 32, 64, 128, 256, 512",
    );
    expect(mine.provenance["steps.full"]?.how).toContain("sizes between are interpolated");
  });

  test("tells what stock and eager capture before ready, and never above it", async () => {
    const document = JSON.stringify(profileDocument(input()));
    const mine = parseProfile(document, "mine.json");
    const beforeReady = async (name: "stock" | "eager", of: Profile): Promise<number> => {
      const requests = [{ atSeconds: 0, promptTokens: 8, outputTokens: 2 }];
      const run = await simulate({ profile: of, ...createSetup(name, of), requests });
      return run.captureBeforeReadySeconds;
    };
    // What of a capture without its warm-up run is overhead, no engine tells.
    for (const [name, least] of [
      ["stock", 0.9],
      ["eager", 0.85],
    ] as const) {
      const share = (await beforeReady(name, mine)) / (await beforeReady(name, profile));
      expect(share, name).toBeGreaterThan(least);
      expect(share, name).toBeLessThanOrEqual(1);
    }
  });

  test("takes what a later capture costs more than the tops did for overhead", () => {
    const overheadMs = 30;
    const captures = input().captures.map((entry) =>
      input().tops.has(entry.graph.id) ? entry : { ...entry, ms: (entry.ms ?? 0) + overheadMs },
    );
    const startSeconds = (given: ProfileInput["captures"]): number => {
      const mine = parseProfile(JSON.stringify(profileDocument(input({ captures: given }))), "m");
      const costs = createCostModel(mine);
      return graphs.reduce((sum, graph) => sum + costs.startSeconds(graph, true), 0);
    };
    // The tops' own first capture hides a part of it.
    const shown = startSeconds(captures) - startSeconds(input().captures);
    expect(shown).toBeLessThan((graphs.length * overheadMs * 0.4) / 1000);
  });

  test("holds the samples, the command and the versions in its provenance", () => {
    const { provenance } = profileDocument(input()) as {
      provenance: { cells: { cell: string; samples: number; q1: number; q3: number }[] };
    };
    expect(provenance).toMatchObject({
      command: "vllm serve MODEL",
      versions: { plugin: "0.1.0" },
      waves: [
        { table: "none", requests: 1, promptTokens: 32, outputTokens: 49, seconds: [0.1234568] },
      ],
    });
    const cell = provenance.cells.find(({ cell: name }) => name === "FULL:64");
    expect(cell?.samples).toBe(300);
    expect(cell?.q1).toBeLessThanOrEqual(cell?.q3 ?? 0);
  });

  test("marks what was not measured: sizes at the ends, graphs never captured, slopes", () => {
    const captures = input().captures.map((entry) =>
      entry.graph.id === "FULL:24" ? { ...entry, ms: undefined, bytes: undefined } : entry,
    );
    const steps = estimateSteps(
      observations([4, 64]).filter(({ tokens }) => tokens <= 512),
      graphs,
      1,
    );
    const document = profileDocument(input({ captures, steps }));
    const mine = parseProfile(JSON.stringify(document), "mine.json");
    expect(mine.steps.full.map(([tokens]) => tokens)).toEqual([1, 4, 64, 512]);
    expect(mine.provenance["steps.full"]?.how).toContain("No step was measured at 1: drawn out");
    expect(mine.provenance["captures.rows.laterMs"]?.how).toContain("nearest of its kind: FULL:24");
    expect(mine.provenance["steps.secondsPerTokenBeyond"]?.kind).toBe("assumed");
    expect(document).toMatchObject({ provenance: { interpolatedCaptures: ["FULL:24"] } });
  });

  test("holds in its texts however many graphs were never captured", () => {
    const graph = graphs.find(({ kind }) => kind === "FULL") as Graph;
    const captures = Array.from({ length: 300 }, (_, index) => ({
      graph: { ...graph, id: `FULL:${index + 1}`, tokens: index + 1 },
      ms: index === 0 ? 1 : undefined,
      bytes: undefined,
    }));
    const mine = parseProfile(JSON.stringify(profileDocument(input({ captures }))), "m");
    expect(mine.provenance["captures.rows.laterMs"]?.how).toMatch(/kind: 299 graphs/);
    // Of a kind that isn't planned.
    expect(mine.provenance["steps.piecewise"]?.kind).toBe("assumed");
  });

  const alone = (table: "none" | "exact", promptTokens: number, seconds: readonly number[]) => ({
    wave: { table, requests: 1, promptTokens, outputTokens: 1, rounds: 1, optional: false },
    seconds,
  });
  /** What a prompt alone in its own graph takes, by the profile. */
  const stepOf = (tokens: number): number =>
    prompt(
      tokens,
      0,
      graphs.find(({ id }) => id === `PIECEWISE:${tokens}`),
    ).seconds;

  test("has the front end of its waves: the middle one of what its sizes tell", () => {
    const outside = [0.003, 0.004, 0.009];
    const waves = [8, 64, 512].map((tokens, index) =>
      // One round of each took much longer, as the first one does.
      alone("exact", tokens, [
        1,
        ...[0, 1e-4, 2e-4].map((more) => stepOf(tokens) + (outside[index] ?? 0) + more),
      ]),
    );
    // Without a graph, of a size nobody measured, with more than one step: these tell nothing.
    const others = [alone("none", 8, [5]), alone("exact", 9, [5]), ...input().waves];
    const steps = input().steps;
    expect(frontEndSeconds([...others, ...waves], steps)).toBeCloseTo(0.00415, 6);
    expect(frontEndSeconds(others, steps)).toBeUndefined();
    expect(frontEndSeconds([alone("exact", 8, [1e-6])], steps)).toBe(0);
    const document = profileDocument(input({ waves }));
    const mine = parseProfile(JSON.stringify(document), "mine.json");
    expect(mine.frontEndSeconds).toBeCloseTo(0.00415, 6);
    expect(mine.provenance["frontEndSeconds"]?.kind).toBe("derived");
    expect(parseProfile(JSON.stringify(profileDocument(input())), "m").frontEndSeconds).toBe(0);
  });

  test("composes a step ahead unless the command or a simulated engine says otherwise", () => {
    const told = (more: Partial<ProfileInput>, stepsAhead: number) => {
      const limits = { ...profile.limits, stepsAhead };
      const mine = parseProfile(JSON.stringify(profileDocument(input({ limits, ...more }))), "m");
      expect(mine.limits.stepsAhead).toBe(stepsAhead);
      return mine.provenance["limits.stepsAhead"];
    };
    expect(told({}, 1)).toMatchObject({ kind: "assumed" });
    expect(told({ command: "vllm serve M --no-async-scheduling" }, 0)?.kind).toBe("derived");
    expect(told({ simulated: "tiny" }, 0)?.how).toContain("simulated");
  });

  test("of a simulated engine says so first", () => {
    const mine = profileDocument(input({ simulated: "tiny" }));
    expect(mine["title"]).toMatch(/^SIMULATED \(profile tiny\)/);
  });

  test("is none without timed steps, or without any captured graph of a kind", () => {
    const nothing = estimateSteps([], graphs, 1);
    expect(() => profileDocument(input({ steps: nothing }))).toThrow(Unmeasured);
    const captures = input().captures.map((entry) => ({ ...entry, ms: undefined }));
    expect(() => profileDocument(input({ captures }))).toThrow(/one captured graph of kind/);
  });
});

describe("waves", () => {
  const limits = { maxRequests: 1024, maxBatchedTokens: 8192, kvCacheTokens: 900_000 };

  test("visit every size without graphs, padded, and exact, and long prompts without graphs", () => {
    const waves = wavesOf({ sizes: [1, 8, 512], ...limits });
    const decodes = waves.filter(({ outputTokens, promptTokens }) => {
      return outputTokens > 1 && promptTokens === 32;
    });
    expect(decodes.map(({ table, requests }) => `${table} ${requests}`)).toEqual(
      ["none", "tops", "exact"].flatMap((table) => [1, 8, 512].map((size) => `${table} ${size}`)),
    );
    // Whoever arrives first is still there when the last one joins.
    expect(decodes.every(({ requests, outputTokens }) => outputTokens > requests)).toBe(true);
    const prompts = waves.filter(({ outputTokens }) => outputTokens === 1);
    expect(prompts.filter(({ table }) => table === "exact").map((w) => w.promptTokens)).toEqual([
      8, 512,
    ]);
    expect(
      prompts
        .filter(({ table, optional }) => table === "none" && optional)
        .map((w) => w.promptTokens),
    ).toEqual([1024, 2048, 4096, 8192, 16_384]);
  });

  test("stay within the cache and the batch", () => {
    const small = { maxRequests: 64, maxBatchedTokens: 512, kvCacheTokens: 4096 };
    const waves = wavesOf({ sizes: [1, 8, 64, 128], ...small });
    expect(waves.length).toBeGreaterThan(0);
    for (const { requests, promptTokens, outputTokens } of waves) {
      expect(requests * (promptTokens + outputTokens)).toBeLessThanOrEqual(4096);
      expect(requests).toBeLessThanOrEqual(64);
    }
  });

  test("default to some fifteen sizes in octaves, both ends among them", () => {
    const sizes = defaultSizes(graphs.map(({ tokens }) => tokens));
    expect(sizes).toEqual([1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]);
    expect(defaultSizes([3])).toEqual([3]);
  });
});
