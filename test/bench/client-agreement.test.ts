import { describe, expect, test } from "vitest";
import { clientAgreement } from "../../bench/lib/client-agreement.ts";

const figures = {
  completed: 79,
  total_input_tokens: 24_349,
  total_output_tokens: 10_074,
  median_ttft_ms: 20,
  median_tpot_ms: 5,
  p99_ttft_ms: 33,
};

describe("two clients, the same schedule", () => {
  test("agree within the limits, told round by round", () => {
    const theirs = { ...figures, median_ttft_ms: 20.9, median_tpot_ms: 4.8, p99_ttft_ms: 66 };
    const {
      sameWork,
      holds,
      figures: found,
    } = clientAgreement([
      { ours: figures, theirs },
      { ours: figures, theirs: figures },
    ]);
    expect([sameWork, holds]).toEqual([true, true]);
    const ttft = found.find(({ name }) => name === "median_ttft_ms");
    expect(ttft).toMatchObject({ ours: [20, 20], theirs: [20.9, 20], limit: 0.05 });
    expect(ttft?.ratio).toBeCloseTo(Math.sqrt(20 / 20.9), 12);
    // Told, and not judged.
    const tail = found.find(({ name }) => name === "p99_ttft_ms");
    expect(tail?.ratio).toBeCloseTo(Math.SQRT1_2, 12);
    expect(tail?.verdict).toBeUndefined();
  });

  test("don't where a median is further off", () => {
    const theirs = { ...figures, median_tpot_ms: 5.3 };
    const { sameWork, holds } = clientAgreement([{ ours: figures, theirs }]);
    expect([sameWork, holds]).toEqual([true, false]);
  });

  test("can't be compared where the server counted other tokens, however near the medians", () => {
    const theirs = { ...figures, total_input_tokens: 173_528 };
    const { sameWork, holds } = clientAgreement([{ ours: figures, theirs }]);
    expect([sameWork, holds]).toEqual([false, false]);
  });

  test("don't where one says nothing, and there is no round without results", () => {
    const { median_ttft_ms: _, ...theirs } = figures;
    expect(clientAgreement([{ ours: figures, theirs }]).holds).toBe(false);
    expect(() => clientAgreement([])).toThrow(RangeError);
  });
});
