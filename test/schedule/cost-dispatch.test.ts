import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph } from "../../src/base/graph.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { costDispatchTable } from "../../src/schedule/costed/cost-dispatch.ts";
import { dispatch } from "../../src/schedule/dispatch.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, mixed, SEED, seen } from "./seed.ts";

describe("the dispatch table by cost", () => {
  test("padding pays up to where the graph costs as much as no graph", () => {
    const planned = plan(1, 64, 256, 512);
    const costs = createCosts(planned, SEED);
    const captured = planned.filter(({ tokens }) => tokens !== 1);
    expect(costDispatchTable(captured, costs)).toEqual({
      uniform: [
        { upTo: 64, graphs: ["FULL:64"] },
        { upTo: 256, graphs: ["FULL:256"] },
      ],
      // PIECEWISE takes as long as no graph at 256, and longer at 512.
      mixed: [
        { upTo: 64, graphs: ["PIECEWISE:64"] },
        { upTo: 256, graphs: ["PIECEWISE:256"] },
      ],
    });
  });

  test("nothing captured makes an empty table, and so do graphs that never pay", () => {
    const planned = plan(1, 512);
    const costs = createCosts(planned, SEED);
    expect(costDispatchTable([], costs)).toEqual({ uniform: [], mixed: [] });
    const tops = planned.filter(({ tokens }) => tokens === 512);
    expect(costDispatchTable(tops, costs).mixed).toEqual([]);
  });

  test("no choice that the costs allow is cheaper than the table's", () => {
    const sizes = fc.uniqueArray(fc.integer({ min: 1, max: 512 }), { minLength: 1, maxLength: 16 });
    const plans = sizes.chain((tokens) => {
      const planned = plan(...tokens).flatMap((graph): Graph[] =>
        // Some engines have FULL graphs for mixed steps too, with a limit of requests.
        graph.kind === "FULL" && graph.tokens % 2 === 0
          ? [graph, { id: `${graph.id}m`, kind: "FULL", tokens: graph.tokens, requests: 3 }]
          : [graph],
      );
      const reports = fc.array(
        fc.record({
          place: fc.integer({ min: -1, max: planned.length - 1 }),
          tokens: fc.integer({ min: 1, max: 512 }),
          ms: fc.integer({ min: 1, max: 40 }),
        }),
        { maxLength: 30 },
      );
      return fc.record({
        planned: fc.constant(planned),
        captured: fc.subarray(planned),
        reports,
        tokens: fc.integer({ min: 1, max: 520 }),
        requests: fc.integer({ min: 1, max: 6 }),
        isDecode: fc.boolean(),
      });
    });
    fc.assert(
      fc.property(plans, ({ planned, captured, reports, tokens, requests, isDecode }) => {
        const costs = createCosts(planned, SEED);
        for (const report of reports) {
          const graph = planned[report.place];
          const step = decode(graph?.tokens ?? report.tokens);
          costs.observeSteps(seen(step, graph?.id ?? "", 5, report.ms / 1000));
        }
        const table = costDispatchTable(captured, costs);
        const step = isDecode ? decode(tokens) : { ...mixed(tokens), requests };
        const byId = new Map(captured.map((graph) => [graph.id, graph]));
        const chosen = dispatch(table, byId, step);
        const ungraphed = costs.ungraphedSeconds(step).value;
        const cost = chosen === undefined ? ungraphed : costs.graphSeconds(chosen).value;
        const choices = captured
          .filter((graph) => covers(graph, step))
          .map((graph) => costs.graphSeconds(graph).value);
        if (chosen !== undefined) expect(covers(chosen, step)).toBe(true);
        expect(cost).toBe(Math.min(ungraphed, ...choices));
        const uptos = table.uniform.map((row) => row.upTo);
        expect(uptos).toEqual([...new Set(uptos)].sort((a, b) => a - b));
      }),
      { seed: 20261121, numRuns: 400 },
    );
  });
});
