import { expect, test } from "vitest";
import { createShapes } from "../../src/schedule/costed/shapes.ts";
import { sharedPlan } from "../../src/schedule/shared-plan.ts";
import { plan } from "../helpers/fake-engine.ts";

test("engines with the same graphs have one list, and one set of shapes", () => {
  const first = sharedPlan(plan(1, 2, 4));
  expect(sharedPlan(plan(1, 2, 4))).toBe(first);
  expect(createShapes(sharedPlan(plan(1, 2, 4)))).toBe(createShapes(first));
});

test("another order, or another field of one graph, is another plan", () => {
  const first = sharedPlan(plan(1, 2, 4));
  const [head, ...rest] = plan(1, 2, 4);
  if (head === undefined) throw new Error("no graph");
  const reversed = plan(1, 2, 4).reverse();
  expect(sharedPlan(reversed)).toBe(reversed);
  const other = [{ ...head, loras: 2 }, ...rest];
  expect(sharedPlan(other)).toBe(other);
  expect(sharedPlan(plan(1, 2, 4))).toBe(first);
});

test("few plans are remembered, the latest ones", () => {
  const first = sharedPlan(plan(3));
  for (let size = 100; size < 120; size += 1) sharedPlan(plan(size));
  const again = plan(3);
  expect(sharedPlan(again)).toBe(again);
  expect(again).toEqual(first);
});
