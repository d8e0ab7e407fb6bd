import { describe, expect, test } from "vitest";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { Demand } from "../../src/schedule/costed/demand.ts";
import { type FillInput, fillChoice } from "../../src/schedule/costed/fill.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { createShapes } from "../../src/schedule/costed/shapes.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, heldOf, mixed, SEED } from "./seed.ts";

const total = (weights: Float64Array): number => weights.reduce((sum, weight) => sum + weight, 0);
const planned = plan(1, 2, 4, 8, 16, 24, 32, 64, 128, 256, 512);
const shapes = createShapes(planned);

describe("shapes", () => {
  test("a step rounds up to a planned size, and beyond the largest has no bucket", () => {
    const bucket = shapes.bucketOf(decode(17));
    expect(shapes.sizes[bucket?.size ?? -1]).toBe(24);
    expect(bucket).toEqual(shapes.bucketOf(decode(24)));
    expect(shapes.bucketOf(mixed(17))?.lane).not.toBe(bucket?.lane);
    // Requests of 17 tokens each: no graph is made for that, so it is a mixed step.
    const odd = { tokens: 17, requests: 1, uniform: 17 };
    expect(shapes.bucketOf(odd)).toEqual(shapes.bucketOf(mixed(17)));
    expect(shapes.bucketOf(decode(513))).toBeUndefined();
  });

  test("limits of requests part the mixed steps", () => {
    const limited = createShapes([
      { id: "a", kind: "FULL", tokens: 16, requests: 4 },
      { id: "b", kind: "PIECEWISE", tokens: 16 },
    ]);
    const bucket = (requests: number) =>
      limited.bucketOf({ tokens: 9, requests, uniform: 0 })?.lane.places;
    expect(bucket(3)).toEqual(Int32Array.of(0, 1));
    expect(bucket(5)).toEqual(Int32Array.of(1));
  });
});

describe("the traffic histogram", () => {
  test("halves with each half-life, over any span", () => {
    const traffic = new Demand(shapes, 10);
    traffic.add(shapes.bucketOf(decode(20)), 4, 2, 0);
    expect(traffic.weight(decode(24), 0)).toBe(8);
    expect(traffic.weight(decode(24), 10)).toBe(4);
    // Far beyond what the scale of forward decay could hold.
    traffic.add(shapes.bucketOf(decode(20)), 1, 1, 20_000);
    expect(traffic.weight(decode(24), 20_000)).toBeCloseTo(1, 9);
    expect(traffic.weight(mixed(24), 20_000)).toBe(0);
    expect(traffic.steps).toBe(5);
  });

  test("the forecast keeps the weight, most of it near where it was seen", () => {
    const traffic = new Demand(shapes);
    traffic.add(shapes.bucketOf(decode(30)), 100, 1, 0);
    traffic.add(shapes.bucketOf(mixed(600)), 100, 1, 0);
    const forecast = traffic.forecast(0, 1, 0);
    const [decodes] = forecast;
    if (decodes === undefined) throw new Error("one lane was seen");
    expect(forecast).toHaveLength(1);
    expect(decodes.lane.uniform).toBe(1);
    expect(total(decodes.weights)).toBeCloseTo(100, 6);
    const near = decodes.weights.filter(
      (_, size) => Math.abs((shapes.sizes[size] ?? 0) - 32) <= 32,
    );
    expect(total(near)).toBeGreaterThan(70);
    // As worked out by hand: octaves × exp(-distance / half an octave) over their sum.
    const share = (size: number): number => {
      const octaves =
        size === 0 ? 1 : Math.log2((shapes.sizes[size] ?? 0) / (shapes.sizes[size - 1] ?? 1));
      return octaves * Math.exp(-Math.abs(Math.log2((shapes.sizes[size] ?? 0) / 32)) / 0.5);
    };
    const all = shapes.sizes.reduce((sum, _, size) => sum + share(size), 0);
    decodes.weights.forEach((weight, size) => {
      expect(weight).toBeCloseTo((100 * share(size)) / all, 9);
    });
  });

  test("with a prior every size of both lanes is expected a little", () => {
    const forecast = new Demand(shapes).forecast(0, 1, 4);
    expect(forecast).toHaveLength(2);
    for (const { weights } of forecast) expect(weights.every((weight) => weight > 0)).toBe(true);
    const decodes = forecast.find(({ lane }) => lane.uniform === 1);
    // Nine octaves from 1 to 512, and one for size 1 itself.
    expect(total(decodes?.weights ?? new Float64Array())).toBeCloseTo(40, 6);
  });
});

describe("fill", () => {
  const tops = ["FULL:512", "PIECEWISE:512"];
  const choice = (traffic: Demand, change: Partial<FillInput> = {}) =>
    fillChoice({
      savings: new Savings(createCosts(planned, SEED)),
      held: heldOf(planned, ...tops),
      expected: traffic.forecast(0, 1, 4),
      steps: traffic.steps,
      ...change,
    });

  test("while traffic is unknown a ladder of powers of two, most value first", () => {
    const traffic = new Demand(shapes);
    const savings = new Savings(createCosts(planned, SEED));
    const captured = [...tops];
    for (;;) {
      const next = choice(traffic, { savings, held: heldOf(planned, ...captured) });
      if (next?.rule !== "ladder") break;
      captured.push(next.graph.id);
    }
    // 64 serves the octaves below it as fast as their own graphs do: both kinds are worth the same.
    expect(captured.slice(2, 4).sort()).toEqual(["FULL:64", "PIECEWISE:64"]);
    expect(captured).not.toContain("FULL:24");
  });

  test("with known traffic the graph that spares it most per second of stall", () => {
    const traffic = new Demand(shapes);
    traffic.add(shapes.bucketOf(mixed(100)), 500, 1, 0);
    expect(choice(traffic)).toMatchObject({ graph: { id: "PIECEWISE:128" }, rule: "value" });
    const captures = new Map(planned.map(({ id }) => [id, { seconds: 0.03, bytes: 0 }]));
    captures.set("PIECEWISE:128", { seconds: 9, bytes: 0 });
    const savings = new Savings(createCosts(planned, { ...SEED, captures }));
    expect(choice(traffic, { savings })?.graph.id).not.toBe("PIECEWISE:128");
  });

  test("when nothing is worth anything the largest of the rest, and then nothing", () => {
    const traffic = new Demand(shapes);
    expect(choice(traffic, { expected: [] })).toMatchObject({
      graph: { id: "PIECEWISE:256" },
      value: 0,
      rule: "rest",
    });
    const all = heldOf(planned, ...planned.map(({ id }) => id));
    expect(choice(traffic, { held: all })).toBeUndefined();
  });
});
