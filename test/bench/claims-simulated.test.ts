import { describe, expect, test } from "vitest";
import { simulatedFindings, worstFindings } from "../../bench/lib/claims-simulated.ts";

const TOLD = { source: "a.json", command: "npm run a" };

const added = (name: string, addedRequestSeconds: number) => ({
  name,
  policy: name,
  addedRequestSeconds,
});

describe("simulated claims", () => {
  test("an overload counts by the worse of both modes, over floor", () => {
    const policies = [added("floor", 100), added("lazy-costed", 90), added("idle-costed", 130)];
    const loads = [6, 10].map((speed) => ({
      load: `conversation, speed ${speed}, first 300 s`,
      policies: policies.map((run) => ({
        ...run,
        addedRequestSeconds: run.policy === "floor" ? 10 * speed : run.addedRequestSeconds,
      })),
    }));
    const found = simulatedFindings({ loads, secondStarts: [], holdOutSecondStarts: [] }, TOLD);
    expect(found[0]).toMatchObject({ id: "v033.simulated.overload.speed-6", limit: 1.25 });
    expect(found.slice(0, 2).map(({ value }) => value)).toEqual([130 / 60, 130 / 100]);
  });

  test("a load that was not run is no figure", () => {
    const found = simulatedFindings({ loads: [], secondStarts: [], holdOutSecondStarts: [] }, TOLD);
    expect(found[0]?.value).toBeNaN();
  });

  test("second starts are met below floor or within the share of the first one's excess", () => {
    const secondStarts = [
      { floor: 1, first: 11, second: 7 },
      { floor: 1, first: 11, second: 7.1 },
      // Below floor, although above the first.
      { floor: 10, first: 2, second: 5 },
    ];
    const set = { loads: [], secondStarts, holdOutSecondStarts: [] };
    const found = simulatedFindings(set, TOLD).find(({ id }) => id.endsWith("second-starts"));
    expect(found).toMatchObject({ value: 2, limit: 3, sense: "atLeast" });
  });

  test("lazy mode counts where it looks worst", () => {
    const arms = (lazy: number) => ({
      arms: [added("stock", 10), added("ladder", 4), added("lazy-costed", lazy)],
    });
    const found = worstFindings({ comparisons: [arms(2), arms(5), arms(1)] }, TOLD);
    expect(found.map(({ id, value }) => [id, value])).toEqual([
      ["v033.simulated.lazy-over-stock", 0.5],
      ["v033.simulated.lazy-over-ladder", 1.25],
    ]);
  });
});
