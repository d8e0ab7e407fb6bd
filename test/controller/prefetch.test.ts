import { expect, test } from "vitest";
import { prefetch } from "../../src/engine/prefetch.ts";
import { createEngineRecord, type EngineRecord } from "../../src/engine/record.ts";
import { applyInventory, applyReady, remember } from "../../src/engine/step/booking.ts";
import { EnginePlans } from "../../src/plan/engine-plan.ts";
import { loadProfile } from "../../src/profile/load.ts";
import type { StepsSeen } from "../../src/schedule/policy.ts";
import type { Inventory } from "../../src/wire/protocol.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";

const INVENTORY: Inventory = {
  ...CONFIGURATION,
  type: "inventory",
  phase: "serving",
  graphs: plan(1, 8),
  captured: [],
  ranks: [RANK],
  epoch: 0,
};

function serving(): EngineRecord {
  const { hello } = new FakeEngine();
  const record = createEngineRecord(hello, "idle");
  applyInventory(record, INVENTORY);
  applyReady(record, { type: "ready", captured: [], ranks: [RANK], epoch: 0 } as never, 0);
  const { state } = record;
  if (state === undefined) throw new Error("Expected the state that an inventory makes.");
  const plans = new EnginePlans(undefined, "test", loadProfile());
  remember(record, { plan: plans.engine(hello, INVENTORY, state) });
  return record;
}

function report(tokens: number, seconds: number): StepsSeen[] {
  const common = { requests: tokens, uniform: 1, count: 10, timed: 10, contextTokens: 0 };
  const served = ["FULL:8", "PIECEWISE:8", "FULL:1", "", "none"];
  return served.map((name) => ({ tokens, served: name, seconds, ...common }));
}

test("what is read ahead changes nothing: reports come to the same with it and without", () => {
  const [ahead, alone] = [serving(), serving()];
  let total = 0;
  for (let n = 1; n <= 40; n += 1) {
    const steps = report(1 + (n % 9), 0.05 + 0.001 * n);
    prefetch([ahead]);
    const regret = ahead.course.plan?.observe(steps, n % 3, n) ?? 0;
    prefetch([ahead, ahead]);
    total += regret;
    expect(regret).toBe(alone.course.plan?.observe(steps, n % 3, n));
  }
  expect(total).toBeGreaterThan(0);
});

test("who has told no graphs, and has no plan, is passed over", () => {
  const { hello } = new FakeEngine();
  const told = createEngineRecord(hello, "idle");
  applyInventory(told, INVENTORY);
  expect(() => prefetch([createEngineRecord(hello, "idle"), told, serving()])).not.toThrow();
  expect(() => prefetch([])).not.toThrow();
});
