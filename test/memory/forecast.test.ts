import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  distinct,
  fitConstants,
  type MeasuredRun,
  readRuns,
} from "../../bench/lib/graph-memory.ts";
import { readResult } from "../../bench/lib/result-file.ts";
import { type Graph, topGraphs } from "../../src/base/graph.ts";
import { CONSTANTS } from "../../src/memory/constants.ts";
import { type EngineShape, MemoryForecast, upperBytes } from "../../src/memory/forecast.ts";
import { plan } from "../helpers/fake-engine.ts";

const MIB = 1024 * 1024;
const SHAPE = { layers: 32, ranks: 1, activationPeakBytes: 896 * MIB };
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const PLANNED = plan(...SIZES);
const graph = (id: string): Graph => PLANNED.find((entry) => entry.id === id) as Graph;
const inOnePool = (graphs: readonly Graph[]) => graphs.map((entry) => ({ graph: entry, pool: 0 }));
const below = (tokens: number): Graph[] => PLANNED.filter((entry) => entry.tokens < tokens);
const held = (tokens: number): Map<number, number> => new Map([[0, tokens]]);

/** MiB of a pool of 672 that small graphs began, with driver memory. */
const PIECE_BY_PIECE = { "FULL:64": 62, "FULL:128": 60, "FULL:256": 482, "PIECEWISE:512": 80 };

/** After both tops: 678 MiB with the pool, and a FULL graph that found room in it. */
function afterTops(recorded?: ReadonlyMap<string, number>): MemoryForecast {
  const forecast = new MemoryForecast(PLANNED, SHAPE, recorded);
  forecast.observe(graph("PIECEWISE:512"), 678 * MIB, 0);
  forecast.observe(graph("FULL:512"), 0, 512);
  return forecast;
}

describe("raw results", () => {
  const runs = distinct(readRuns(new URL("../../bench/results/", import.meta.url)));
  const restOf = (run: MeasuredRun): { off: number; measured: number; errorBytes: number } => {
    const others = fitConstants(runs.filter((other) => other.model !== run.model));
    const planned = run.graphs.map((entry) => entry.graph);
    const forecast = new MemoryForecast(planned, run, undefined, others);
    const tops = topGraphs(planned);
    let pool = 0;
    for (const entry of run.graphs.slice(0, tops.length)) {
      expect(tops).toContain(entry.graph);
      forecast.observe(entry.graph, entry.bytes, pool);
      pool = entry.graph.tokens;
    }
    const rest = run.graphs.slice(tops.length);
    const { bytes, errorBytes } = forecast.rest(
      inOnePool(rest.map((entry) => entry.graph)),
      held(pool),
    );
    const measured = rest.reduce((sum, entry) => sum + entry.bytes, 0);
    return { off: bytes - measured, measured, errorBytes };
  };

  test("hold two models at least, each with every graph", () => {
    expect(new Set(runs.map((run) => run.model)).size).toBeGreaterThanOrEqual(2);
    for (const run of runs) expect(run.graphs.length).toBeGreaterThanOrEqual(20);
  });

  test.for(runs)("$model, $name: the rest is forecast by constants of the other models", (run) => {
    const { off, measured, errorBytes } = restOf(run);
    expect(Math.abs(off)).toBeLessThanOrEqual(Math.max(0.15 * measured, 16 * MIB));
    expect(Math.abs(off)).toBeLessThanOrEqual(errorBytes);
  });

  test("the constants in use are those that all runs suggest", () => {
    const fitted = fitConstants(runs);
    expect(CONSTANTS.pieceBytes / fitted.pieceBytes).toBeCloseTo(1, 1);
    expect(CONSTANTS.layerBytes / fitted.layerBytes).toBeCloseTo(1, 1);
  });
});

describe("corrections", () => {
  test("captures move the rate towards what they took, and narrow the error bar", () => {
    const forecast = afterTops();
    const before = forecast.rest(inOnePool(below(64)), held(512));
    expect(before.provisional).toBe(true);
    for (const tokens of [256, 128, 64]) {
      forecast.observe(graph(`PIECEWISE:${tokens}`), 5 * MIB, 512);
      forecast.observe(graph(`FULL:${tokens}`), 2 * MIB, 512);
    }
    const after = forecast.rest(inOnePool(below(64)), held(512));
    expect(after.bytes).toBeGreaterThan(before.bytes);
    expect(after.errorBytes).toBeLessThan(before.errorBytes);
    expect(after.provisional).toBe(false);
  });

  test("a step of the pool among small graphs is no sign that all of them are larger", () => {
    const [calm, stepped] = [afterTops(), afterTops()];
    const rest = inOnePool(below(128));
    calm.observe(graph("PIECEWISE:256"), 4 * MIB, 512);
    stepped.observe(graph("PIECEWISE:256"), 24 * MIB, 512);
    const [usual, after] = [calm, stepped].map((one) => one.rest(rest, held(512)).bytes);
    // It has come, so it is not expected any more.
    expect(after).toBeLessThan(usual as number);
    expect(after).toBeGreaterThan(0.8 * (usual as number));
  });

  test("the top of the other kind adds to the pool where it needs more of it", () => {
    const forecast = new MemoryForecast(PLANNED, SHAPE);
    forecast.observe(graph("PIECEWISE:512"), 134 * MIB, 0);
    forecast.observe(graph("FULL:512"), 566 * MIB, 512);
    const again = forecast.rest(inOnePool(topGraphs(PLANNED)), new Map());
    expect(again.bytes / MIB).toBeGreaterThan(690);
    expect(again.bytes / MIB).toBeLessThan(715);
  });

  test("a negative reading counts as nothing taken", () => {
    const forecast = afterTops();
    for (const tokens of [256, 128]) forecast.observe(graph(`FULL:${tokens}`), -50 * MIB, 512);
    expect(forecast.graph(graph("FULL:64"), 512).bytes).toBeGreaterThan(0);
  });
});

describe("pools", () => {
  test("only a graph larger than its pool's largest makes it grow", () => {
    const forecast = afterTops();
    expect(forecast.graph(graph("FULL:64"), 512).bytes).toBeLessThan(3 * MIB);
    expect(forecast.graph(graph("FULL:512"), 0).bytes).toBeGreaterThan(600 * MIB);
  });

  test("small sizes have small pools: a known one is scaled down, never up", () => {
    const forecast = new MemoryForecast(PLANNED, SHAPE);
    const guessed = forecast.rest(inOnePool([graph("FULL:512")]), new Map());
    forecast.observe(graph("PIECEWISE:64"), 12 * MIB, 0);
    const after = forecast.rest(inOnePool([graph("FULL:512")]), new Map());
    expect(after.bytes / guessed.bytes).toBeCloseTo(1, 2);
    const known = afterTops();
    // On an H200 the pool of both tops at 256 took about 200 MiB.
    const small = known.graph(graph("FULL:256"), 0).bytes / MIB;
    expect(small).toBeGreaterThan(180);
    expect(small).toBeLessThan(260);
  });

  test("each tier has a pool of its own", () => {
    const forecast = afterTops();
    const [one, two] = [0, 1].map((pool) =>
      forecast.rest(
        [
          { graph: graph("FULL:512"), pool: 0 },
          { graph: graph("FULL:256"), pool },
        ],
        new Map(),
      ),
    );
    expect(two?.bytes).toBeGreaterThan(one?.bytes as number);
  });
});

describe("before the first graph", () => {
  test("a recorded pool that can't be one, as when a neighbour took memory, is not believed", () => {
    const all = inOnePool(PLANNED);
    const guess = new MemoryForecast(PLANNED, SHAPE).rest(all, new Map());
    const usual = PLANNED.map((entry) => [entry.id, 2 * MIB] as const);
    const neighbour = new Map([...usual, ["PIECEWISE:512", 20 * 1024 * MIB] as const]);
    const known = new MemoryForecast(PLANNED, SHAPE, neighbour).rest(all, new Map());
    expect(known.bytes).toBeLessThan(2 * guess.bytes);
  });

  test("a guess with a wide bar, or what an earlier start recorded with a narrow one", () => {
    const all = inOnePool(PLANNED);
    const guess = new MemoryForecast(PLANNED, SHAPE).rest(all, new Map());
    expect(guess.provisional).toBe(true);
    expect(guess.errorBytes).toBeGreaterThan(0.5 * guess.bytes);
    const bytes = (entry: Graph): number =>
      entry.id === "PIECEWISE:512" ? 678 * MIB : entry.kind === "FULL" ? 1.4 * MIB : 4.6 * MIB;
    const recorded = new Map(PLANNED.map((entry) => [entry.id, bytes(entry)]));
    const known = new MemoryForecast(PLANNED, SHAPE, recorded).rest(all, new Map());
    const truth = [...recorded.values()].reduce((sum, value) => sum + value, 0);
    expect(known.provisional).toBe(false);
    expect(Math.abs(known.bytes - truth)).toBeLessThanOrEqual(known.errorBytes);
    expect(known.errorBytes).toBeLessThan(0.15 * known.bytes);
  });

  test.for([
    { order: "the largest first", booked: { "PIECEWISE:512": 678 } },
    { order: "the largest after most of the pool was there", booked: PIECE_BY_PIECE },
    { order: "the largest after a small part", booked: { "FULL:64": 62, "PIECEWISE:512": 618 } },
  ])("an earlier start tells the pool that captured $order", ({ booked }) => {
    const bytes = ({ id, kind }: Graph): number =>
      ((booked as Record<string, number>)[id] ?? (kind === "FULL" ? 1.4 : 4.6)) * MIB;
    const recorded = new Map(PLANNED.map((entry) => [entry.id, bytes(entry)]));
    const known = new MemoryForecast(PLANNED, SHAPE, recorded).rest(inOnePool(PLANNED), new Map());
    const truth = [...recorded.values()].reduce((sum, value) => sum + value, 0);
    expect(Math.abs(known.bytes - truth)).toBeLessThanOrEqual(known.errorBytes);
    expect(Math.abs(known.bytes - truth)).toBeLessThan(0.1 * truth);
  });

  test("several ranks are less sure than one", () => {
    const [one, two] = [1, 2].map((ranks) =>
      new MemoryForecast(PLANNED, { ...SHAPE, ranks }).graph(graph("PIECEWISE:64"), 512),
    );
    expect(two?.bytes).toBe(one?.bytes);
    expect(two?.errorBytes).toBeGreaterThan(one?.errorBytes as number);
    expect(upperBytes(two as never)).toBeGreaterThan(upperBytes(one as never));
  });

  test("nothing left is nothing", () => {
    const empty = afterTops().rest([], held(512));
    expect(empty).toMatchObject({ bytes: 0, errorBytes: 0, graphs: 0 });
  });
});

describe("starts on vLLM 0.33, from their ready on", () => {
  interface Cell {
    readonly family: string;
    readonly arm: string;
    readonly round: number;
    readonly ours?: {
      readonly captures?: readonly { readonly id: string; readonly bytes: number }[];
      readonly graphsAtReady: number;
    };
  }
  const results = new URL("../../bench/results/", import.meta.url);
  const files = readdirSync(results).filter((file) => /^v033-.*families/.test(file));
  const shapes: Readonly<Record<string, Partial<EngineShape>>> = {
    ...{ "breakable-8b": {}, "dense-8b": {}, "dense-8b-again": {}, "fp8-8b": {}, "lora-8b-16": {} },
    ...{ "fp8-8b-again": {}, "lora-8b-4": {}, "moe-30b-again": { layers: 48 } },
    ...{ "marlin-8b": {}, "vision-7b": { layers: 28 }, "kimi-linear-8l": { layers: 8 } },
    ...{ "mla-moe": { layers: 27, latent: true }, "hybrid-24l": { layers: 24 } },
    ...{ "moe-30b": { layers: 48 }, "moe-30b-ep2": { layers: 48, ranks: 2 } },
    ...{ "dense-70b-tp2": { layers: 80, ranks: 2 }, "dense-8b-pp2": { layers: 16, ranks: 2 } },
  };
  const starts = files
    .flatMap((file) => readResult<{ cells: Cell[] }>(new URL(file, results)).cells)
    .filter(({ arm, ours }) => arm === "idle" && ours?.captures !== undefined);

  test("there are two dozen at least, of all families that were measured", () => {
    expect(starts.length).toBeGreaterThanOrEqual(24);
    expect(new Set(starts.map(({ family }) => family))).toEqual(new Set(Object.keys(shapes)));
  });

  test.for(starts)("$family, idle start $round", ({ family, ours }) => {
    const captures = (ours?.captures ?? []).map(({ id, bytes }) => {
      const [kind, tokens, loras] = id.split(":");
      const adapters = loras === undefined ? {} : { loras: Number(loras.slice(1)) };
      return { graph: { id, kind, tokens: Number(tokens), ...adapters } as Graph, bytes };
    });
    const planned = captures.map((entry) => entry.graph);
    const tops = new Set(topGraphs(planned));
    const small = captures
      .filter(({ graph: { kind, tokens } }) => kind === "FULL" && tokens < 512)
      .sort((one, other) => one.graph.tokens - other.graph.tokens)
      .slice(0, (ours?.graphsAtReady ?? 0) - tops.size);
    const first = [...captures.filter((entry) => tops.has(entry.graph)), ...small];
    // The pool is the PIECEWISE top's, the first.
    first.sort((one, other) => Number(tops.has(other.graph)) - Number(tops.has(one.graph)));
    const forecast = new MemoryForecast(planned, { ...SHAPE, ...shapes[family] });
    let pool = 0;
    for (const { graph: captured, bytes } of first) {
      forecast.observe(captured, bytes, pool);
      pool = Math.max(pool, captured.tokens);
    }
    const rest = captures.filter((entry) => !first.includes(entry));
    const { bytes, errorBytes } = forecast.rest(
      inOnePool(rest.map((entry) => entry.graph)),
      held(512),
    );
    const off = Math.abs(bytes - rest.reduce((sum, entry) => sum + entry.bytes, 0));
    const all = captures.reduce((sum, entry) => sum + entry.bytes, 0);
    expect(off).toBeLessThan(Math.max(64 * MIB, all / 10));
    expect(off).toBeLessThan(errorBytes);
  });
});
