import { describe, expect, test } from "vitest";
import { Announced } from "../../src/schedule/announced.ts";
import { aheadChoice, isCheapMoment } from "../../src/schedule/costed/ahead.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { EngineLoad, workSeconds } from "../../src/schedule/costed/load.ts";
import { ofUseTo } from "../../src/schedule/costed/of-use.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, heldOf, mixed, SEED, seen } from "./seed.ts";

const planned = plan(8, 64, 128, 256, 512);
const costs = createCosts(planned, SEED);

/** An engine that has been at it for minutes: 10 reports a second of what `steps` gives. */
function loaded(requests: number, steps: ReturnType<typeof seen>[]): EngineLoad {
  const load = new EngineLoad();
  const { buckets, servers } = costs.shapes.placed(steps);
  const work = steps.reduce(
    (sum, step, at) => sum + workSeconds(costs, step, buckets[at], servers[at] ?? -1),
    0,
  );
  for (let report = 0; report < 3000; report++) load.pass(report / 10, requests, work);
  return load;
}

describe("the engine's load", () => {
  test("steps at their fixed cost are no utilisation, however busy the engine is", () => {
    expect(loaded(8, [seen(decode(8), "FULL:8", 20, 0.005)]).utilisation).toBe(0);
    // Nor is what a step takes because its graph is missing.
    expect(loaded(8, [seen(decode(8), "", 10, 0.01)]).utilisation).toBe(0);
    expect(loaded(8, [seen(decode(8), "FULL:512", 7, 0.014)]).utilisation).toBeCloseTo(0, 6);
  });

  test("nor what their size costs in a graph: the curve of batch sizes is known", () => {
    expect(loaded(512, [seen(decode(512), "FULL:512", 7, 0.014)]).utilisation).toBe(0);
  });

  test("what comes to it with each request is", () => {
    // 20 ms with the attention over contexts, of which 14 are the graph's: 30% of the time.
    const load = loaded(512, [seen(decode(512), "FULL:512", 5, 0.02)]);
    expect(load.utilisation).toBeGreaterThan(0.28);
    expect(load.utilisation).toBeLessThan(0.32);
    expect(load.requests).toBeCloseTo(512, 0);
    // Prompts beyond the largest graph: all of it but an ungraphed step's fixed cost.
    expect(loaded(4, [seen(mixed(8192), "", 1, 0.1)]).utilisation).toBeCloseTo(0.9, 2);
  });

  test("knows how many requests were at hand how often", () => {
    const load = new EngineLoad();
    for (let report = 0; report < 300; report++) load.pass(report / 10, report % 10 ? 64 : 4, 0);
    expect(load.belowShare(4)).toBe(0);
    expect(load.belowShare(64)).toBeCloseTo(0.1, 2);
    expect(load.belowShare(500)).toBe(1);
  });
});

test("a batch falls while it is well below what it was a moment ago", () => {
  const load = new EngineLoad();
  for (let report = 0; report < 300; report++) load.pass(report / 10, 100, 0);
  expect(load.isFalling(90)).toBe(false);
  expect(load.isFalling(80)).toBe(true);
  for (let report = 300; report < 500; report++) load.pass(report / 10, 80, 0);
  expect(load.isFalling(80)).toBe(false);
});

test("of use to a batch are the graphs that it would run faster in, and any for prompts", () => {
  const held = heldOf(planned, "FULL:256", "PIECEWISE:512");
  const isOfUse = ofUseTo(60, { savings: new Savings(costs), held, decode: 1 });
  const ids = planned.filter((_, place) => isOfUse(place)).map(({ id }) => id);
  expect(ids.filter((id) => id.startsWith("FULL"))).toEqual(["FULL:128", "FULL:64"]);
  expect(ids.filter((id) => id.startsWith("PIECEWISE"))).toHaveLength(5);
});

test("earlier starts tell what is a cheap moment, until this one's own time has passed", () => {
  const load = new EngineLoad();
  load.expect(27, 64);
  load.expect(3, 4);
  load.pass(0, 200, 0);
  load.pass(1, 200, 0);
  // All there was of this start had 200 at hand: 100 is the fewest, but not of all times.
  expect(isCheapMoment(load, 100)).toBe(false);
  expect(isCheapMoment(load, 4)).toBe(true);
  for (let second = 2; second < 300; second++) load.pass(second, 200, 0);
  expect(isCheapMoment(load, 100)).toBe(true);
});

describe("captures ahead of a rising load", () => {
  const choose = (engine: EngineLoad, requests: number, ...captured: string[]) =>
    aheadChoice({
      savings: new Savings(costs),
      held: heldOf(planned, "FULL:512", "PIECEWISE:512", "FULL:64", ...captured),
      engine,
      decode: 1,
      priceOf: (stallSeconds) => stallSeconds * requests,
    });
  const steps = (perReport: number) => [
    seen(decode(64), "FULL:64", 1, 0.005),
    seen(mixed(8192), "", 1, 0.01 + perReport),
  ];

  test("none where a load that would need them is far, at once where it is near", () => {
    expect(choose(loaded(60, steps(0.005)), 60)).toBeUndefined();
    const choice = choose(loaded(60, steps(0.075)), 60);
    expect(choice).toMatchObject({ graph: { kind: "FULL" } });
    expect(choice?.rise).toBeGreaterThan(1);
    expect(choice?.rise).toBeLessThan(1.4);
    expect(choice?.value).toBeGreaterThanOrEqual(choice?.price ?? Number.POSITIVE_INFINITY);
  });

  test("at a cheap moment only, and nothing that is there or saves nothing", () => {
    const near = loaded(60, steps(0.075));
    expect(isCheapMoment(near, 120)).toBe(false);
    expect(isCheapMoment(near, 60)).toBe(true);
    expect(choose(near, 60, "FULL:128", "FULL:256")).toBeUndefined();
  });
});

describe("announced arrivals", () => {
  test("are reached by a stall that ends after them, until they are a second late", () => {
    const announced = new Announced();
    announced.add(10, 5, 3);
    expect(announced.during(14, 0.5)).toBe(0);
    expect(announced.during(14.6, 0.5)).toBe(3);
    expect(announced.waitSeconds(14.6, 0.5)).toBeCloseTo(1.4, 9);
    expect(announced.during(16, 0.5)).toBe(3);
    expect(announced.during(16.1, 0.5)).toBe(0);
    expect(announced.waitSeconds(16.1, 0.5)).toBe(0);
  });

  test("one after the other are waited for together", () => {
    const announced = new Announced();
    announced.add(0, 1, 1);
    announced.add(0, 2.2, 1);
    announced.add(0, 9, 1);
    expect(announced.waitSeconds(0.9, 0.5)).toBeCloseTo(3.2 - 0.9, 9);
  });

  test("are bounded in number, and the nearest are kept", () => {
    const announced = new Announced();
    for (let index = 100; index > 0; index--) announced.add(0, index, 1);
    expect(announced.during(0, 1000)).toBe(16);
    expect(announced.during(0, 16)).toBe(16);
  });

  test("what is no time and no number of requests is left out", () => {
    const announced = new Announced();
    for (const inSeconds of [-1, Number.NaN, 3601, Number.POSITIVE_INFINITY]) {
      announced.add(0, inSeconds, 1);
    }
    for (const requests of [0, -1, Number.NaN]) announced.add(0, 1, requests);
    expect(announced.during(0, 1e9)).toBe(0);
    announced.add(0, 0, Number.POSITIVE_INFINITY);
    expect(announced.during(0, 1)).toBe(1_000_000);
  });
});

test("announced requests that have come are expected no more, the earliest first", () => {
  const announced = new Announced();
  announced.add(0, 1, 5);
  announced.add(0, 2, 3);
  announced.add(0, 60, 10);
  expect(announced.during(0.5, 2)).toBe(8);
  announced.came(0.9, 4);
  expect(announced.during(0.9, 2)).toBe(4);
  // More than were announced for now: nobody of those who come in a minute.
  announced.came(1.5, 40);
  expect(announced.during(1.5, 2)).toBe(0);
  expect(announced.during(1.5, 60)).toBe(10);
});
