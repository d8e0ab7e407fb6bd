import { describe, expect, test } from "vitest";
import { type AheadLoad, aheadChoice } from "../../src/schedule/costed/ahead.ts";
import { type CostSeed, createCosts } from "../../src/schedule/costed/cost.ts";
import { Savings } from "../../src/schedule/costed/savings.ts";
import { plan } from "../helpers/fake-engine.ts";
import { heldOf, SEED } from "./seed.ts";

const planned = plan(8, 16, 32, 64, 128, 256, 512);

function choice(engine: AheadLoad, price: number, seed: CostSeed = SEED, ...held: string[]) {
  const costs = createCosts(planned, seed);
  return aheadChoice({
    savings: new Savings(costs),
    held: heldOf(planned, "FULL:512", "PIECEWISE:512", ...held),
    engine,
    decode: 1,
    priceOf: () => price,
  });
}

describe("captures ahead of a rising load", () => {
  test("come for batches that a likely rise would make, if that is worth their price", () => {
    const saturated = { requests: 60, utilisation: 0.9 };
    const found = choice(saturated, 0.05);
    expect(found?.value).toBeGreaterThanOrEqual(0.05);
    expect(found?.rise).toBeGreaterThan(1);
    expect(choice(saturated, 1000)).toBeUndefined();
    // An engine that does next to nothing would need a load many times as high.
    expect(choice({ requests: 8, utilisation: 0.05 }, 5)).toBeUndefined();
  });

  test("are of FULL graphs, even where PIECEWISE ones are taken to be faster", () => {
    const piecewise = SEED.full.map(([tokens, seconds]) => [tokens, seconds * 0.9] as const);
    const found = choice({ requests: 60, utilisation: 0.9 }, 0.05, { ...SEED, piecewise });
    expect(found?.graph.kind).toBe("FULL");
  });

  test("a load that larger batches nearly pay for by themselves has to rise further", () => {
    const rise = (full: CostSeed["full"]): number => {
      const seed = { ...SEED, full };
      return choice({ requests: 64, utilisation: 0.5 }, 0.001, seed)?.rise ?? Number.NaN;
    };
    const flat = rise([
      [8, 0.005],
      [256, 0.0051],
      [512, 0.014],
    ]);
    const steep = rise([
      [8, 0.001],
      [256, 0.0095],
      [512, 0.014],
    ]);
    expect(flat).toBeGreaterThan(steep);
  });

  test("where nothing is known but who waits, any octave is as likely", () => {
    const unknown = { requests: 60, utilisation: undefined };
    const found = choice(unknown, 0.5, SEED, "FULL:64");
    expect(found?.graph.tokens).toBeGreaterThan(64);
    expect(found?.rise).toBeCloseTo((found?.graph.tokens ?? 0) / 60, 9);
    // Of an engine that is known to have time to spare, twice as many would need twice the load.
    expect(choice({ requests: 60, utilisation: 0 }, 0.5, SEED, "FULL:64")).toBeUndefined();
  });
});
