import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { Accounts } from "../../src/schedule/costed/accounts.ts";
import { createCosts } from "../../src/schedule/costed/cost.ts";
import { Demand } from "../../src/schedule/costed/demand.ts";
import { earnedChoice, priceOf } from "../../src/schedule/costed/earned.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { createShapes, HELD } from "../../src/schedule/costed/shapes.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, heldOf, mixed, SEED } from "./seed.ts";

const planned = plan(8, 64);
const place = (id: string): number => planned.findIndex((graph) => graph.id === id);
const alone = { requests: 1, arrivalsPerSecond: 0 };

describe("accounts", () => {
  test("grow by the regret times the requests that waited, for every graph that helps", () => {
    const accounts = new Accounts(new Savings(createCosts(planned, SEED)));
    accounts.book(decode(8), 10, 3);
    const balances = accounts.balances(heldOf(planned));
    // 10 steps × 3 requests × 5 ms, and 4 ms for PIECEWISE.
    expect(balances[place("FULL:8")]).toBeCloseTo(0.15, 9);
    expect(balances[place("FULL:64")]).toBeCloseTo(0.15, 9);
    expect(balances[place("PIECEWISE:8")]).toBeCloseTo(0.12, 9);
  });

  test("mixed steps put nothing on uniform graphs, and too large ones on none", () => {
    const accounts = new Accounts(new Savings(createCosts(planned, SEED)));
    accounts.book(mixed(5), 10, 1);
    accounts.book(mixed(65), 10, 1);
    const balances = accounts.balances(heldOf(planned));
    expect(balances[place("FULL:8")]).toBe(0);
    expect(balances[place("PIECEWISE:64")]).toBeCloseTo(0.04, 9);
  });

  test("a regret that a captured neighbour removed leaves every account", () => {
    const accounts = new Accounts(new Savings(createCosts(planned, SEED)));
    accounts.book(decode(8), 10, 1);
    const balances = accounts.balances(heldOf(planned, "PIECEWISE:64"));
    // 6 ms with the neighbour: 1 ms is left of the 5.
    expect(balances[place("FULL:8")]).toBeCloseTo(0.01, 9);
    expect(balances[place("PIECEWISE:8")]).toBe(0);
    expect(accounts.shared(place("FULL:8"), place("PIECEWISE:8"), heldOf(planned))).toBeCloseTo(
      0.04,
      9,
    );
  });
});

describe("earned captures", () => {
  const choose = (
    plannedHere: readonly Graph[],
    book: (accounts: Accounts, traffic: Demand) => void,
    load = alone,
    waits?: (place: number) => boolean,
  ) => {
    const savings = new Savings(createCosts(plannedHere, SEED));
    const accounts = new Accounts(savings);
    const traffic = new Demand(savings.costs.shapes);
    book(accounts, traffic);
    const expected = () => traffic.forecast(0, 1, 0);
    const input = { savings, accounts, held: heldOf(plannedHere), load, expected };
    return earnedChoice(waits === undefined ? input : { ...input, waits });
  };

  test("nothing before the account has reached the price", () => {
    // 5 ms a step against a stall of 30 ms.
    expect(choose(plan(8), (accounts) => accounts.book(decode(8), 5, 1))).toBeUndefined();
    expect(choose(plan(8), (accounts) => accounts.book(decode(8), 6, 1))).toMatchObject({
      graph: { id: "FULL:8" },
      leader: { id: "FULL:8" },
    });
  });

  test("whom a stall holds up raises the price", () => {
    // Who comes while an idle engine captures waits for a part of it, if anybody does.
    expect(priceOf(0.03, { requests: 0, arrivalsPerSecond: 0 })).toBeCloseTo(0.03 / 4, 9);
    expect(priceOf(0.03, { requests: 7, arrivalsPerSecond: 0 })).toBeCloseTo(0.21, 9);
    expect(priceOf(0.03, { requests: 0, arrivalsPerSecond: 100 })).toBeCloseTo(0.09, 9);
    expect(
      choose(plan(8), (accounts) => accounts.book(decode(8), 6, 1), { ...alone, requests: 2 }),
    ).toBeUndefined();
  });

  test("a graph that serves the same steps and more of those to come takes the place", () => {
    const planned = plan(8, 64);
    const shapes = createShapes(planned);
    const choice = choose(planned, (accounts, traffic) => {
      accounts.book(decode(8), 20, 1);
      traffic.add(shapes.bucketOf(decode(8)), 20, 1, 0);
      traffic.add(shapes.bucketOf(decode(40)), 20, 1, 0);
    });
    expect(choice).toMatchObject({ graph: { id: "FULL:64" } });
  });

  test("a graph that is better captured later neither leads nor takes a place", () => {
    const planned = plan(8, 64);
    const book = (accounts: Accounts): void => accounts.book(decode(8), 20, 1);
    expect(choose(planned, book)).toBeDefined();
    const others = (place: number): boolean => planned[place]?.id !== "PIECEWISE:8";
    expect(choose(planned, book, alone, others)).toMatchObject({
      graph: { id: "PIECEWISE:8" },
      leader: { id: "PIECEWISE:8" },
    });
    expect(choose(planned, book, alone, () => true)).toBeUndefined();
  });

  /**
   * Ski rental with constant prices: renting until the rent equals the price and buying then costs
   * at most twice the optimum (Karlin et al., "Competitive snoopy caching", 1988), plus the last
   * step's regret for each graph. Uniform lengths make graphs independent of one another.
   */
  test("at most twice what a clairvoyant pays, plus one step each", () => {
    const graphs = [1, 2, 3, 4, 5].map(
      (uniform): Graph => ({
        id: `FULL:60u${uniform}`,
        kind: "FULL",
        tokens: 60,
        requests: 60,
        uniform,
      }),
    );
    const step = fc.record({
      uniform: fc.integer({ min: 1, max: 5 }),
      requests: fc.integer({ min: 1, max: 9 }),
    });
    const prices = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 5, maxLength: 5 });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), prices, (steps, pricesMs) => {
        const captures = new Map(
          graphs.map(({ id }, index) => [id, { seconds: (pricesMs[index] ?? 1) / 1000, bytes: 0 }]),
        );
        const savings = new Savings(createCosts(graphs, { ...SEED, captures }));
        const accounts = new Accounts(savings);
        const held = heldOf(graphs);
        const regretOf = (requests: number): number => 0.005 * requests;
        const total = new Float64Array(5);
        let paid = 0;
        for (const { uniform, requests } of steps) {
          const index = uniform - 1;
          const regret = regretOf(requests);
          total[index] = (total[index] ?? 0) + regret;
          if (held.at[index] === HELD.missing) paid += regret;
          accounts.book({ tokens: 60, requests: 60 / uniform, uniform }, 1, requests);
          const choice = earnedChoice({ savings, accounts, held, load: alone, expected: () => [] });
          if (choice === undefined) continue;
          expect(choice.graph).toBe(choice.leader);
          const bought = graphs.indexOf(choice.graph);
          expect(held.at[bought]).toBe(HELD.missing);
          held.set(bought, HELD.captured);
          paid += (pricesMs[bought] ?? 0) / 1000;
        }
        let optimum = 0;
        let touched = 0;
        total.forEach((regret, index) => {
          optimum += Math.min(regret, (pricesMs[index] ?? 0) / 1000);
          if (regret > 0) touched++;
        });
        expect(paid).toBeLessThanOrEqual(2 * optimum + touched * regretOf(9) + 1e-9);
      }),
      { seed: 20261121, numRuns: 300 },
    );
  });
});
