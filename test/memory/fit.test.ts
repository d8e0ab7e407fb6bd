import { describe, expect, test } from "vitest";
import { type Graph, topGraphs } from "../../src/base/graph.ts";
import { type Fit, fitStart } from "../../src/memory/fit.ts";
import { MemoryForecast } from "../../src/memory/forecast.ts";
import { leastValuable, poolTops, tierLists, tiersOf } from "../../src/memory/tiers.ts";
import { createEngineState } from "../../src/schedule/state.ts";
import { plan } from "../helpers/fake-engine.ts";

const MIB = 1024 * 1024;
const SIZES = [1, 2, 4, ...Array.from({ length: 32 }, (_, index) => 8 * (index + 1)), 384, 512];
const PLANNED = plan(...SIZES);
const SHAPE = { layers: 32, ranks: 1, activationPeakBytes: 896 * MIB };

/** With what an earlier start recorded, so that the figures are an 8B's. */
function fitWith(headroomMib: number, wanted: readonly Graph[] = topGraphs(PLANNED)): Fit {
  const bytes = ({ id, kind }: Graph): number =>
    id === "PIECEWISE:512" ? 678 * MIB : kind === "FULL" ? 1.4 * MIB : 4.6 * MIB;
  const recorded = new Map(PLANNED.map((graph) => [graph.id, bytes(graph)]));
  const forecast = new MemoryForecast(PLANNED, SHAPE, recorded);
  return fitStart({ planned: PLANNED, wanted, forecast, headroomBytes: headroomMib * MIB });
}

const ids = (graphs: readonly Graph[]): string[] => graphs.map((graph) => graph.id);

describe("the first set", () => {
  test("with plenty of memory it is the policy's, in one pool", () => {
    const { graphs, blocked, tiers } = fitWith(10_000);
    expect(ids(graphs)).toEqual(["PIECEWISE:512", "FULL:512"]);
    expect(blocked).toEqual([]);
    expect(tiers).toBeUndefined();
  });

  test("where 512 does not fit with much else, 256 does: a smaller top, tiers, the rest waits", () => {
    const { graphs, blocked, tiers, needBytes } = fitWith(700);
    expect(ids(graphs)).toEqual(["PIECEWISE:256", "FULL:256"]);
    expect(ids(blocked).sort()).toEqual(
      ["FULL:384", "FULL:512", "PIECEWISE:384", "PIECEWISE:512"].sort(),
    );
    expect(tiers?.get("FULL:64")).toBe(0);
    expect(tiers?.get("FULL:72")).toBe(1);
    expect(tiers?.get("FULL:512")).toBe(3);
    expect(needBytes).toBeLessThanOrEqual(700 * MIB);
  });

  test("the less room, the smaller the top, down to nothing", () => {
    const tops = [10_000, 700, 200, 80, 30, 5, -1000].map((room) =>
      Math.max(0, ...fitWith(room).graphs.map((graph) => graph.tokens)),
    );
    expect(tops[0]).toBe(512);
    expect(tops.at(-1)).toBe(0);
    expect(tops).toEqual([...tops].sort((a, b) => b - a));
    expect(fitWith(-1000).blocked).toHaveLength(PLANNED.length);
  });

  test("eager: all that fit, in the policy's order, and what doesn't is blocked", () => {
    const { graphs, blocked, needBytes } = fitWith(150, PLANNED);
    expect(graphs.length + blocked.length).toBe(PLANNED.length);
    expect(graphs.length).toBeGreaterThan(10);
    expect(needBytes).toBeLessThanOrEqual(150 * MIB);
    const places = ids(graphs).map((id) => PLANNED.findIndex((graph) => graph.id === id));
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });

  test("what the policy wants comes before what it didn't ask for", () => {
    const wanted = PLANNED.filter(({ tokens }) => [24, 40, 512].includes(tokens));
    const { graphs } = fitWith(150, wanted);
    expect(ids(graphs)).toEqual(expect.arrayContaining(["FULL:24", "PIECEWISE:24", "FULL:40"]));
  });

  test("a smaller top stands in for a larger one, and for nothing else", () => {
    const onlyFull = PLANNED.filter(({ id }) => id === "FULL:512");
    expect(ids(fitWith(700, onlyFull).graphs)).toEqual(["FULL:256"]);
    expect(ids(fitWith(700, []).graphs)).toEqual([]);
  });

  test("every graph is captured, left to the policy, or blocked: never two of them", () => {
    for (const room of [5, 30, 80, 200, 700, 2000]) {
      const { graphs, blocked } = fitWith(room);
      const both = ids(graphs).filter((id) => ids(blocked).includes(id));
      expect(both).toEqual([]);
      const largest = Math.max(0, ...graphs.map((graph) => graph.tokens));
      for (const graph of blocked) expect(graph.tokens).toBeGreaterThan(largest);
    }
  });
});

describe("tiers", () => {
  test("end where sizes double, and are listed with the largest graph first", () => {
    const planned = plan(1, 64, 65, 200, 300, 1000);
    const lists = tierLists(planned, tiersOf(planned));
    expect(lists.map((list) => list.map((id) => Number(id.split(":")[1])))).toEqual([
      [64, 64, 1, 1],
      [65, 65],
      [200, 200],
      [300, 300],
      [1000, 1000],
    ]);
  });

  test("the one of the least use is given up; of equals the largest sizes", () => {
    const planned = plan(1, 64, 128, 256);
    const state = createEngineState(planned);
    const tiers = tiersOf(planned);
    expect(leastValuable(state, tiers)).toEqual([]);
    for (const entry of state.graphs.values()) entry.status = "captured";
    expect(ids(leastValuable(state, tiers)).sort()).toEqual(["FULL:256", "PIECEWISE:256"]);
    for (const [id, entry] of state.graphs) entry.replays = id.endsWith("128") ? 1 : 5;
    expect(ids(leastValuable(state, tiers)).sort()).toEqual(["FULL:128", "PIECEWISE:128"]);
  });

  test("a pool is as large as its largest captured graph", () => {
    const planned = plan(1, 64, 128);
    const state = createEngineState(planned);
    const entry = state.graphs.get("FULL:64");
    if (entry !== undefined) entry.status = "captured";
    expect([...poolTops(state, tiersOf(planned))]).toEqual([[0, 64]]);
  });
});
