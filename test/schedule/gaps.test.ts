import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Gaps } from "../../src/schedule/costed/gaps.ts";
import { StallAccount } from "../../src/schedule/stall-budget.ts";

/** Gaps of these lengths, one second of work after each. */
function afterGaps(lengths: readonly number[]): { gaps: Gaps; now: number } {
  const gaps = new Gaps();
  let now = 0;
  for (const seconds of lengths) {
    gaps.idle(now);
    now += seconds;
    gaps.busy(now);
    now += 1;
  }
  return { gaps, now };
}

describe("gap prediction", () => {
  test("regular gaps: an arrival is sure when they end, and not before", () => {
    const { gaps, now } = afterGaps(Array.from({ length: 100 }, () => 3));
    gaps.idle(now);
    expect(gaps.lastedSeconds(now + 0.5)).toBe(0.5);
    expect(gaps.arrivalShare(now + 0.5, 0.03)).toBeLessThan(0.02);
    expect(gaps.arrivalShare(now + 0.5, 5)).toBeGreaterThan(0.95);
    expect(gaps.arrivalsPerSecond).toBeCloseTo(1 / 3, 1);
  });

  test("bursts: the longer it is quiet, the safer a capture", () => {
    const lengths = Array.from({ length: 200 }, (_, index) => (index % 5 === 4 ? 60 : 0.01));
    const { gaps, now } = afterGaps(lengths);
    gaps.idle(now);
    const soon = gaps.arrivalShare(now, 0.03);
    const later = gaps.arrivalShare(now + 5, 0.03);
    expect(soon).toBeGreaterThan(0.5);
    expect(later).toBeLessThan(0.02);
  });

  test("without any gap seen, about one arrival a second is assumed", () => {
    const gaps = new Gaps();
    gaps.idle(10);
    expect(gaps.arrivalShare(10, 0.03)).toBeGreaterThan(0.01);
    expect(gaps.arrivalShare(10, 0.03)).toBeLessThan(0.1);
    expect(gaps.count).toBe(0);
  });

  test("without any gap seen, a long quiet is likely to go on as long again", () => {
    const gaps = new Gaps();
    gaps.idle(0);
    expect(gaps.arrivalShare(10, 0.03)).toBeLessThan(0.005);
    for (const lasted of [4, 30, 500]) {
      expect(gaps.arrivalShare(lasted, lasted)).toBeGreaterThan(0.35);
      expect(gaps.arrivalShare(lasted, lasted)).toBeLessThan(0.6);
    }
  });

  test("shares lie in 0 to 1 and grow with the stall, whatever was seen", () => {
    const lengths = fc.array(fc.double({ min: 0, max: 1e5, noNaN: true }), { maxLength: 80 });
    fc.assert(
      fc.property(lengths, fc.double({ min: 0, max: 1e4, noNaN: true }), (seconds, lasted) => {
        const { gaps, now } = afterGaps(seconds);
        gaps.idle(now);
        let last = 0;
        for (const stall of [0, 0.001, 0.03, 1, 100, 1e6]) {
          const share = gaps.arrivalShare(now + lasted, stall);
          expect(share).toBeGreaterThanOrEqual(last);
          expect(share).toBeLessThanOrEqual(1);
          last = share;
        }
      }),
      { seed: 20261121 },
    );
  });
});

describe("the stall budget", () => {
  test("holds a burst, fills up at its share, and tells how long to wait", () => {
    const stalls = new StallAccount({ burstSeconds: 0.1, share: 0.01, stallSecondsMax: 0.08 });
    expect(stalls.objection(0, 0.06)).toBeUndefined();
    stalls.spend(0, 0.06);
    expect(stalls.objection(0, 0.06)).toBe("the stall budget has 40 ms left of 60 ms");
    expect(stalls.waitSeconds(0, 0.06)).toBeCloseTo(2, 9);
    expect(stalls.objection(2.001, 0.06)).toBeUndefined();
    expect(stalls.objection(1e6, 0.09)).toBe("its stall of 90 ms is over the 80 ms allowed");
    expect(stalls.waitSeconds(1e6, 0.09)).toBe(Number.POSITIVE_INFINITY);
  });

  test("counts of a stall what is likely to hold anybody up, and none beyond the longest", () => {
    const stalls = new StallAccount({ burstSeconds: 0.1, share: 0.01, stallSecondsMax: 0.5 });
    stalls.spend(0, 0.09);
    expect(stalls.objection(0, 0.4)).toBe("the stall budget has 10 ms left of 400 ms");
    expect(stalls.objection(0, 0.4, 0.02)).toBe("the stall budget has 10 ms left of 20 ms");
    expect(stalls.waitSeconds(0, 0.4, 0.02)).toBeCloseTo(1, 9);
    expect(stalls.objection(0, 0.4, 0.004)).toBeUndefined();
    stalls.spend(0, 0.02);
    expect(stalls.objection(0, 0.4, 0.000_12)).toBe("the stall budget has 0 ms left of 0.12 ms");
    expect(stalls.objection(0, 0.6, 0)).toBe("its stall of 600 ms is over the 500 ms allowed");
    expect(stalls.waitSeconds(0, 0.6, 0)).toBe(Number.POSITIVE_INFINITY);
  });

  test("a capture that took longer than allowed leaves a debt, and time can't be gained twice", () => {
    const stalls = new StallAccount({ burstSeconds: 0.1, share: 0.1 });
    stalls.spend(0, 0.3);
    expect(stalls.objection(2, 0.01)).toContain("0 ms left");
    expect(stalls.objection(3.2, 0.1)).toBeUndefined();
    stalls.spend(3.2, 0.1);
    // A clock that seems to stand still or go back brings nothing.
    expect(stalls.objection(1, 0.01)).toBeDefined();
    const dry = new StallAccount({ share: 0, burstSeconds: 0.1 });
    // More than the whole reserve: allowed while it is full, and then never again.
    expect(dry.objection(0, 0.2)).toBeUndefined();
    dry.spend(0, 0.2);
    expect(dry.waitSeconds(1e9, 0.2)).toBe(Number.POSITIVE_INFINITY);
  });

  test("three days of a process that was stopped in a capture cost minutes", () => {
    const stalls = new StallAccount();
    stalls.spend(0, 3 * 86_400);
    expect(stalls.waitSeconds(0, 0.03)).toBeLessThan(120);
  });
});
