import { expect, test } from "vitest";
import { microsOf, ratioOf } from "../../bench/lib/client-cost.ts";

const STEADY = { shortSeconds: [1, 1, 1], longSeconds: [3, 3, 3] };

test("what the long answers cost more, by their tokens", () => {
  expect(microsOf(STEADY, 100_000)).toEqual({ value: 20, low: 20, high: 20 });
});

test("a disturbed round moves the interval, not the median", () => {
  const disturbed = { shortSeconds: [1, 1, 1], longSeconds: [3, 9, 3] };
  const { value, low, high } = microsOf(disturbed, 100_000);
  expect(value).toBeCloseTo(20);
  expect(low).toBeCloseTo(20);
  expect(high).toBeGreaterThan(20);
});

test("a ratio takes both clients' rounds as they were run", () => {
  // Every round is half the other's.
  const slow = { shortSeconds: [1, 2, 4], longSeconds: [3, 6, 12] };
  const half = { shortSeconds: [0.5, 1, 2], longSeconds: [1.5, 3, 6] };
  const { value, low, high } = ratioOf(half, slow);
  for (const figure of [value, low, high]) expect(figure).toBeCloseTo(0.5);
});
