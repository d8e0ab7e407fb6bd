import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph, idealGraph, type StepShape, topGraphs } from "../../src/base/graph.ts";
import { caseRounding } from "../../src/schedule/cases.ts";
import { Accounts } from "../../src/schedule/costed/accounts.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { costDispatchTable } from "../../src/schedule/costed/cost-dispatch.ts";
import { Demand } from "../../src/schedule/costed/demand.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { Held } from "../../src/schedule/costed/shapes.ts";
import { dispatch, dispatchTable } from "../../src/schedule/dispatch.ts";
import type { DispatchTable } from "../../src/schedule/policy.ts";
import { exactTable } from "../../src/sim/virtual/comparators/exact.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, mixed, SEED } from "./seed.ts";

/** The same graphs for steps of another case. */
function variant(graphs: readonly Graph[], suffix: string, its: Partial<Graph>): Graph[] {
  return graphs.map((graph) => ({ ...graph, id: `${graph.id}:${suffix}`, ...its }));
}

const plain = plan(1, 8, 64);
const adapted = variant(plain, "l2", { loras: 2 });
const split = variant(
  plain.filter(({ kind, tokens }) => kind === "FULL" && tokens === 64),
  "b2",
  { microbatches: 2 },
);
/** Decode graphs of any mixture, each request with at most four tokens. */
const bounded: Graph[] = [8, 64].map((tokens) => ({
  id: `FULL:${tokens}:mixed:q4`,
  kind: "FULL",
  tokens,
  requests: tokens,
  queryLength: 4,
}));
const all = [...plain, ...adapted, ...split, ...bounded];

const some = <T>(name: string, value: T | undefined): object =>
  value === undefined ? {} : { [name]: value };

/** Shapes that steps can have: of `requests` requests each has `each` tokens, one maybe more. */
const steps: fc.Arbitrary<StepShape> = fc
  .record({
    requests: fc.integer({ min: 1, max: 40 }),
    each: fc.constantFrom(1, 2, 4),
    more: fc.constantFrom(0, 0, 1, 2, 9),
    loras: fc.constantFrom(undefined, 0, 1, 2),
    isBounded: fc.boolean(),
    microbatches: fc.constantFrom(undefined, 1, 2),
  })
  .map(({ requests, each, more, loras, isBounded, microbatches }) => ({
    tokens: requests * each + more,
    requests,
    uniform: more === 0 || requests === 1 ? each + more : 0,
    ...some("loras", loras),
    ...some("queryLength", isBounded ? each + more : undefined),
    ...some("microbatches", microbatches),
  }));

/** vLLM 0.33's rule with its own names: `None` is undefined, and absent fields are its defaults. */
function isCompatible(desc: Graph, step: StepShape): boolean {
  const activeLoras = step.loras ?? 0;
  const ubatches = step.microbatches ?? 1;
  const uniformTokenCount = step.uniform === 0 ? undefined : step.uniform;
  return (
    (desc.uniform === undefined || desc.uniform === uniformTokenCount) &&
    (desc.requests === undefined || desc.requests >= step.requests) &&
    (desc.queryLength === undefined ||
      (step.queryLength !== undefined && desc.queryLength >= step.queryLength)) &&
    desc.tokens >= step.tokens &&
    (desc.loras ?? 0) === activeLoras &&
    (desc.microbatches ?? 1) === ubatches
  );
}

interface Covering {
  readonly name: string;
  readonly graph: Graph;
  readonly step: StepShape;
  readonly covers: boolean;
}

/** Read by the plugin's tests too, so that both sides have one rule. */
const golden = JSON.parse(
  gunzipSync(readFileSync(new URL("../golden/covers.json.gz", import.meta.url))).toString(),
) as readonly Covering[];

describe("what a graph covers", () => {
  test.for(golden.map((one) => [one.name, one] as const))("%s", ([, one]) => {
    expect(covers(one.graph, one.step)).toBe(one.covers);
    expect(isCompatible(one.graph, one.step)).toBe(one.covers);
  });

  test("is what vLLM's own rule says", () => {
    let covered = 0;
    fc.assert(
      fc.property(fc.constantFrom(...all), steps, (graph, step) => {
        const expected = isCompatible(graph, step);
        if (expected) covered++;
        expect(covers(graph, step)).toBe(expected);
      }),
      { numRuns: 5000 },
    );
    expect(covered, "steps that a graph covers").toBeGreaterThan(50);
  });

  test("a prompt never runs in a graph that bounds its requests", () => {
    const [small] = bounded;
    if (small === undefined) throw new Error("no graph");
    const step = { tokens: 6, requests: 2, uniform: 0 };
    expect(covers(small, step)).toBe(false);
    expect(covers(small, { ...step, queryLength: 4 })).toBe(true);
    expect(covers(small, { ...step, queryLength: 5 })).toBe(false);
  });
});

describe("the ideal graph", () => {
  test("is looked for among those of the step's adapters", () => {
    const few = [...plan(8, 64), ...variant(plan(64), "l2", { loras: 2 })];
    expect(idealGraph(few, decode(3))?.id).toBe("FULL:8");
    expect(idealGraph(few, { ...decode(3), loras: 2 })?.id).toBe("FULL:64:l2");
    expect(idealGraph(few, { ...decode(3), loras: 1 })).toBeUndefined();
  });

  test("there is a top of each case", () => {
    expect(topGraphs(all).map(({ id }) => id)).toEqual([
      "PIECEWISE:64",
      "PIECEWISE:64:l2",
      "FULL:64",
      "FULL:64:l2",
      "FULL:64:b2",
      "FULL:64:mixed:q4",
    ]);
  });
});

describe("tables", () => {
  const byId = new Map(all.map((graph) => [graph.id, graph]));
  const costs = createCosts(all, SEED);
  const tables: readonly (readonly [string, DispatchTable])[] = [
    ["by size", dispatchTable(all, all)],
    ["by cost", costDispatchTable(all, costs)],
    ["exact", exactTable(all, all)],
  ];

  test.for(tables)("%s: a step gets a graph of its own case or none", ([, table]) => {
    const served = new Set<string>();
    fc.assert(
      fc.property(steps, (step) => {
        const graph = dispatch(table, byId, step);
        if (graph === undefined) return;
        served.add(graph.id);
        expect(covers(graph, step)).toBe(true);
      }),
      { numRuns: 5000 },
    );
    expect([...served].sort()).toEqual(expect.arrayContaining(["FULL:64:b2", "FULL:8:l2"]));
  });

  // By cost a larger graph that is no dearer may come first.
  test.for(tables.filter(([name]) => name !== "by cost"))(
    "%s: with all captured a step gets a graph of its ideal one's size",
    ([, table]) => {
      let ideals = 0;
      fc.assert(
        fc.property(steps, (step) => {
          const ideal = idealGraph(all, step);
          if (ideal === undefined) return;
          ideals++;
          expect(dispatch(table, byId, step)?.tokens).toBe(ideal.tokens);
        }),
        { numRuns: 2000 },
      );
      expect(ideals).toBeGreaterThan(100);
    },
  );

  test("a short mixed step takes the decode graph, a prompt the one for any length", () => {
    for (const [, table] of tables) {
      const step = { tokens: 6, requests: 2, uniform: 0 };
      expect(dispatch(table, byId, { ...step, queryLength: 4 })?.id).toBe("FULL:8:mixed:q4");
      expect(dispatch(table, byId, step)?.id).toBe("PIECEWISE:8");
    }
  });

  test("without cases a table is what it was", () => {
    const more = dispatchTable(plain, [...plain]);
    expect(more.uniform).toEqual([
      { upTo: 1, graphs: ["FULL:1"] },
      { upTo: 8, graphs: ["FULL:8"] },
      { upTo: 64, graphs: ["FULL:64"] },
    ]);
  });
});

describe("demand by case", () => {
  test("an account of graphs for two adapters fills by their steps alone", () => {
    const accounts = new Accounts(new Savings(createCosts(all, SEED)));
    const held = new Held(all.length);
    accounts.book({ ...decode(8), loras: 2 }, 10, 8);
    const inCredit = all.filter((_, place) => (accounts.balances(held)[place] ?? 0) > 0);
    expect(inCredit.map(({ loras }) => loras)).toEqual(inCredit.map(() => 2));
    expect(inCredit.map(({ id }) => id)).toContain("FULL:8:l2");
  });

  test("traffic remembers each case for itself, and what no graph serves not at all", () => {
    const { shapes } = createCosts(all, SEED);
    const traffic = new Demand(shapes);
    const step = { ...mixed(8), queryLength: 3 };
    traffic.add(shapes.bucketOf(step), 1, 5, 0);
    traffic.add(shapes.bucketOf({ ...decode(8), loras: 7 }), 1, 5, 0);
    expect(traffic.steps).toBe(1);
    expect(traffic.weight({ ...step, queryLength: 4 }, 0)).toBe(5);
    expect(traffic.weight({ ...step, queryLength: 5 }, 0)).toBe(0);
    expect(traffic.weight({ ...step, loras: 2 }, 0)).toBe(0);
  });

  test("however many cases are reported, there are no more than the graphs tell apart", () => {
    const round = caseRounding(all);
    const seen = new Set<string>();
    for (let loras = 0; loras < 100; loras++) {
      for (let queryLength = 1; queryLength < 100; queryLength++) {
        seen.add(JSON.stringify(round({ loras, queryLength, microbatches: 1 })));
      }
    }
    expect([...seen].sort()).toEqual(
      [{}, { queryLength: 4 }, { loras: -1 }, { loras: 2 }, { loras: 2, queryLength: 4 }]
        .map((one) => JSON.stringify(one))
        .sort(),
    );
  });
});
