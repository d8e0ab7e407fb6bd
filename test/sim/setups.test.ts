import { describe, expect, test } from "vitest";
import { resolveOptions } from "../../src/controller/options.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import {
  createSetup,
  POLICY_NAMES,
  type PolicyName,
  policyNamed,
} from "../../src/sim/virtual/setups.ts";
import { SimulatedPlans } from "../../src/sim/virtual/simulated-plans.ts";
import { type SimulatedRun, simulate } from "../../src/sim/virtual/virtual.ts";
import { readTrace, type TraceRequest } from "../../src/trace/trace.ts";
import { roomyProfile, tinyProfile } from "./helpers.ts";

const conversation = "azure-llm-2023-conversation";
const profile = loadProfile();

function tiny(name: PolicyName, requests: readonly TraceRequest[]): Promise<SimulatedRun> {
  const small = roomyProfile();
  return simulate({ profile: small, ...createSetup(name, small), requests });
}

describe("policies by name on the tiny engine, by hand", () => {
  const request = [{ atSeconds: 0, promptTokens: 1, outputTokens: 3 }];

  test.for([
    // Ready at 10 with every graph; three steps of 1 s.
    ["oracle", { readySeconds: 10, completionSecondsSum: 13, graphsCaptured: 4 }],
    // Both tops with their warm-up runs first: 2 s each.
    ["floor", { readySeconds: 14, completionSecondsSum: 17, graphsCaptured: 4 }],
    // All four with a warm-up run: 2 s each.
    ["stock", { readySeconds: 18, completionSecondsSum: 21, captureBeforeReadySeconds: 8 }],
    // The second graph of each kind without: 1 s each.
    ["eager", { readySeconds: 16, completionSecondsSum: 19, captureBeforeReadySeconds: 6 }],
    // Three steps of 10 s.
    ["none", { readySeconds: 10, completionSecondsSum: 40, graphsCaptured: 0 }],
    // FULL:1 in the first step (2 s), then PIECEWISE:1 (3 s) in the second.
    [
      "pr23184",
      { readySeconds: 14, completionSecondsSum: 14 + 3 + 4 + 1, stallSecondsMax: 3, stepsExact: 3 },
    ],
    // Who waits at ready has FULL:1 captured (2 s) before the first of three steps of 1 s.
    ["lazy-costed", { readySeconds: 14, stepsUngraphed: 0, completionSecondsSum: 14 + 2 + 3 }],
  ] as const)("%s", async ([name, figures]) => {
    expect(await tiny(name, request)).toMatchObject({ policy: name, requests: 1, ...figures });
  });

  test("pr23184 leaves out what doesn't fit into memory", async () => {
    const small = tinyProfile((document) => {
      (document["memory"] as Record<string, unknown>)["freeBytes"] = 65;
    });
    const run = await simulate({
      profile: small,
      ...createSetup("pr23184", small),
      requests: request,
    });
    expect(run.graphBytes).toBeLessThanOrEqual(65);
    expect(run.graphsCaptured).toBe(2);
  });
});

test("a mode's name alone is what that mode runs where nobody names a policy", () => {
  for (const mode of ["eager", "lazy", "idle"] as const) {
    const name = policyNamed(mode);
    const runs = resolveOptions({}).policy(mode, { costs: costSeedOf(profile) }).name;
    expect(createSetup(name ?? "none", profile).policy(mode).name).toBe(runs);
    expect(name).toBe(runs);
    if (mode === "eager") continue;
    const simple = `${mode}-simple` as const;
    expect(resolveOptions({ policy: "simple" }).policy(mode).name).toBe(simple);
    expect(createSetup(simple, profile).policy(mode).name).toBe(simple);
    expect(policyNamed(simple)).toBe(simple);
  }
  expect(policyNamed("toString")).toBeUndefined();
});

describe("policies on the conversation trace", () => {
  /** Request-seconds added to the oracle's, as the simulate command computes them. */
  async function added(names: readonly PolicyName[], seconds: number): Promise<number[]> {
    const sums: number[] = [];
    for (const name of ["oracle", ...names] as const) {
      const requests = readTrace(conversation, { seconds });
      const run = await simulate({ profile, ...createSetup(name, profile), requests });
      sums.push(run.completionSecondsSum);
    }
    const [oracle = 0, ...rest] = sums;
    return rest.map((sum) => sum - oracle);
  }

  test("first 300 s: idle-costed and lazy-costed are within their shares of stock and pr23184", async () => {
    const names = ["floor", "stock", "pr23184", "ladder", "lazy-costed", "idle-costed"] as const;
    const [floor = 0, stock = 0, pr23184 = 0, ladder = 0, lazy = 0, idle = 0] = await added(
      names,
      300,
    );
    expect(idle).toBeLessThanOrEqual(stock / 20);
    expect(idle).toBeLessThanOrEqual(pr23184 / 10);
    expect(lazy).toBeLessThanOrEqual(stock / 6);
    expect(idle).toBeLessThanOrEqual(lazy);
    expect(lazy).toBeLessThan(ladder);
    expect(floor).toBeLessThan(idle);
    expect(floor).toBeGreaterThan(0);
  });

  test("a second start with what the first one learned has little of its excess over floor", async () => {
    const requests = () => readTrace(conversation, { seconds: 300 });
    const setup = createSetup("idle-costed", profile);
    const learned = new SimulatedPlans(profile);
    const first = { profile, ...setup, plans: learned.engines };
    const once = await simulate({ ...first, requests: requests() });
    const plan = learned.plan();
    expect(plan).toMatchObject({ starts: 1, simulated: profile.name });
    expect(plan.first.length).toBeGreaterThan(4);
    const second = { profile, ...setup, plans: new SimulatedPlans(profile, plan).engines };
    const again = await simulate({ ...second, requests: requests() });
    const [floor = 0, idle = 0] = await added(["floor", "idle-costed"], 300);
    const excess = idle - floor;
    const saved = once.completionSecondsSum - again.completionSecondsSum;
    expect(excess - saved).toBeLessThanOrEqual(0.6 * excess);
  });

  test("every name runs, and is the name of its policy", async () => {
    for (const name of POLICY_NAMES) {
      const requests = readTrace(conversation, { seconds: 5 });
      const run = await simulate({ profile, ...createSetup(name, profile), requests });
      expect(run.policy).toBe(name);
      expect(run.requests).toBeGreaterThan(1);
    }
  });
});

test("the profile's figures are the policy's first estimates", () => {
  const costs = createCosts(
    profile.captures.costs.map(({ graph }) => graph),
    costSeedOf(profile),
  );
  for (const { graph, laterMs } of profile.captures.costs) {
    expect(costs.captureSeconds(graph).value).toBeCloseTo(laterMs / 1000, 9);
  }
  const step = (tokens: number) => ({ tokens, requests: tokens, uniform: 1 });
  expect(costs.ungraphedSeconds(step(256)).value).toBeCloseTo(0.01004, 9);
  // 12 tokens beyond the table's last row.
  expect(costs.ungraphedSeconds(step(512)).value).toBeCloseTo(0.013427 + 12 * 2.55e-5, 9);
});
