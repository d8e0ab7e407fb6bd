import fc from "fast-check";
import { expect, test } from "vitest";
import { idealGraph } from "../../src/base/graph.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { createCostPolicy } from "../../src/schedule/costed/costed.ts";
import { StepObserver } from "../../src/schedule/costed/observer.ts";
import type { StepsSeen } from "../../src/schedule/policy.ts";
import { createEngineState } from "../../src/schedule/state.ts";
import { plan as graphsOf } from "../helpers/fake-engine.ts";

const planned = graphsOf(1, 2, 4, 8);

/** Regret of the reports that it is told. */
function meter(observer = new StepObserver(planned, costSeedOf(loadProfile()))) {
  return {
    observe: (steps: readonly StepsSeen[]) => observer.observe(steps, 0, 0).regretSeconds,
  };
}

function seen(tokens: number, served: string, more: Partial<StepsSeen> = {}): StepsSeen {
  const common = { requests: tokens, uniform: 1, count: 10, seconds: 0, timed: 0 };
  return { tokens, served, contextTokens: 0, ...common, ...more };
}

test("steps in their ideal graph, and those that stock runs ungraphed, have no regret", () => {
  expect(meter().observe([seen(4, "FULL:4"), seen(3, "FULL:4")])).toBe(0);
  expect(meter().observe([seen(9, ""), seen(4096, "", { uniform: 0 })])).toBe(0);
  expect(meter().observe([seen(4, "", { count: 0 })])).toBe(0);
  expect(meter().observe([])).toBe(0);
});

test("an ungraphed step of a small batch costs some milliseconds, and each step of a report", () => {
  // By the profile a graph halves the step of some 10 ms.
  const ten = meter().observe([seen(4, "")]);
  expect(ten / 10).toBeGreaterThan(0.003);
  expect(ten / 10).toBeLessThan(0.008);
  expect(meter().observe([seen(4, "", { count: 30 })])).toBeCloseTo(3 * ten, 9);
  const padded = meter().observe([seen(1, "FULL:8")]);
  expect(padded).toBeLessThan(ten);
  expect(padded).toBeGreaterThanOrEqual(0);
});

test("it follows what the engine's steps really take", () => {
  const learning = meter();
  const before = learning.observe([seen(4, "")]);
  // Ungraphed steps of 50 ms, graphs of 5 ms: not the profile's 8B on an H200.
  for (let report = 0; report < 30; report++) {
    learning.observe([
      seen(4, "", { seconds: 0.5, timed: 10 }),
      seen(4, "FULL:4", { seconds: 0.05, timed: 10 }),
    ]);
  }
  const after = learning.observe([seen(4, "")]);
  expect(after).toBeGreaterThan(5 * before);
  expect(after / 10).toBeCloseTo(0.045, 2);
});

test("a graph that isn't in the plan counts as none", () => {
  expect(meter().observe([seen(4, "FULL:3")])).toBe(meter().observe([seen(4, "")]));
});

test("a policy that is given the observer decides as one that observes for itself", () => {
  const costs = costSeedOf(loadProfile());
  const observer = new StepObserver(planned, costs);
  const given = createCostPolicy({ mode: "lazy", costs, observer });
  const alone = createCostPolicy({ mode: "lazy", costs });
  const state = createEngineState(planned);
  const ask = (event: Parameters<typeof given.decide>[1]) => {
    const decisions = given.decide(state, event);
    expect(alone.decide(state, event)).toEqual(decisions);
    return decisions;
  };
  ask({ type: "inventory", atSeconds: 0 });
  state.ready = true;
  state.running = 4;
  ask({ type: "ready", atSeconds: 1 });
  const captures: string[] = [];
  for (let report = 1; report < 40 && captures.length === 0; report++) {
    const atSeconds = 1 + report / 10;
    const steps = [seen(4, "", { seconds: 0.3, timed: 10 }), seen(2, "FULL:8")];
    state.waiting = report % 3;
    observer.observe(steps, state.waiting, atSeconds);
    for (const decision of ask({ type: "demand", steps, atSeconds })) {
      if (decision.type === "capture") captures.push(decision.graph.id);
    }
  }
  expect(captures).toHaveLength(1);
  expect(given.costs).toBe(observer.costs);
  expect(observer.costs.graphSeconds(planned[0] as (typeof planned)[0])).toEqual(
    alone.costs?.graphSeconds(planned[0] as (typeof planned)[0]),
  );
});

test("a policy that missed reports counts them all the same", () => {
  const costs = costSeedOf(loadProfile());
  const observer = new StepObserver(planned, costs);
  const policy = createCostPolicy({ mode: "lazy", costs, observer });
  const state = createEngineState(planned);
  policy.decide(state, { type: "inventory", atSeconds: 0 });
  state.ready = true;
  state.running = 4;
  policy.decide(state, { type: "ready", atSeconds: 1 });
  // As of an engine whose mode is set anew: what it ran before is known.
  for (let report = 0; report < 40; report++) {
    observer.observe([seen(4, "", { seconds: 0.3, timed: 10 })], 0, 1 + report / 10);
  }
  const decided = policy.decide(state, { type: "tick", atSeconds: 5 });
  expect(decided.find(({ type }) => type === "capture")).toBeDefined();
});

test("finds the graph that stock would replay, whatever the plan and the step", () => {
  const graph = fc.record(
    {
      kind: fc.constantFrom("FULL" as const, "PIECEWISE" as const),
      tokens: fc.integer({ min: 1, max: 12 }),
      requests: fc.integer({ min: 1, max: 12 }),
      uniform: fc.constantFrom(1, 2),
      loras: fc.constantFrom(0, 2),
      queryLength: fc.constantFrom(2, 4),
      microbatches: fc.constantFrom(1, 2),
    },
    { requiredKeys: ["kind", "tokens"] },
  );
  const step = fc.record(
    {
      tokens: fc.integer({ min: 1, max: 14 }),
      requests: fc.integer({ min: 1, max: 14 }),
      uniform: fc.constantFrom(0, 1, 2, 3),
      loras: fc.constantFrom(0, 2),
      queryLength: fc.constantFrom(1, 3),
      microbatches: fc.constantFrom(1, 2),
    },
    { requiredKeys: ["tokens", "requests", "uniform"] },
  );
  const costs = costSeedOf(loadProfile());
  fc.assert(
    fc.property(
      fc.array(graph, { minLength: 1, maxLength: 12 }),
      fc.array(step, { minLength: 1, maxLength: 20 }),
      (drawn, steps) => {
        const plan = drawn.map((one, place) => ({ ...one, id: `${one.kind}:${place}` }));
        const observer = new StepObserver(plan, costs);
        const lengths = new Set<number>(plan.flatMap(({ uniform }) => uniform ?? []));
        for (const one of steps) {
          const uniform = lengths.has(one.uniform) ? one.uniform : 0;
          expect(observer.ideal(one)).toBe(idealGraph(plan, { ...one, uniform }));
        }
      },
    ),
    { seed: 20261129, numRuns: 2000 },
  );
});
