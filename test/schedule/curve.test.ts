import { describe, expect, test } from "vitest";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { alongCurve } from "../../src/schedule/costed/curve.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, graphOf, SEED, seen } from "./seed.ts";

describe("a curve through measured sizes", () => {
  const points = [
    { tokens: 8, seconds: 0.01 },
    { tokens: 64, seconds: 0.02 },
    { tokens: 512, seconds: 0.04 },
  ];

  test("is a power law between two of them", () => {
    expect(alongCurve(points, 8)).toBeCloseTo(0.01, 9);
    expect(alongCurve(points, 64)).toBeCloseTo(0.02, 9);
    // Half of the three octaves up: the square root of 2.
    expect(alongCurve(points, 8 * Math.sqrt(8))).toBeCloseTo(0.01 * Math.SQRT2, 9);
  });

  test("goes on below the first, and says nothing above the last", () => {
    expect(alongCurve(points, 1)).toBeCloseTo(0.005, 9);
    expect(alongCurve(points, 513)).toBeUndefined();
    expect(alongCurve([], 8)).toBeUndefined();
  });

  test("below a lone point it hopes for a little less", () => {
    const hoped = alongCurve(points.slice(0, 1), 1) ?? Number.NaN;
    expect(hoped).toBeGreaterThan(0.005);
    expect(hoped).toBeLessThan(0.01);
  });

  test("noise makes it neither fall nor rise faster than in proportion", () => {
    const noisy = [
      { tokens: 56, seconds: 0.02 },
      { tokens: 64, seconds: 0.019 },
      { tokens: 65, seconds: 0.09 },
    ];
    expect(alongCurve(noisy, 60)).toBeCloseTo(0.02, 9);
    expect(alongCurve(noisy, 64.5)).toBeCloseTo((0.019 * 64.5) / 64, 9);
  });
});

describe("another engine's costs", () => {
  const planned = plan(1, 8, 64, 512);
  /** Steps take 4.6 ms to 34 ms by size: the seed's are flat up to 64 tokens. */
  const truth = new Map([
    [8, 0.0098],
    [64, 0.02],
  ]);

  test("lend their shape until this one's own is seen", () => {
    const costs = createCosts(planned, { ...SEED, errorShare: 0.5, foreign: true });
    const own = createCosts(planned, { ...SEED, errorShare: 0.5 });
    for (const [tokens, seconds] of truth) {
      for (const some of [costs, own]) {
        for (let report = 0; report < 10; report++) {
          some.observeSteps(seen(decode(tokens), `FULL:${tokens}`, 8, seconds));
        }
      }
    }
    const at = (some: typeof costs, tokens: number): number =>
      some.graphSeconds(graphOf(planned, `FULL:${tokens}`)).value;
    // Never captured: along the curve of those that are, where a common factor sees no slope.
    expect(at(costs, 1)).toBeGreaterThan(0.0035);
    expect(at(costs, 1)).toBeLessThan(0.006);
    expect(at(own, 1)).toBeGreaterThan(0.009);
    // Above, work grows as the seed's does: 14 ms where 64 tokens take 5.
    expect(at(costs, 512) / at(costs, 64)).toBeCloseTo(14 / 5, 1);
  });
});
