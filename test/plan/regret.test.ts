import { expect, test } from "vitest";
import { RegretMeter } from "../../src/plan/regret.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import { loadProfile } from "../../src/profile/load.ts";
import type { StepsSeen } from "../../src/schedule/policy.ts";
import { plan as graphsOf } from "../helpers/fake-engine.ts";

const planned = graphsOf(1, 2, 4, 8);

function meter(): RegretMeter {
  return new RegretMeter(planned, costSeedOf(loadProfile()));
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
