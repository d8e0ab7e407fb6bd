import { describe, expect, test } from "vitest";
import type { CellResult } from "../../bench/gpu/main-job-cell.ts";
import { summarise } from "../../bench/gpu/main-job-summary.ts";
import { createRandom } from "../../src/base/random.ts";
import { bootstrapMean, mean, quantile } from "../../src/measure/statistics.ts";

describe("figures over few runs", () => {
  test("quantiles interpolate between ranks", () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([5], 0.99)).toBe(5);
    expect(quantile([1, 2, 3], 1)).toBe(3);
    expect(() => quantile([], 0.5)).toThrow(RangeError);
    expect(() => mean([])).toThrow(RangeError);
  });

  test("an interval holds the mean, is the same for everybody, and shrinks with more runs", () => {
    const few = [1, 2, 3, 4, 5];
    const many = Array.from({ length: 20 }, () => few).flat();
    const interval = bootstrapMean(few);
    expect(interval).toEqual(bootstrapMean(few));
    expect(interval.mean).toBe(3);
    expect(interval.low).toBeLessThan(3);
    expect(interval.high).toBeGreaterThan(3);
    const narrow = bootstrapMean(many);
    expect(narrow.high - narrow.low).toBeLessThan(interval.high - interval.low);
  });

  // docs/benchmark-method.md says so beside what "95%" means: a bootstrap of few is too narrow.
  test.for([
    [3, 0.7, 0.85],
    [6, 0.78, 0.9],
    [30, 0.9, 0.98],
  ] as const)(
    "of %i runs its interval holds the truth in %f to %f of all cases",
    ([runs, least, most]) => {
      const random = createRandom(7);
      const normal = (): number =>
        Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
      const cases = 200;
      const holding = Array.from({ length: cases }, (_, seed) =>
        bootstrapMean(Array.from({ length: runs }, normal), seed),
      ).filter(({ low, high }) => low <= 0 && high >= 0).length;
      expect(holding / cases).toBeGreaterThan(least);
      expect(holding / cases).toBeLessThan(most);
    },
  );
});

describe("the main job's summary", () => {
  const cell = (round: number, mode: CellResult["mode"], capture: number, first: number) =>
    ({
      round,
      mode,
      gpu: 0,
      model: "OUT/m",
      serve: "vllm serve",
      captureBeforeReadySeconds: capture,
      capturesAloneSeconds: capture,
      spawnToReadySeconds: first,
      spawnToFirstTokenSeconds: first,
      graphBytes: 2 ** 20,
      deviceUsedMiB: 1,
      decode: [{ concurrent: 8, tpotMs: mode === "stock" ? [4, 6] : [5, 5.2] }],
    }) satisfies CellResult;

  test("compares with the stock start of the same round", () => {
    const cells = [
      cell(0, "stock", 3, 40),
      cell(0, "idle", 0.06, 37),
      cell(1, "idle", 0.12, 58),
      cell(1, "stock", 3, 61),
    ];
    const { modes } = summarise(cells, { host: "h", gpusAtOnce: 1 });
    expect(modes["stock"]?.versusStock).toBeUndefined();
    expect(modes["idle"]?.versusStock?.captureShare.mean).toBeCloseTo(0.03);
    expect(modes["idle"]?.versusStock?.savedShareOfCapture.mean).toBeCloseTo(1);
    expect(modes["idle"]?.versusStock?.tpotRatio["8"]?.mean).toBeCloseTo(1.02);
    expect(modes["idle"]?.graphMiB.mean).toBe(1);
  });
});
