import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readResult } from "../../bench/lib/result-file.ts";
import type { Graph } from "../../src/base/graph.ts";
import {
  firstSetShare,
  fitsBudget,
  stockSeconds,
  type TimedCapture,
} from "../../src/schedule/first-budget.ts";
import { fillOrder, firstLadder } from "../../src/schedule/first-ladder.ts";
import { plan } from "../helpers/fake-engine.ts";

interface Golden {
  readonly orders: readonly {
    readonly name: string;
    readonly graphs: readonly Graph[];
    readonly ladder: readonly string[];
    readonly fill: readonly string[];
  }[];
  readonly budgets: readonly {
    readonly name: string;
    readonly plan: string;
    readonly captured: readonly TimedCapture[];
    readonly twice: boolean;
    readonly budgetSeconds?: number;
    readonly stockSeconds: number;
    readonly fits: Readonly<Record<Graph["kind"], boolean>>;
  }[];
}

/** What the plugin's tests read as well. */
const golden = readResult<Golden>(new URL("../golden/first-set.json.gz", import.meta.url));
const ids = (graphs: readonly Graph[]): string[] => graphs.map(({ id }) => id);

describe("orders where nothing is known", () => {
  test.for(golden.orders)("$name", ({ graphs, ladder, fill }) => {
    expect(ids(firstLadder(graphs))).toEqual(ladder);
    expect(ids(fillOrder(graphs))).toEqual(fill);
    expect([...fill].sort()).toEqual(ids(graphs).sort());
  });

  test("each next graph of any plan spares the most, worked out one by one", () => {
    const sizes = fc.uniqueArray(fc.integer({ min: 65, max: 1024 }), {
      minLength: 2,
      maxLength: 9,
    });
    fc.assert(
      fc.property(sizes, (some) => {
        const planned = plan(...some.sort((a, b) => a - b));
        const full = planned.filter(({ kind }) => kind === "FULL");
        const [top = 0, ...rest] = full.map(({ tokens }) => tokens).sort((a, b) => b - a);
        const captured = [top];
        const least = Math.min(...rest) / 2;
        const spared = (tokens: number): number => {
          const below = Math.max(least, ...captured.filter((size) => size < tokens));
          const above = Math.min(...captured.filter((size) => size > tokens));
          return Math.log2(tokens / below) * Math.log2(above / tokens);
        };
        const left = new Set(rest);
        for (const { tokens } of firstLadder(planned)) {
          const most = Math.max(...[...left].map(spared));
          expect(spared(tokens)).toBeGreaterThan(most - 1e-6);
          left.delete(tokens);
          captured.push(tokens);
        }
        expect(left.size).toBe(0);
      }),
      { seed: 7 },
    );
  });
});

describe("the budget where nobody knows what captures take", () => {
  test.for(golden.budgets)("$name", ({ plan: name, captured, twice, budgetSeconds, ...found }) => {
    const planned = golden.orders.find((order) => order.name === name)?.graphs ?? [];
    expect(stockSeconds(planned, captured, twice)).toBeCloseTo(found.stockSeconds, 6);
    const rule = { twice, ...(budgetSeconds === undefined ? {} : { budgetSeconds }) };
    for (const kind of ["FULL", "PIECEWISE"] as const) {
      expect(fitsBudget(kind, planned, captured, rule)).toBe(found.fits[kind]);
    }
  });

  test("is no larger for graphs of adapters: a second case makes no graph likelier", () => {
    const base = golden.orders.find(({ name }) => name === "vLLM's default sizes")?.graphs ?? [];
    const both = [...base, ...base.map((graph) => ({ ...graph, id: `${graph.id}:l5`, loras: 5 }))];
    const tops = ["PIECEWISE", "FULL"].map((kind) => {
      return { kind: kind as Graph["kind"], seconds: 0.06, warmUp: true };
    });
    const small = (count: number): TimedCapture[] => {
      return Array.from({ length: count }, () => ({ kind: "FULL", seconds: 0.03, warmUp: false }));
    };
    const fitting = (planned: readonly Graph[]): number => {
      let count = 0;
      const fits = () => fitsBudget("FULL", planned, [...tops, ...small(count)], { twice: true });
      while (count < 100 && fits()) count += 1;
      return count;
    };
    expect(base).toHaveLength(102);
    expect(fitting(both)).toBe(fitting(base));
    expect(fitting(base)).toBeGreaterThan(0);
    expect(firstSetShare(both)).toBeCloseTo(1 / 60, 9);
  });

  test("keeps to a thirtieth of what stock takes, whatever captures cost", () => {
    const planned = plan(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512);
    const milliseconds = fc.integer({ min: 1, max: 500 });
    fc.assert(
      fc.property(
        milliseconds,
        milliseconds,
        fc.double({ min: 1.55, max: 3, noNaN: true }),
        (...of) => {
          const [full, piecewise, warmUp] = of;
          const stock = (warmUp * (full * 17 + piecewise * 30)) / 1000;
          const top = (kind: Graph["kind"], ms: number): TimedCapture => {
            return { kind, seconds: (warmUp * ms) / 1000, warmUp: true };
          };
          const captured = [top("PIECEWISE", piecewise), top("FULL", full)];
          const tops = captured.reduce((sum, { seconds }) => sum + seconds, 0);
          while (captured.length < 30 && fitsBudget("FULL", planned, captured, { twice: true })) {
            captured.push({ kind: "FULL", seconds: full / 1000, warmUp: false });
          }
          const spent = captured.reduce((sum, { seconds }) => sum + seconds, 0);
          expect(spent).toBeLessThanOrEqual(Math.max(tops, stock * firstSetShare(planned)) + 1e-9);
        },
      ),
      { seed: 11 },
    );
  });
});
