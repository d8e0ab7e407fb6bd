/** `npm run faults` runs more seeds. */

import { describe, expect, test } from "vitest";
import { runCourse } from "./course.ts";
import { KILL_POINTS, nameOf } from "./kill-points.ts";
import { PLANTS } from "./network.ts";

const SEEDS = Array.from({ length: 2 * KILL_POINTS.length }, (_, place) => place + 1);

describe("courses under faults", { timeout: 120_000 }, () => {
  test("end with both sides of one opinion, orders kept, most kills hit", async () => {
    const hit = new Set<string>();
    const violations: string[] = [];
    for (const seed of SEEDS) {
      const { violation, kills } = await runCourse(seed);
      if (violation !== undefined) violations.push(`seed ${seed}: ${violation}`);
      for (const name of kills.keys()) hit.add(name);
    }
    expect(violations).toEqual([]);
    const missed = KILL_POINTS.map(nameOf).filter((name) => !hit.has(name));
    expect(missed.length, `${missed}`).toBeLessThan(KILL_POINTS.length / 4);
  });

  test("are the same for the same seed, others for others", async () => {
    const digests = [];
    for (const seed of [7, 7, 8]) digests.push((await runCourse(seed)).digest);
    expect(digests[0]).toBe(digests[1]);
    expect(digests[0]).not.toBe(digests[2]);
  });

  test.for(PLANTS)("find a planted defect: %s", async (plant) => {
    let found: string | undefined;
    for (const seed of SEEDS) {
      found = (await runCourse(seed, { plant })).violation;
      if (found !== undefined) break;
    }
    expect(found).toBeDefined();
  });
});
