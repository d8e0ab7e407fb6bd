import { describe, expect, test } from "vitest";
import type { PlanGraph, PlanTraffic } from "../../src/plan/plan.ts";
import { captureSizesFlag, suggestSizes } from "../../src/plan/suggest.ts";
import { graph, planOf, traffic } from "./helpers.ts";

const SIZES = [1, 2, 4, 8, 16, 32];
/** A step takes 5 ms and a tenth for each padded token. */
const stepSeconds = (tokens: number): number => 0.005 + 0.0001 * tokens;
const graphs: PlanGraph[] = SIZES.flatMap((tokens) => [
  graph("FULL", tokens, { stepSeconds: stepSeconds(tokens), captureMs: 20, bytes: 2e6 }),
  graph("PIECEWISE", tokens, {
    stepSeconds: stepSeconds(tokens) + 0.001,
    captureMs: 30,
    bytes: 4e6,
  }),
]);

/** The fewest sizes within the loss, by trying every set. */
function bruteForce(rows: readonly PlanTraffic[], lossShareMax: number): number {
  const cost = (sizes: readonly number[]): number =>
    rows.reduce((sum, row) => {
      const size = sizes.find((tokens) => tokens >= row.tokens);
      if (size === undefined) return Number.POSITIVE_INFINITY;
      const seconds = stepSeconds(size) + (row.uniform === 0 ? 0.001 : 0);
      return sum + row.requestSteps * seconds;
    }, 0);
  let best = SIZES.length;
  for (let mask = 1; mask < 1 << SIZES.length; mask++) {
    const sizes = SIZES.filter((_, index) => (mask & (1 << index)) !== 0);
    if (cost(sizes) <= cost(SIZES) * (1 + lossShareMax)) best = Math.min(best, sizes.length);
  }
  return best;
}

describe("suggested capture sizes", () => {
  test("are those that traffic uses, when nothing may be lost", () => {
    const plan = planOf({ graphs, traffic: [traffic(2, 100), traffic(16, 100)] });
    expect(suggestSizes(plan, { lossShareMax: 0 })).toMatchObject({
      sizes: [2, 16],
      sizesPlanned: 6,
      graphsKept: 4,
      graphsPlanned: 12,
      // Four FULL and four PIECEWISE are left out.
      captureMsSpared: 200,
      bytesSpared: 24e6,
      graphsUnmeasured: 0,
      requestSteps: 200,
      measuredShare: 0,
    });
  });

  test("leave out what the next size serves nearly as well", () => {
    const rows = [traffic(1, 1000), traffic(2, 1000), traffic(4, 10), traffic(32, 1000)];
    const suggestion = suggestSizes(planOf({ graphs, traffic: rows }), { lossShareMax: 0.01 });
    expect(suggestion?.sizes).toEqual([2, 32]);
    // 1,000 steps of 1 at 5.2 instead of 5.1 ms, and 10 of 4 at 8.2 instead of 5.4.
    expect(suggestion?.lossShare).toBeCloseTo((0.1 + 0.028) / (5.1 + 5.2 + 0.054 + 8.2), 6);
  });

  test("are as few as trying every set finds, over many histograms", () => {
    let state = 7;
    const random = (): number => {
      state = (state * 1103515245 + 12345) % 2 ** 31;
      return state / 2 ** 31;
    };
    for (let round = 0; round < 200; round++) {
      const rows = SIZES.flatMap((tokens) =>
        [0, 1].map((uniform) => traffic(tokens, Math.floor(random() ** 3 * 1000), { uniform })),
      ).filter(({ requestSteps }) => requestSteps > 0);
      if (rows.length === 0) continue;
      const lossShareMax = random() / 10;
      const suggestion = suggestSizes(planOf({ graphs, traffic: rows }), { lossShareMax });
      expect(suggestion?.sizes).toHaveLength(bruteForce(rows, lossShareMax));
      expect(suggestion?.lossShare).toBeLessThanOrEqual(lossShareMax + 1e-9);
    }
  });

  test("say what no start has measured", () => {
    const unmeasured = graphs.map(({ captureMs: _, bytes: __, ...rest }, index) =>
      index < 2 ? { ...rest, captureMs: 40, bytes: 1e6 } : rest,
    );
    const rows = [traffic(1, 75), traffic(1, 25, { uniform: 0 })];
    unmeasured[0] = graph("FULL", 1, { stepSeconds: 0.005, timed: 9, captureMs: 40, bytes: 1e6 });
    expect(suggestSizes(planOf({ graphs: unmeasured, traffic: rows }))).toMatchObject({
      sizes: [1],
      captureMsSpared: 400,
      bytesSpared: 10e6,
      graphsUnmeasured: 10,
      measuredShare: 0.75,
    });
  });

  test("are none without traffic", () => {
    expect(suggestSizes(planOf({ traffic: [] }))).toBeUndefined();
    expect(suggestSizes(planOf({ graphs: [], first: [] }))).toBeUndefined();
  });

  test("become vLLM's flag", () => {
    expect(captureSizesFlag([1, 2, 8])).toBe("--cudagraph-capture-sizes 1 2 8");
  });
});
