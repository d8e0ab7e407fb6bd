import { describe, expect, test } from "vitest";
import { createRandom, standardNormal } from "../../src/base/random.ts";
import { createCosts, interpolate } from "../../src/schedule/costed/cost.ts";
import { RobustMean } from "../../src/schedule/costed/robust.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, graphOf, mixed, SEED, seen } from "./seed.ts";

const planned = plan(1, 8, 16, 64, 512);
const full16 = graphOf(planned, "FULL:16");
const full64 = graphOf(planned, "FULL:64");
const piece64 = graphOf(planned, "PIECEWISE:64");

describe("the robust mean", () => {
  test("strays don't carry it away, and noise gives its deviation", () => {
    const random = createRandom(4);
    const mean = new RobustMean(0.15);
    for (let index = 0; index < 400; index++) {
      mean.add(index % 20 === 19 ? 50 : 0.3 + 0.02 * standardNormal(random));
    }
    expect(mean.mean).toBeGreaterThan(0.28);
    expect(mean.mean).toBeLessThan(0.34);
    expect(mean.deviation).toBeLessThan(0.1);
    expect(mean.error).toBeLessThan(mean.deviation / 10);
  });

  test("a lasting change gets through", () => {
    const mean = new RobustMean(0.05);
    for (let index = 0; index < 300; index++) mean.add(0);
    for (let index = 0; index < 2000; index++) mean.add(1);
    expect(mean.mean).toBeGreaterThan(0.9);
  });

  test("what is no number is left out", () => {
    const mean = new RobustMean(0.1);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) mean.add(value);
    mean.add(1, 0);
    expect(mean).toMatchObject({ mean: 0, weight: 0 });
  });
});

describe("costs", () => {
  test("start at the seed, with an error bar of the seed's", () => {
    const costs = createCosts(planned, SEED);
    expect(costs.graphSeconds(full16).value).toBe(0.005);
    expect(costs.graphSeconds(full16).error).toBeCloseTo(0.15 * 0.005, 6);
    expect(costs.ungraphedSeconds(decode(3)).value).toBe(0.01);
    // A step of 300 counts as one of the planned size above it.
    expect(costs.ungraphedSeconds(decode(300)).value).toBeCloseTo(0.014, 9);
    expect(costs.ungraphedSeconds(mixed(1024)).value).toBeCloseTo(0.022, 9);
  });

  test("a profile of another GPU is set right by a few steps, unseen sizes included", () => {
    const costs = createCosts(planned, SEED);
    for (let report = 0; report < 40; report++) {
      costs.observeSteps(seen(decode(16), "FULL:16", 8, 0.01));
      costs.observeSteps(seen(decode(16), "", 8, 0.02));
    }
    expect(costs.graphSeconds(full16).value).toBeCloseTo(0.01, 3);
    expect(costs.graphSeconds(full64).value).toBeCloseTo(0.01, 3);
    expect(costs.ungraphedSeconds(decode(1)).value).toBeCloseTo(0.02, 3);
    // Nothing was seen of these groups.
    expect(costs.graphSeconds(piece64).value).toBe(0.006);
    expect(costs.ungraphedSeconds(mixed(16)).value).toBe(0.01);
    expect(costs.revision).toBeGreaterThan(0);
    expect(costs.graphSeconds(full16).error).toBeLessThan(0.1 * 0.01);
  });

  test("of an engine that nobody knows, the smallest step beyond all graphs tells of ungraphed ones", () => {
    const foreign = createCosts(planned, { ...SEED, foreign: true });
    const tell = (costs: typeof foreign): void => {
      // The seed says 18 ms: this engine takes half of it.
      costs.observeSteps(seen(mixed(768), "", 1, 0.009));
      // Of larger ones it takes as much as the seed, which says nothing of launches.
      costs.observeSteps(seen(mixed(1000), "", 1, interpolate(SEED.ungraphed, 1000)));
      costs.observeSteps(seen(mixed(4096), "", 1, 1));
    };
    tell(foreign);
    expect(foreign.ungraphedSeconds(decode(8)).value).toBeCloseTo(0.005, 4);
    expect(foreign.ungraphedSeconds(mixed(8)).value).toBeCloseTo(0.005, 4);
    foreign.observeSteps(seen(decode(8), "", 8, 0.012));
    expect(foreign.ungraphedSeconds(decode(8)).value).toBeCloseTo(0.012, 4);
    tell(foreign);
    expect(foreign.ungraphedSeconds(decode(8)).value).toBeCloseTo(0.012, 4);
    const known = createCosts(planned, SEED);
    tell(known);
    expect(known.ungraphedSeconds(decode(8)).value).toBe(0.01);
    expect(known.revision).toBe(0);
  });

  test("a stray report moves nothing far", () => {
    const costs = createCosts(planned, SEED);
    for (let report = 0; report < 30; report++) {
      costs.observeSteps(seen(decode(16), "FULL:16", 4, 0.005));
    }
    costs.observeSteps(seen(decode(16), "FULL:16", 4, 5));
    expect(costs.graphSeconds(full16).value).toBeLessThan(0.0053);
    expect(costs.ungraphedBySize(true)[costs.shapes.sizeOf(16)]).toBe(0.01);
  });

  test("long contexts are not taken for slow graphs", () => {
    // 1 microsecond for each token of context, which the seed knows nothing of.
    const costs = createCosts(planned, SEED);
    for (let report = 0; report < 400; report++) {
      const contextTokens = 200 + ((report * 37) % 400);
      costs.observeSteps(
        seen(decode(16), "FULL:16", 8, 0.005 + 16 * contextTokens * 1e-6, contextTokens),
      );
    }
    expect(costs.secondsPerContextToken).toBeCloseTo(1e-6, 7);
    expect(costs.graphSeconds(full16).value).toBeLessThan(0.0065);
  });

  test("what can't be true is left out", () => {
    const costs = createCosts(planned, { ...SEED, secondsPerContextToken: 1e-6 });
    costs.observeSteps({ ...seen(decode(16), "FULL:16", 5, 0.1), timed: 0 });
    costs.observeSteps(seen(decode(16), "FULL:17", 5, 0.1));
    costs.observeSteps(seen(decode(600), "", 5, 0.1));
    // Less than its context alone takes.
    for (let report = 0; report < 20; report++) {
      costs.observeSteps(seen(mixed(16), "", 5, 0.001, 4000));
    }
    expect(costs.revision).toBe(0);
  });

  test("captures: what one graph took tells of the others of its kind", () => {
    const captures = new Map([
      ["FULL:16", { seconds: 0.02, bytes: 2 << 20 }],
      ["FULL:64", { seconds: 0.04, bytes: 0 }],
    ]);
    const costs = createCosts(planned, { ...SEED, captures });
    expect(costs.captureSeconds(full64).value).toBe(0.04);
    // No seed of its own: its kind's median, or what an 8B took.
    expect(costs.captureSeconds(graphOf(planned, "FULL:1")).value).toBe(0.04);
    expect(costs.captureSeconds(piece64).value).toBe(0.03);
    const before = costs.captureSeconds(full64).error;
    costs.observeCapture(full16, 0.026);
    expect(costs.captureSeconds(full16).value).toBe(0.026);
    expect(costs.captureSeconds(full64).value).toBeCloseTo(0.04 * 1.3, 3);
    expect(costs.captureSeconds(full64).error).toBeGreaterThan(0);
    expect(before).toBeGreaterThan(0);
    // Repeated and impossible answers change nothing.
    costs.observeCapture(full16, 9);
    costs.observeCapture(full64, -1);
    expect(costs.captureSeconds(full16).value).toBe(0.026);
  });

  test.for([
    [0, 1],
    [1, 1],
    [2, 1.5],
    [3, 2],
    [5, 3],
  ] as const)("interpolation at %d tokens", ([tokens, seconds]) => {
    const rows = [
      [1, 1],
      [3, 2],
    ] as const;
    expect(interpolate(rows, tokens)).toBe(seconds);
  });
});
