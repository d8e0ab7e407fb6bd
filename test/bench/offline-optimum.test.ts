import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type OfflineStep, offlineOptimum } from "../../bench/lib/offline-optimum.ts";

/** Every way to capture each graph before some step, or never. */
function byTrying(steps: readonly OfflineStep[], stalls: readonly number[]): number {
  const when: number[] = stalls.map(() => 0);
  let least = Number.POSITIVE_INFINITY;
  for (;;) {
    let cost = 0;
    for (const [index, step] of steps.entries()) {
      const captured = when.map((at) => at <= index);
      for (const [graph, at] of when.entries()) {
        if (at === index) cost += (stalls[graph] ?? 0) * step.requests;
      }
      const choices = step.withGraph.filter((_, graph) => captured[graph]);
      const best = Math.min(step.without, ...step.withGraph);
      cost += step.requests * (Math.min(step.without, ...choices) - best);
    }
    least = Math.min(least, cost);
    const place = when.findIndex((at) => at < steps.length);
    if (place === -1) return least;
    when[place] = (when[place] ?? 0) + 1;
    when.fill(0, 0, place);
  }
}

describe("the offline optimum", () => {
  test("by hand: buys while few wait, or not at all", () => {
    const step = (requests: number) => ({ requests, without: 10, withGraph: [5] });
    // A stall of 20 for one request, then nothing more; without it 5 and 3 × 5 × 10 of regret.
    expect(offlineOptimum([step(1), step(10), step(10), step(10)], [20])).toBe(20);
    expect(offlineOptimum([step(1), step(1)], [20])).toBe(10);
    expect(offlineOptimum([], [20])).toBe(0);
  });

  test("is what trying everything finds", () => {
    const seconds = fc.integer({ min: 1, max: 20 });
    const instance = fc.integer({ min: 1, max: 3 }).chain((graphs) =>
      fc.record({
        stalls: fc.array(fc.integer({ min: 1, max: 60 }), { minLength: graphs, maxLength: graphs }),
        steps: fc.array(
          fc.record({
            requests: fc.integer({ min: 1, max: 9 }),
            without: seconds,
            withGraph: fc.array(seconds, { minLength: graphs, maxLength: graphs }),
          }),
          { maxLength: 5 },
        ),
      }),
    );
    fc.assert(
      fc.property(instance, ({ steps, stalls }) => {
        expect(offlineOptimum(steps, stalls)).toBeCloseTo(byTrying(steps, stalls), 9);
      }),
      { seed: 20261121, numRuns: 200 },
    );
  });
});
