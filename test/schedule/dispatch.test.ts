import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph, type StepShape } from "../../src/base/graph.ts";
import {
  dispatch,
  dispatchTable,
  PAD_LIMIT,
  paddedTokensMax,
} from "../../src/schedule/dispatch.ts";

const full = (tokens: number, uniform?: number): Graph => ({
  id: `FULL:${tokens}${uniform === undefined ? "" : `u${uniform}`}`,
  kind: "FULL",
  tokens,
  requests: Math.ceil(tokens / (uniform ?? 1)),
  ...(uniform === undefined ? {} : { uniform }),
});
const piece = (tokens: number): Graph => ({ id: `PIECEWISE:${tokens}`, kind: "PIECEWISE", tokens });

describe("dispatchTable", () => {
  test("a step takes the smallest captured graph, FULL first, and pads up to 64 or 1.25 × n", () => {
    const captured = [piece(512), full(512, 1), full(64, 1), piece(8), full(8, 1)];
    const planned = [...captured, full(480, 1), piece(480)];
    expect(dispatchTable(planned, captured)).toEqual({
      uniform: [
        { upTo: 8, graphs: ["FULL:8u1"] },
        { upTo: 64, graphs: ["FULL:64u1"] },
        { upTo: 409, graphs: [] },
        { upTo: 512, graphs: ["FULL:512u1"] },
      ],
      mixed: [
        { upTo: 8, graphs: ["PIECEWISE:8"] },
        { upTo: 409, graphs: [] },
        { upTo: 512, graphs: ["PIECEWISE:512"] },
      ],
    });
  });

  test("the size that stock would take is always allowed, however far it pads", () => {
    const planned = [full(256, 1), piece(256), full(512, 1), piece(512)];
    expect(dispatchTable(planned, [full(256, 1), piece(512)])).toEqual({
      uniform: [
        { upTo: 256, graphs: ["FULL:256u1"] },
        { upTo: 512, graphs: ["PIECEWISE:512"] },
      ],
      mixed: [
        { upTo: 256, graphs: [] },
        { upTo: 512, graphs: ["PIECEWISE:512"] },
      ],
    });
  });

  test("a uniform batch of prompts is no decode step", () => {
    const captured = [full(64, 1), piece(64)];
    const byId = new Map(captured.map((graph) => [graph.id, graph]));
    const table = dispatchTable(captured, captured);
    const prompts = dispatch(table, byId, { tokens: 60, requests: 2, uniform: 30 });
    expect(prompts?.id).toBe("PIECEWISE:64");
  });

  test("nothing captured makes an empty table", () => {
    expect(dispatchTable([full(8, 1)], [])).toEqual({ uniform: [], mixed: [] });
  });

  test("a FULL graph for fewer requests than tokens is followed by one for any number", () => {
    const narrow: Graph = { ...full(256), requests: 16 };
    const captured = [narrow, piece(256)];
    expect(dispatchTable(captured, captured).mixed.at(-1)).toEqual({
      upTo: 256,
      graphs: [narrow.id, "PIECEWISE:256"],
    });
  });

  test("when drafting, uniform rows hold graphs of the decode length only", () => {
    const captured = [full(16, 4), full(16), piece(16)];
    const table = dispatchTable(captured, captured);
    expect(table.uniform).toEqual([{ upTo: 16, graphs: ["FULL:16u4"] }]);
    expect(table.mixed).toEqual([{ upTo: 16, graphs: ["FULL:16"] }]);
  });

  test("the pad limit can be set", () => {
    const captured = [full(512, 1)];
    const table = dispatchTable(captured, captured, { tokens: 512, factor: 1 });
    expect(table.uniform).toEqual([{ upTo: 512, graphs: ["FULL:512u1"] }]);
  });
});

const sizes = fc.uniqueArray(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 24 });
const decode = fc.constantFrom(1, 1, 3);
/** A plan in vLLM's shapes, and what of it is captured. */
const plans = fc.tuple(sizes, decode, fc.boolean()).chain(([tokens, length, mixedFull]) => {
  const planned = tokens.flatMap((n): Graph[] => [
    piece(n),
    full(n, length),
    ...(mixedFull ? [{ ...full(n), requests: Math.min(n, 64) }] : []),
  ]);
  return fc.record({
    planned: fc.constant(planned),
    captured: fc.subarray(planned),
    length: fc.constant(length),
  });
});
const shapes = (length: number): fc.Arbitrary<StepShape> =>
  fc.oneof(
    fc
      .integer({ min: 1, max: 256 })
      .map((requests) => ({ tokens: requests * length, requests, uniform: length })),
    fc
      .tuple(fc.integer({ min: 1, max: 800 }), fc.integer({ min: 1, max: 256 }))
      .map(([tokens, requests]) => ({ tokens, requests: Math.min(tokens, requests), uniform: 0 })),
  );

/** The largest that a step may take: by the pad limit, or the next planned size. */
function reachOf(planned: readonly Graph[], tokens: number): number {
  const next = planned.map((graph) => graph.tokens).filter((size) => size >= tokens);
  return Math.max(paddedTokensMax(tokens, PAD_LIMIT), next.length === 0 ? 0 : Math.min(...next));
}

describe("any table", () => {
  test("serves each step as a search over all captured graphs would", () => {
    const cases = plans.chain((plan) => fc.tuple(fc.constant(plan), shapes(plan.length)));
    fc.assert(
      fc.property(cases, ([{ planned, captured }, step]) => {
        const table = dispatchTable(planned, captured);
        const byId = new Map(planned.map((graph) => [graph.id, graph]));
        const served = dispatch(table, byId, step);
        const allowed = captured
          .filter((graph) => covers(graph, step))
          .filter((graph) => graph.tokens <= reachOf(planned, step.tokens))
          .filter((graph) => step.uniform > 0 || graph.uniform === undefined);
        const least = Math.min(...allowed.map((graph) => graph.tokens));
        const best = allowed.filter((graph) => graph.tokens === least);
        const wanted =
          best.find((graph) => graph.kind === "FULL" && graph.uniform !== undefined) ??
          best.find((graph) => graph.kind === "FULL") ??
          best[0];
        expect(served?.id).toBe(wanted?.id);
      }),
      { numRuns: 3000 },
    );
  });

  test("rows rise, differ from their neighbours, and name captured graphs of the right shape", () => {
    fc.assert(
      fc.property(plans, ({ planned, captured, length }) => {
        const byId = new Map(captured.map((graph) => [graph.id, graph]));
        const table = dispatchTable(planned, captured);
        for (const [name, rows] of Object.entries(table)) {
          let previous: { upTo: number; graphs: readonly string[] } = { upTo: 0, graphs: ["?"] };
          for (const row of rows) {
            expect(row.upTo).toBeGreaterThan(previous.upTo);
            expect(row.graphs).not.toEqual(previous.graphs);
            for (const id of row.graphs) {
              const graph = byId.get(id);
              expect(graph).toBeDefined();
              expect(graph?.tokens).toBeGreaterThanOrEqual(row.upTo);
              expect(graph?.tokens).toBeLessThanOrEqual(reachOf(planned, row.upTo));
              expect([undefined, name === "mixed" ? undefined : length]).toContain(graph?.uniform);
            }
            previous = row;
          }
        }
      }),
    );
  });

  test("4096 graphs stay within the protocol's rows", () => {
    const planned = Array.from({ length: 2048 }, (_, i) => [piece(i + 1), full(i + 1, 1)]).flat();
    const table = dispatchTable(planned, planned);
    expect(table.uniform.length).toBeLessThanOrEqual(4096);
    expect(table.uniform.every((row) => row.graphs.length <= 64)).toBe(true);
  });
});
