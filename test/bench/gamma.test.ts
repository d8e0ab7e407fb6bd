import { describe, expect, test } from "vitest";
import { createRandom } from "../../src/base/random.ts";
import { gamma, gammaRequests } from "../../src/bench/gamma.ts";

describe("gamma arrivals", () => {
  test.for([0.11, 1, 4])("shape %d has its mean and its deviation", (shape) => {
    const random = createRandom(11);
    const values = Array.from({ length: 40_000 }, () => gamma(random, shape));
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    expect(mean / shape).toBeGreaterThan(0.95);
    expect(mean / shape).toBeLessThan(1.05);
    expect(variance / shape).toBeGreaterThan(0.9);
    expect(variance / shape).toBeLessThan(1.1);
  });

  test("the same seed gives the same requests, in order of time and within the span", () => {
    const traffic = { rate: 5, cv: 2, seconds: 100, seed: 3 };
    const requests = [...gammaRequests(traffic)];
    expect(requests).toEqual([...gammaRequests(traffic)]);
    expect(requests.length).toBeGreaterThan(300);
    expect(requests.length).toBeLessThan(800);
    const times = requests.map(({ atSeconds }) => atSeconds);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times[0]).toBe(0);
    expect(times.at(-1)).toBeLessThan(100);
  });
});
