import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { expectedOf, firstSteps } from "../../src/schedule/costed/earlier.ts";
import { firstGraphs, type UnknownInput, unknownGraphs } from "../../src/schedule/costed/first.ts";
import type { Prior } from "../../src/schedule/costed/prior.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { firstLadder } from "../../src/schedule/first-ladder.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, graphOf, SEED } from "./seed.ts";

const planned = plan(1, 8, 16, 32, 64, 128, 256, 512);
const costs = createCosts(planned, SEED);
/** Of each capture: the seed knows none. */
const SECONDS = 0.03;

/** Decode steps of so many requests, with as many at hand. */
const row = (requests: number, steps: number) => ({
  tokens: requests,
  uniform: 1,
  steps,
  requestSteps: steps * requests,
});

/** Ids of what comes before ready. */
function chosen(prior: Omit<Prior, "first">, requests: number, more = {}): string[] {
  const first = ["FULL:16", "FULL:64"];
  const { graphs } = firstGraphs({
    savings: new Savings(costs),
    learned: first.map((id) => graphOf(planned, id)),
    expected: expectedOf({ ...prior, first }, costs, "idle" in more),
    waiting: firstSteps(requests, 1, 32, costs.shapes),
    requests,
    decode: 1,
    share: 0.6,
    warmUpShare: 0,
    secondsMax: 2,
    ...more,
  });
  const ids = graphs.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  return ids;
}

describe("before ready, with a plan", () => {
  const busy = { traffic: [row(64, 10_000), row(128, 10_000), row(256, 10_000)] };

  test("comes what is dearer later, the fewer the more wait for it", () => {
    const few = chosen(busy, 4);
    expect(few).toEqual(expect.arrayContaining(["FULL:64", "FULL:128", "FULL:256"]));
    const many = chosen(busy, 150);
    // Who waits needs one for their own steps; 64 can wait until fewer are held up.
    expect(many).toContain("FULL:256");
    expect(many).not.toContain("FULL:64");
    expect(many.length).toBeLessThan(few.length);
  });

  test("nobody waits, or nobody knows: as if the usual number did", () => {
    const traffic = [row(8, 30_000), row(256, 10_000)];
    expect(chosen({ traffic }, 0)).toEqual(chosen({ traffic }, 8));
    expect(chosen({ traffic: [] }, 0)).toEqual(["FULL:16"]);
  });

  test("an engine that rests captures then what is not needed at once", () => {
    const rests = { traffic: [row(1, 1000), row(64, 10_000), row(128, 10_000)] };
    expect(chosen(rests, 0)).toHaveLength(2);
    expect(chosen(rests, 0, { idle: true })).toHaveLength(1);
    // A single request in one of ten thousand steps is no rest.
    const busier = { traffic: [row(1, 2), row(64, 10_000), row(128, 10_000)] };
    expect(chosen(busier, 0, { idle: true })).toHaveLength(2);
  });

  test("in lazy mode what an idle moment takes for less waits for one", () => {
    const seldom = (alone: number, two: number) =>
      chosen({ traffic: [row(1, alone), row(2, two), row(128, 10)] }, 1);
    expect(seldom(1000, 1_000_000)).toContain("FULL:128");
    expect(seldom(1_000_000, 1000)).not.toContain("FULL:128");
  });

  test("a plan for another load leaves those who wait their graph", () => {
    expect(chosen({ traffic: [row(8, 10_000)] }, 100)).toContain("FULL:256");
    expect(chosen({ traffic: [row(8, 10_000)] }, 4)).not.toContain("FULL:256");
  });

  test("a heavy load's larger batches too, where later moments are no cheaper", () => {
    const traffic = [row(64, 10_000)];
    const loaded = (workSeconds: number) => ({ traffic, load: { seconds: 100, workSeconds } });
    expect(chosen(loaded(5), 20)).not.toContain("FULL:256");
    const heavy = chosen(loaded(70), 20);
    expect(heavy).toEqual(expect.arrayContaining(["FULL:64", "FULL:128", "FULL:256"]));
    expect(chosen(loaded(70), 400)).not.toContain("FULL:128");
  });

  test("takes at most its time, but for the first graph", () => {
    expect(chosen(busy, 4, { secondsMax: 0 })).toHaveLength(1);
    const two = chosen(busy, 4, { secondsMax: 2 * 0.6 * SECONDS });
    expect(two).toHaveLength(2);
  });

  test("looks are bounded where FULL graphs serve mixed steps, a lane for each limit", () => {
    const sizes = Array.from({ length: 256 }, (_, index) => index + 1);
    const many: Graph[] = sizes.map((tokens) => {
      return { id: `FULL:${tokens}`, kind: "FULL", tokens, requests: tokens };
    });
    const manyCosts = createCosts(many, SEED);
    let looks = 0;
    class Counted extends Savings {
      override of(...[held, steps]: Parameters<Savings["of"]>): Float64Array {
        const lanes = [...steps];
        looks += lanes.length * many.length;
        return super.of(held, lanes);
      }
    }
    const traffic = sizes.map((requests) => row(requests, 10_000));
    const expected = expectedOf({ traffic, first: [] }, manyCosts, false);
    expect(expected.requestSteps.length).toBeGreaterThan(100);
    const { graphs } = firstGraphs({
      savings: new Counted(manyCosts),
      learned: many,
      expected,
      waiting: [],
      requests: 4,
      decode: 1,
      share: 0.6,
      warmUpShare: 0,
      secondsMax: 2,
    });
    expect(graphs.length).toBeGreaterThan(0);
    // Half a million and one round more; without the lanes it would be tens of millions.
    expect(looks).toBeLessThan(1_000_000);
  });
});

describe("before ready, where nothing is known of the traffic", () => {
  const everySize = (waiting: number) => {
    const lane = costs.shapes.laneOf(decode(1));
    const weights = new Float64Array(costs.shapes.sizes.length).fill(4);
    return [{ lane, weights }, ...firstSteps(waiting, 1, 32, costs.shapes)];
  };
  const start = (more: Partial<UnknownInput> = {}) => {
    const { graphs, more: rest = [] } = unknownGraphs({
      savings: new Savings(costs),
      expected: everySize(more.requests ?? 0),
      requests: 0,
      decode: 1,
      share: 0.6,
      warmUpShare: 0.4,
      foreign: false,
      ...more,
    });
    return { graphs: graphs.map(({ id }) => id), more: rest.map(({ id }) => id) };
  };
  const tops = ["PIECEWISE:512", "FULL:512"];

  test("come the tops alone where a thirtieth of stock holds no more", () => {
    // 16 graphs of 30 ms: a thirtieth is less than the tops.
    expect(start()).toEqual({ graphs: tops, more: [] });
  });

  test("come the tops, and as many others as the budget holds, by value", () => {
    const many = plan(...Array.from({ length: 64 }, (_, index) => 8 * (index + 1)));
    const wide = createCosts(many, SEED);
    const lane = wide.shapes.laneOf(decode(1));
    const weights = new Float64Array(wide.shapes.sizes.length).fill(4);
    const input = { savings: new Savings(wide), expected: [{ lane, weights }] };
    // Stock: 128 times 30 ms. A thirtieth: 128 ms, of which the tops take 60 and each other 18.
    const { graphs, more } = start(input);
    expect(more).toEqual([]);
    expect(graphs.slice(0, 2)).toEqual(tops);
    expect(graphs).toHaveLength(5);
    for (const id of graphs.slice(2)) expect(id).toMatch(/^FULL:/);
    // Who waits needs one for their own steps first.
    const waiting = firstSteps(100, 1, 32, wide.shapes);
    const [, , first] = start({ ...input, expected: waiting, requests: 100 }).graphs;
    expect(first).toBe("FULL:152");
    // What costs them less right after ready comes then.
    expect(start({ ...input, requests: 100, share: 1.5 }).graphs).toEqual(tops);
    expect(start({ ...input, share: 1.5 }).graphs.length).toBeGreaterThan(2);
  });

  test("an engine that nobody knows gets the ladder, and reckons its budget by itself", () => {
    const ladder = firstLadder(planned).map(({ id }) => id);
    expect(start({ foreign: true })).toEqual({ graphs: tops, more: ladder });
    // Its first graph serves up to 64, those who wait among them.
    expect(start({ foreign: true, requests: 20 }).more).toEqual(ladder);
    const waiting = start({ foreign: true, requests: 70 }).more;
    expect(waiting[0]).toBe("FULL:128");
    expect(waiting).toHaveLength(ladder.length);
    expect([...waiting].sort()).toEqual([...ladder].sort());
  });
});
