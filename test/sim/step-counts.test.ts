import fc from "fast-check";
import { expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { StepTelemetry } from "../../src/sim/live/telemetry.ts";
import { StepCounts, type StepSeen } from "../../src/sim/model/step-counts.ts";
import { LIMITS, type Telemetry } from "../../src/wire/protocol.ts";

const step = fc.record(
  {
    tokens: fc.constantFrom(1, 2, 8, 8192, 300_000),
    requests: fc.constantFrom(1, 2, 5000),
    uniform: fc.constantFrom(0, 1, 2),
    served: fc.constantFrom("", "FULL:8"),
    loras: fc.constantFrom(0, 2),
    seconds: fc.integer({ min: 1, max: 9 }),
    contextTokens: fc.integer({ min: 0, max: 9 }),
  },
  { requiredKeys: ["tokens", "requests", "uniform", "served", "seconds", "contextTokens"] },
);

/** The shape as text; adapters not told are none. */
function textOf({ tokens, requests, uniform, served, loras = 0 }: StepSeen): string {
  return [tokens, requests, uniform, served, loras].join(" ");
}

test("steps of one shape are counted together, in the order of the first of each", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const counts = new StepCounts();
      expect(counts.empty).toBe(true);
      for (const one of steps) counts.add(one);
      const taken = counts.take();
      expect(taken.map(textOf)).toEqual([...new Set(steps.map(textOf))]);
      for (const told of taken) {
        const alike = steps.filter((one) => textOf(one) === textOf(told));
        const sum = (of: (one: StepSeen) => number) => alike.reduce((a, one) => a + of(one), 0);
        expect(told).toMatchObject({ count: alike.length, timed: alike.length });
        expect(told.seconds).toBe(sum(({ seconds }) => seconds));
        const context = sum(({ contextTokens }) => contextTokens) / alike.length;
        expect(told.contextTokens).toBeCloseTo(context, 9);
      }
      expect(counts.empty).toBe(true);
      expect(counts.take()).toEqual([]);
    }),
    { seed: 20261129, numRuns: 100 },
  );
});

test("a batch has room for so many shapes, and tells how many steps found none", () => {
  const counts = new StepCounts();
  for (let tokens = 1; tokens <= LIMITS.stepsPerBatch + 3; tokens++) {
    counts.add({ tokens, requests: 1, uniform: 0, served: "", seconds: 1, contextTokens: 0 });
  }
  expect(counts.dropped).toBe(3);
  expect(counts.take()).toHaveLength(LIMITS.stepsPerBatch);
});

test("a live engine times eight steps of one shape a batch, and the context is theirs", async () => {
  const batches: Telemetry[] = [];
  const send = async (batch: Telemetry) => batches.push(batch) > 0;
  const load = () => ({ running: 0, waiting: 0 });
  const telemetry = new StepTelemetry({ clock: systemClock, load, send });
  const alike = { tokens: 1, requests: 1, uniform: 1, served: "", seconds: 1 };
  for (const contextTokens of [1, 2, 3, 4, 5, 6, 7, 8, 90])
    telemetry.add({ ...alike, contextTokens });
  await telemetry.tell();
  expect(batches[0]?.steps).toMatchObject([{ count: 9, timed: 8, seconds: 8, contextTokens: 4.5 }]);
});
