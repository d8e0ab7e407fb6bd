/** What starts from a launcher claim: from results made up here, some of them bad. */

import { expect, test } from "vitest";
import type { LauncherResult, Start } from "../../bench/gpu/lib/start-result.ts";
import { startupFindings } from "../../bench/lib/claims-startup.ts";

const TOLD = { source: "startup.json", command: "launcher.sh" };

function start(variant: string, run: number, first: number, more: Partial<Start> = {}): Start {
  return {
    ...{ variant, run, readySeconds: first - 1, firstTokenSeconds: first },
    phases: [
      { name: "weights", seconds: 2 },
      { name: "unattributed", seconds: 0.01 * (first - 1) },
    ],
    ...{ spans: 100, processes: 2, simulated: false, weights: undefined },
    ...more,
  };
}

function result(starts: readonly Start[], more: Partial<LauncherResult> = {}): LauncherResult {
  return {
    ...{ what: "launcher", family: "dense-8b", host: "a host", serve: "vllm serve MODEL" },
    ...{ spanMicroseconds: 20, parts: [] },
    comparison: { simulated: false, failures: [], left: 0, starts },
    ...more,
  };
}

function valuesOf(given: LauncherResult): Record<string, number> {
  const found = startupFindings(given, TOLD);
  return Object.fromEntries(found.map(({ id, value }) => [id, value]));
}

test("a forked start is held against stock's of the same turn", () => {
  const values = valuesOf(
    result([
      start("stock", 1, 50),
      start("forked-lazy", 1, 10),
      start("stock", 2, 40),
      start("forked-lazy", 2, 6),
      // Time was up: there is no stock of this turn.
      start("forked-lazy", 3, 30),
    ]),
  );
  expect(values["startup.dense-8b.forked-lazy.first-token-share"]).toBeCloseTo(
    (10 / 50 + 6 / 40) / 2,
    9,
  );
  expect(values["startup.dense-8b.forked-lazy.first-token-without-weights"]).toBeCloseTo(
    (8 + 4 + 28) / 3,
    9,
  );
});

test("the seconds without weights are promised for the 8B alone", () => {
  const starts = [start("stock", 1, 50), start("forked-lazy", 1, 10)];
  const values = valuesOf(result(starts, { family: "moe-30b" }));
  expect(Object.keys(values)).toContain("startup.moe-30b.forked-lazy.first-token-share");
  expect(Object.keys(values)).not.toContain(
    "startup.moe-30b.forked-lazy.first-token-without-weights",
  );
});

test("of each variant the worst start counts: what no phase covers, and what timing cost", () => {
  const bad = { phases: [{ name: "unattributed", seconds: 4.9 }], spans: 49_000 };
  const values = valuesOf(
    result([start("stock", 1, 50), start("stock", 2, 50, bad), start("lazy", 1, 50)]),
  );
  expect(values["startup.dense-8b.stock.unattributed-share"]).toBeCloseTo(0.1, 9);
  expect(values["startup.dense-8b.stock.timing-share"]).toBeCloseTo(0.02, 9);
  expect(values["startup.dense-8b.lazy.unattributed-share"]).toBeCloseTo(0.01, 9);
});

test("a start of which nothing was timed has no known phase", () => {
  const values = valuesOf(result([start("stock", 1, 50, { spans: 0, phases: [] })]));
  expect(values["startup.dense-8b.stock.unattributed-share"]).toBe(1);
});

test("checks of what forks leave behind; one that could not be made claims nothing", () => {
  const checks = {
    tokens: { starts: 10, wanted: 10, equal: 9, holds: false },
    leaks: { files: [12, 14] as const, children: [77], holds: false },
    growth: { bytes: 90_000, bytesMax: 81_920, holds: false },
    killed: { cases: [{ holds: true }, { holds: false }], holds: false },
    orphan: { holds: false, error: "there was no time for it" },
  };
  const found = startupFindings(result([], { checks }), TOLD);
  expect(found.map(({ id, value, limit }) => [id, value, limit])).toEqual([
    ["startup.dense-8b.forked-tokens-equal", 0.9, 1],
    ["startup.dense-8b.leaked-descriptors", 2, 0],
    ["startup.dense-8b.zombies", 1, 0],
    ["startup.dense-8b.growth", 90_000, 81_920],
    ["startup.dense-8b.killed", 0.5, 1],
  ]);
});

test("an unpacked pack is held against empty caches, forked as a share and spawned in seconds", () => {
  const starts = [
    start("forked-pack", 1, 12),
    start("forked-empty", 1, 60),
    start("spawned-pack", 1, 40),
    start("spawned-empty", 1, 95),
  ];
  const caches = { simulated: false, failures: [], left: 0, starts, packBytes: 1, packSeconds: 1 };
  const values = valuesOf(result([], { caches }));
  expect(values["startup.dense-8b.pack.forked-share"]).toBeCloseTo(0.2, 9);
  expect(values["startup.dense-8b.pack.spawned-saved"]).toBeCloseTo(55, 9);
  expect(values["startup.dense-8b.forked-pack.unattributed-share"]).toBeCloseTo(0.01, 9);
});
