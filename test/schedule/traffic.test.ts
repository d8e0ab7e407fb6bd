import { describe, expect, test } from "vitest";
import { createCosts } from "../../src/schedule/cost.ts";
import { type FillInput, fillChoice } from "../../src/schedule/fill.ts";
import { createShapes } from "../../src/schedule/shapes.ts";
import { TrafficHistogram } from "../../src/schedule/traffic.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, heldOf, mixed, SEED } from "./seed.ts";

const planned = plan(1, 2, 4, 8, 16, 24, 32, 64, 128, 256, 512);
const shapes = createShapes(planned);

describe("shapes", () => {
  test("a step rounds up to a planned size, and beyond the largest has no bucket", () => {
    expect(shapes.bucketOf(decode(17))?.step).toEqual(decode(24));
    expect(shapes.bucketOf(decode(17))).toBe(shapes.bucketOf(decode(24)));
    expect(shapes.bucketOf(mixed(17))).not.toBe(shapes.bucketOf(decode(17)));
    expect(shapes.bucketOf(decode(513))).toBeUndefined();
  });

  test("limits of requests part the mixed steps", () => {
    const limited = createShapes([
      { id: "a", kind: "FULL", tokens: 16, requests: 4 },
      { id: "b", kind: "PIECEWISE", tokens: 16 },
    ]);
    const bucket = (requests: number) =>
      limited.bucketOf({ tokens: 9, requests, uniform: 0 })?.servers;
    expect(bucket(3)).toEqual(Int32Array.of(0, 1));
    expect(bucket(5)).toEqual(Int32Array.of(1));
  });
});

describe("the traffic histogram", () => {
  test("halves with each half-life, over any span", () => {
    const traffic = new TrafficHistogram(shapes, 10);
    traffic.add(decode(20), 4, 2, 0);
    expect(traffic.weight(decode(24), 0)).toBe(8);
    expect(traffic.weight(decode(24), 10)).toBe(4);
    // Far beyond what the scale of forward decay could hold.
    traffic.add(decode(20), 1, 1, 20_000);
    expect(traffic.weight(decode(24), 20_000)).toBeCloseTo(1, 9);
    expect(traffic.weight(mixed(24), 20_000)).toBe(0);
    expect(traffic.steps).toBe(5);
  });

  test("the forecast keeps the weight, most of it near where it was seen", () => {
    const traffic = new TrafficHistogram(shapes);
    traffic.add(decode(30), 100, 1, 0);
    traffic.add(mixed(600), 100, 1, 0);
    const forecast = traffic.forecast(0, 1, 0);
    const sum = forecast.reduce((total, { weight }) => total + weight, 0);
    expect(sum).toBeCloseTo(100, 6);
    const near = forecast.filter(({ bucket }) => Math.abs(bucket.step.tokens - 32) <= 32);
    expect(near.reduce((total, { weight }) => total + weight, 0)).toBeGreaterThan(70);
    expect(forecast.every(({ bucket }) => bucket.step.uniform === 1)).toBe(true);
  });

  test("with a prior every size of both lanes is expected a little", () => {
    const forecast = new TrafficHistogram(shapes).forecast(0, 1, 4);
    expect(forecast).toHaveLength(2 * shapes.sizes.length);
    const decodes = forecast.filter(({ bucket }) => bucket.step.uniform === 1);
    // Nine octaves from 1 to 512, and one for size 1 itself.
    expect(decodes.reduce((total, { weight }) => total + weight, 0)).toBeCloseTo(40, 6);
  });
});

describe("fill", () => {
  const tops = ["FULL:512", "PIECEWISE:512"];
  const choice = (traffic: TrafficHistogram, change: Partial<FillInput> = {}) =>
    fillChoice({
      costs: createCosts(planned, SEED),
      held: heldOf(planned, ...tops),
      expected: traffic.forecast(0, 1, 4),
      steps: traffic.steps,
      ...change,
    });

  test("while traffic is unknown a ladder of powers of two, most value first", () => {
    const traffic = new TrafficHistogram(shapes);
    const costs = createCosts(planned, SEED);
    const captured = [...tops];
    for (;;) {
      const next = choice(traffic, { costs, held: heldOf(planned, ...captured) });
      if (next?.rule !== "ladder") break;
      captured.push(next.graph.id);
    }
    // 64 serves the six octaves below it as fast as their own graphs do; then mixed steps have none.
    expect(captured.slice(2, 4)).toEqual(["FULL:64", "PIECEWISE:128"]);
    expect(captured).not.toContain("FULL:24");
  });

  test("with known traffic the graph that spares it most per second of stall", () => {
    const traffic = new TrafficHistogram(shapes);
    traffic.add(mixed(100), 500, 1, 0);
    expect(choice(traffic)).toMatchObject({ graph: { id: "PIECEWISE:128" }, rule: "value" });
    const captures = new Map(planned.map(({ id }) => [id, { seconds: 0.03, bytes: 0 }]));
    captures.set("PIECEWISE:128", { seconds: 9, bytes: 0 });
    const costs = createCosts(planned, { ...SEED, captures });
    expect(choice(traffic, { costs })?.graph.id).not.toBe("PIECEWISE:128");
  });

  test("when nothing is worth anything the largest of the rest, and then nothing", () => {
    const traffic = new TrafficHistogram(shapes);
    expect(choice(traffic, { expected: [] })).toMatchObject({
      graph: { id: "PIECEWISE:256" },
      value: 0,
      rule: "rest",
    });
    const all = heldOf(planned, ...planned.map(({ id }) => id));
    expect(choice(traffic, { held: all })).toBeUndefined();
  });
});
