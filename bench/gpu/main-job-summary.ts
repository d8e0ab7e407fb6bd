/** Sums up cells: intervals a mode, and stock against ours, paired by round. */

import { MIB } from "../../src/base/units.ts";
import { bootstrapMean, type Interval, mean } from "../../src/measure/statistics.ts";
import type { CellResult, Mode } from "./main-job-cell.ts";

export interface ModeSummary {
  readonly starts: number;
  readonly captureBeforeReadySeconds: Interval;
  readonly capturesAloneSeconds: Interval;
  readonly spawnToReadySeconds: Interval;
  readonly spawnToFirstTokenSeconds: Interval;
  readonly readyToSettledSeconds?: Interval;
  readonly graphMiB: Interval;
  readonly longestCaptureMs?: Interval;
  /** Longest time a capture held the engine up, waiting for the step in flight included. */
  readonly longestStallMs?: Interval;
  readonly worstStallMs?: number;
  readonly graphs?: string;
  readonly tpotMs: Readonly<Record<string, Interval>>;
  /** Against stock, paired by round. */
  readonly versusStock?: {
    readonly captureShare: Interval;
    readonly capturesAloneShare: Interval;
    readonly firstTokenSavedSeconds: Interval;
    /** Of stock's capture seconds, how much came off spawn to first token. */
    readonly savedShareOfCapture: Interval;
    readonly tpotRatio: Readonly<Record<string, Interval>>;
  };
}

export interface Summary {
  readonly what: "main-job";
  readonly model: string;
  readonly serve: string;
  readonly host: string;
  readonly gpusAtOnce: number;
  readonly modes: Readonly<Record<string, ModeSummary>>;
}

export function summarise(
  cells: readonly CellResult[],
  run: { readonly host: string; readonly gpusAtOnce: number },
): Summary {
  const modes = [...new Set(cells.map((cell) => cell.mode))];
  const stock = new Map(cells.filter((c) => c.mode === "stock").map((c) => [c.round, c]));
  return {
    what: "main-job",
    model: cells[0]?.model.split("/").at(-1) ?? "",
    serve: cells[0]?.serve ?? "",
    ...run,
    modes: Object.fromEntries(modes.map((mode) => [mode, summariseMode(cells, mode, stock)])),
  };
}

function summariseMode(
  cells: readonly CellResult[],
  mode: Mode,
  stock: ReadonlyMap<number, CellResult>,
): ModeSummary {
  const own = cells.filter((cell) => cell.mode === mode);
  const of = (pick: (cell: CellResult) => number) => bootstrapMean(own.map(pick));
  const settled = own.flatMap((c) => c.readyToSettledSeconds ?? []);
  const longest = own.flatMap((c) => c.longestCaptureMs ?? []);
  const stalls = own.flatMap((c) => c.engine?.longestStallMs ?? []);
  const first = own[0];
  const pairs = own.flatMap((cell) => {
    const base = stock.get(cell.round);
    return base === undefined || mode === "stock" ? [] : [{ cell, base }];
  });
  return {
    starts: own.length,
    captureBeforeReadySeconds: of((c) => c.captureBeforeReadySeconds),
    capturesAloneSeconds: of((c) => c.capturesAloneSeconds),
    spawnToReadySeconds: of((c) => c.spawnToReadySeconds),
    spawnToFirstTokenSeconds: of((c) => c.spawnToFirstTokenSeconds),
    ...(settled.length === 0 ? {} : { readyToSettledSeconds: bootstrapMean(settled) }),
    graphMiB: of((c) => c.graphBytes / MIB),
    ...(longest.length === 0 ? {} : { longestCaptureMs: bootstrapMean(longest) }),
    ...(stalls.length === 0
      ? {}
      : { longestStallMs: bootstrapMean(stalls), worstStallMs: Math.max(...stalls) }),
    ...(first?.graphsPlanned === undefined
      ? {}
      : { graphs: `${first.graphsCaptured} of ${first.graphsPlanned}` }),
    tpotMs: perLevel(own, (c, level) => tpot(c, level)),
    ...(pairs.length === 0 ? {} : { versusStock: against(pairs) }),
  };
}

interface Pair {
  readonly cell: CellResult;
  readonly base: CellResult;
}

function against(pairs: readonly Pair[]): NonNullable<ModeSummary["versusStock"]> {
  const of = (pick: (pair: Pair) => number) => bootstrapMean(pairs.map(pick));
  const saved = (p: Pair) => p.base.spawnToFirstTokenSeconds - p.cell.spawnToFirstTokenSeconds;
  return {
    captureShare: of((p) => p.cell.captureBeforeReadySeconds / p.base.captureBeforeReadySeconds),
    capturesAloneShare: of((p) => p.cell.capturesAloneSeconds / p.base.capturesAloneSeconds),
    firstTokenSavedSeconds: of(saved),
    savedShareOfCapture: of((p) => saved(p) / p.base.captureBeforeReadySeconds),
    tpotRatio: Object.fromEntries(
      levels(pairs.map((p) => p.cell)).map((level) => [
        level,
        of((p) => tpot(p.cell, level) / tpot(p.base, level)),
      ]),
    ),
  };
}

function levels(cells: readonly CellResult[]): number[] {
  return cells[0]?.decode.map((d) => d.concurrent) ?? [];
}

function tpot(cell: CellResult, level: number): number {
  const found = cell.decode.find((d) => d.concurrent === level);
  if (found === undefined) throw new Error(`No decode figures at ${level} concurrent requests.`);
  return mean(found.tpotMs);
}

function perLevel(
  cells: readonly CellResult[],
  pick: (cell: CellResult, level: number) => number,
): Record<string, Interval> {
  return Object.fromEntries(
    levels(cells).map((level) => [level, bootstrapMean(cells.map((cell) => pick(cell, level)))]),
  );
}

export function printSummary(summary: Summary): void {
  const names = Object.keys(summary.modes);
  const lines = [
    `| ${summary.model} | ${names.join(" | ")} |`,
    `|---|${names.map(() => "---").join("|")}|`,
  ];
  const add = (label: string, pick: (mode: ModeSummary) => string) => {
    lines.push(
      `| ${label} | ${names.map((n) => pick(summary.modes[n] as ModeSummary)).join(" | ")} |`,
    );
  };
  add("starts", (m) => String(m.starts));
  add("seconds in capture before ready", (m) => show(m.captureBeforeReadySeconds, 3));
  add("of these in the captures alone", (m) => show(m.capturesAloneSeconds, 3));
  add("spawn to ready, s", (m) => show(m.spawnToReadySeconds, 2));
  add("spawn to first token, s", (m) => show(m.spawnToFirstTokenSeconds, 2));
  add("ready to settled, s", (m) => show(m.readyToSettledSeconds, 2));
  add("graphs before traffic", (m) => m.graphs ?? "all");
  add("graph memory, MiB", (m) => show(m.graphMiB, 0));
  add("longest single capture, ms", (m) => show(m.longestCaptureMs, 1));
  add("longest stall after ready, ms", (m) => show(m.longestStallMs, 1));
  add("worst of these, ms", (m) => m.worstStallMs?.toFixed(1) ?? "–");
  for (const level of Object.keys(summary.modes[names[0] as string]?.tpotMs ?? {})) {
    add(`ms per output token, ${level} concurrent`, (m) => show(m.tpotMs[level], 2));
  }
  add("capture before ready / stock's", (m) => show(m.versusStock?.captureShare, 4));
  add("captures alone / stock's", (m) => show(m.versusStock?.capturesAloneShare, 4));
  add("saved of stock's capture seconds", (m) => show(m.versusStock?.savedShareOfCapture, 2));
  for (const level of Object.keys(summary.modes[names[0] as string]?.tpotMs ?? {})) {
    add(`time per token / stock's, ${level}`, (m) => show(m.versusStock?.tpotRatio[level], 4));
  }
  console.log(lines.join("\n"));
}

function show(interval: Interval | undefined, digits: number): string {
  if (interval === undefined) return "–";
  const [at, low, high] = [interval.mean, interval.low, interval.high].map((v) =>
    v.toFixed(digits),
  );
  return `${at} (${low}–${high})`;
}
