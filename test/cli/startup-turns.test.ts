/** Variants in turns: one that fails or a time that is up costs none of what was measured. */

import { expect, test } from "vitest";
import { startupDocument } from "../../src/cli/startup-document.ts";
import type { MeasuredStart, StartOptions } from "../../src/cli/startup-run.ts";
import { type Outcome, takeTurns } from "../../src/cli/startup-turns.ts";
import { startResult } from "../../src/startup/start.ts";

const VARIANTS = ["stock", "forked"].map((name) => ({ name, command: [name] }));

interface Asked {
  readonly runs: number;
  readonly withinSeconds?: number;
  readonly seconds?: Readonly<Record<string, number>>;
  readonly fails?: (start: string) => boolean;
  readonly stopAt?: string;
}

/** On a clock of its own: each start takes its variant's seconds. */
async function turns({ runs, withinSeconds = 1e9, seconds = {}, fails, stopAt }: Asked) {
  const stopping = new AbortController();
  let now = 0;
  const starts: string[] = [];
  const kept: Outcome[] = [];
  const measure = async ({ variant, run }: StartOptions): Promise<MeasuredStart> => {
    const start = `${variant.name} ${run}`;
    starts.push(start);
    now += seconds[variant.name] ?? 1;
    if (start === stopAt) stopping.abort();
    if (fails?.(start) === true || start === stopAt) {
      throw Object.assign(new Error(`${start} ended`), { code: "ERR_LAZYGRAPH_COMMAND_DIED" });
    }
    const times = { readySeconds: 1, firstTokenSeconds: 1.5 };
    return { result: startResult(variant.name, run, times, [], []), spans: [], spawned: 0 };
  };
  const keep = async (_: unknown, outcome: Outcome): Promise<void> => {
    kept.push({ ...outcome, results: [...outcome.results], failures: [...outcome.failures] });
  };
  const outcome = await takeTurns(
    {
      ...{ variants: VARIANTS, runs, folder: "out", readyWithinSeconds: 10, withinSeconds },
      signal: stopping.signal,
    },
    { started: keep, failed: keep },
    measure,
    () => now,
  );
  return { outcome, starts, kept };
}

test("variants take turns, and all that there is is told after each start", async () => {
  const { outcome, starts, kept } = await turns({ runs: 2 });
  expect(starts).toEqual(["stock 1", "forked 1", "stock 2", "forked 2"]);
  expect(outcome).toMatchObject({ failures: [], left: 0, stopped: false });
  expect(kept.map(({ results, left }) => [results.length, left])).toEqual([
    [1, 3],
    [2, 2],
    [3, 1],
    [4, 0],
  ]);
});

test("a start that fails is tried once more, then its variant is left out; others go on", async () => {
  const { outcome, starts } = await turns({ runs: 4, fails: (start) => /^forked/.test(start) });
  expect(starts.filter((start) => /^forked/.test(start))).toEqual(["forked 1", "forked 2"]);
  expect(outcome.results.map(({ variant }) => variant)).toEqual(Array(4).fill("stock"));
  expect(outcome.left).toBe(0);
  expect(outcome.failures[0]).toEqual({
    ...{ variant: "forked", run: 1, error: "forked 1 ended" },
    code: "ERR_LAZYGRAPH_COMMAND_DIED",
  });
  expect(startupDocument(VARIANTS, outcome)).toMatchObject({
    failures: [{ run: 1 }, { run: 2 }],
    summary: [{ name: "stock", starts: 4 }],
  });
});

test("what would end too late isn't begun, going by the longest start of its variant", async () => {
  const seconds = { stock: 60, forked: 10 };
  const { outcome, starts } = await turns({ runs: 5, withinSeconds: 145, seconds });
  // 70 s a round: the third stock would end at 200.
  expect(starts).toEqual(["stock 1", "forked 1", "stock 2", "forked 2"]);
  expect(outcome.left).toBe(6);
});

test("a start that was interrupted is no failure", async () => {
  const { outcome } = await turns({ runs: 2, stopAt: "forked 1" });
  expect(outcome).toMatchObject({ failures: [], stopped: true });
  expect(outcome.results).toHaveLength(1);
});
