import { expect, test } from "vitest";
import { Seldom } from "../../src/base/seldom.ts";

test("told once a minute for each kind, with the number of those between", () => {
  const seldom = new Seldom();
  const told = [0, 1, 59, 60, 61].map((at) => seldom.next("a", at));
  expect(told).toEqual([0, undefined, undefined, 2, undefined]);
  expect(seldom.next("b", 1)).toBe(0);
});
