/** The first tables of a report: for each load a column per mode, start-up first. Pure text. */

import {
  estimateText,
  failuresText,
  interval,
  NONE,
  plannedText,
  type Row,
  runsText,
  scalar,
  type Text,
  whole,
} from "./rows.ts";
import type { ModeFigures, Summary } from "./summary.ts";

export interface GlanceTable {
  readonly modes: readonly string[];
  readonly rows: readonly Row[];
}

export interface GlanceLoad {
  readonly load: string;
  /** One, or several where there are more modes than fit beside each other. */
  readonly tables: readonly GlanceTable[];
}

/** Columns of figures that fit a page of 1,120 pixels. */
const MODES_MAX = 6;

/** Rows that no mode has a figure for are left out. */
export function glanceOf({ cells, baseline }: Pick<Summary, "cells" | "baseline">): GlanceLoad[] {
  return loadsOf(cells).map((load) => {
    const own = cells.filter((cell) => cell.load === load);
    return { load, tables: groupsOf(own, baseline).map((group) => tableOf(group, baseline)) };
  });
}

/** Each group has the baseline in it, which the others are read against. */
function groupsOf(cells: readonly ModeFigures[], baseline: string): ModeFigures[][] {
  if (cells.length <= MODES_MAX) return [[...cells]];
  const base = cells.filter(({ mode }) => mode === baseline);
  const others = cells.filter(({ mode }) => mode !== baseline);
  const size = MODES_MAX - base.length;
  return Array.from({ length: Math.ceil(others.length / size) }, (_, index) => [
    ...base,
    ...others.slice(index * size, (index + 1) * size),
  ]);
}

function tableOf(cells: readonly ModeFigures[], baseline: string): GlanceTable {
  const rows = rowsOf(baseline)
    .map(([title, text]) => ({ title, cells: cells.map((cell) => text(cell) ?? NONE) }))
    .filter((row) => row.cells.some((cell) => cell !== NONE));
  return { modes: cells.map(({ mode }) => mode), rows };
}

/** As they were first run, which is how the benchmark's author listed them. */
export function loadsOf(cells: Summary["cells"]): string[] {
  const started = new Map<string, string>();
  for (const { load, runs } of cells) {
    for (const { startedAt } of runs) {
      const known = started.get(load);
      if (known === undefined || startedAt < known) started.set(load, startedAt);
    }
  }
  // Times are ISO 8601 in UTC, which sort as text.
  return [...started].sort(([, a], [, b]) => (a < b ? -1 : 1)).map(([load]) => load);
}

function rowsOf(baseline: string): readonly (readonly [title: string, text: Text])[] {
  return [
    ["spawn to ready, s", scalar("spawnToReadySeconds")],
    ["spawn to first token, s", scalar("spawnToFirstTokenSeconds")],
    ["capture before ready, s", scalar("captureBeforeReadySeconds")],
    ["ready to settled, s", scalar("readyToSettledSeconds")],
    ["wait from spawn, s a request", scalar("firstMinuteWaitSecondsPerRequest")],
    ["TTFT p50, ms", ({ windows }) => estimateText(windows.all?.ttftEstimates?.p50)],
    ["TTFT p99, ms", ({ windows }) => estimateText(windows.all?.ttftEstimates?.p99)],
    [
      `TTFT p50 over ${baseline}'s steady`,
      ({ versusBaseline }) => estimateText(versusBaseline?.ttft.all?.p50),
    ],
    [
      "time per output token p50, ms",
      ({ windows }) => estimateText(windows.all?.tpotEstimates?.p50),
    ],
    ["first token delayed by a capture, share", scalar("shareDelayed")],
    ["met a capture, share", scalar("shareMet")],
    ["graphs", plannedText],
    ["graph memory, MiB", ({ scalars }) => interval(scalars.graphMiB)],
    ["requests", requestsText],
    ["runs", runsText],
  ];
}

function requestsText(cell: ModeFigures): string {
  const completed = cell.runs.reduce((total, run) => total + run.completed, 0);
  const failed = failuresText(cell);
  return `${whole(completed)}${failed === "0" ? "" : `, failed ${failed}`}`;
}
