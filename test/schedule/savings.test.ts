import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { covers, type Graph, type StepShape } from "../../src/base/graph.ts";
import { Accounts } from "../../src/schedule/costed/accounts.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { HELD } from "../../src/schedule/costed/shapes.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, heldOf, mixed, SEED, seen } from "./seed.ts";

/** FULL and PIECEWISE, some FULL ones for mixed steps with a limit of requests. */
const plans = fc
  .uniqueArray(fc.integer({ min: 1, max: 512 }), { minLength: 1, maxLength: 14 })
  .map((tokens) =>
    plan(...tokens).flatMap((graph): Graph[] =>
      graph.kind === "FULL" && graph.tokens % 2 === 0
        ? [graph, { id: `${graph.id}m`, kind: "FULL", tokens: graph.tokens, requests: 3 }]
        : [graph],
    ),
  );
const steps = fc.array(
  fc.record({
    tokens: fc.integer({ min: 1, max: 520 }),
    isDecode: fc.boolean(),
    requests: fc.integer({ min: 1, max: 5 }),
    count: fc.integer({ min: 1, max: 50 }),
  }),
  { maxLength: 30 },
);
const reports = fc.array(
  fc.record({
    tokens: fc.integer({ min: 1, max: 512 }),
    ms: fc.integer({ min: 1, max: 40 }),
    graph: fc.nat(),
  }),
  { maxLength: 12 },
);

describe("savings", () => {
  test("the trees, and the sums kept up to date, give what adding up step by step gives", () => {
    const cases = plans.chain((planned) =>
      fc.record({ planned: fc.constant(planned), captured: fc.subarray(planned), steps, reports }),
    );
    fc.assert(
      fc.property(cases, ({ planned, captured, steps: booked, reports: told }) => {
        const costs = createCosts(planned, SEED);
        for (const { tokens, ms, graph } of told) {
          const id = planned[graph % (planned.length + 1)]?.id ?? "";
          costs.observeSteps(seen(decode(tokens), id, 5, ms / 1000));
        }
        const held = heldOf(planned, ...captured.map(({ id }) => id));
        const savings = new Savings(costs);
        const kept = new Accounts(savings);
        kept.balances(held);
        const late = new Accounts(savings);
        const expected = new Float64Array(planned.length);
        for (const { tokens, isDecode, requests, count } of booked) {
          const step = isDecode ? decode(tokens) : { ...mixed(tokens), requests };
          kept.book(step, count, requests);
          late.book(step, count, requests);
          addByHand(
            expected,
            planned,
            captured,
            step,
            (graph, size) => {
              const ungraphed = costs.ungraphedSeconds(size).value;
              return graph === undefined ? ungraphed : costs.graphSeconds(graph).value;
            },
            count * requests,
          );
        }
        for (const balances of [kept.balances(held), late.balances(held)]) {
          balances.forEach((balance, place) => {
            expect(balance).toBeCloseTo(expected[place] ?? 0, 9);
            if (held.at[place] === HELD.captured) expect(balance).toBe(0);
          });
        }
      }),
      { seed: 20261121, numRuns: 300 },
    );
  });
});

type SecondsOf = (graph: Graph | undefined, step: StepShape) => number;

/** Steps count as the planned size they round up to, if any graph serves that. */
function addByHand(
  sums: Float64Array,
  planned: readonly Graph[],
  captured: readonly Graph[],
  step: StepShape,
  secondsOf: SecondsOf,
  weight: number,
): void {
  const above = planned.map(({ tokens }) => tokens).filter((tokens) => tokens >= step.tokens);
  if (above.length === 0) return;
  const tokens = Math.min(...above);
  const size = step.uniform > 0 ? decode(tokens) : { ...step, tokens };
  const available = Math.min(
    secondsOf(undefined, size),
    ...captured.filter((graph) => covers(graph, size)).map((graph) => secondsOf(graph, size)),
  );
  for (const [place, graph] of planned.entries()) {
    if (captured.includes(graph) || !covers(graph, size)) continue;
    sums[place] = (sums[place] ?? 0) + Math.max(0, available - secondsOf(graph, size)) * weight;
  }
}
