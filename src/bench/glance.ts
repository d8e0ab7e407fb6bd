/** The first table of a report: every mode under every load, one line each. Pure text. */

import {
  estimateText,
  failuresText,
  interval,
  NONE,
  plannedText,
  runsText,
  scalar,
  type Text,
  whole,
} from "./rows.ts";
import type { ModeFigures, Summary } from "./summary.ts";

export interface Glance {
  /** Names of the columns; the first names modes. */
  readonly head: readonly string[];
  readonly loads: readonly {
    readonly load: string;
    readonly rows: readonly (readonly string[])[];
  }[];
}

/** Columns that no mode has a figure for are left out. */
export function glanceOf({ cells, baseline }: Pick<Summary, "cells" | "baseline">): Glance {
  const columns = columnsOf(baseline).filter(([, text]) => cells.some((cell) => text(cell)));
  const loads = loadsOf(cells).map((load) => ({
    load,
    rows: cells
      .filter((cell) => cell.load === load)
      .map((cell) => [cell.mode, ...columns.map(([, text]) => text(cell) ?? NONE)]),
  }));
  return { head: ["mode", ...columns.map(([title]) => title)], loads };
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

function columnsOf(baseline: string): readonly (readonly [title: string, text: Text])[] {
  return [
    ["runs", runsText],
    ["requests", requestsText],
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
    ["wait from spawn, s a request", scalar("firstMinuteWaitSecondsPerRequest")],
    ["spawn to ready, s", scalar("spawnToReadySeconds")],
    ["ready to settled, s", scalar("readyToSettledSeconds")],
    ["graphs", plannedText],
    ["graph memory, MiB", ({ scalars }) => interval(scalars.graphMiB)],
  ];
}

function requestsText(cell: ModeFigures): string {
  const completed = cell.runs.reduce((total, run) => total + run.completed, 0);
  const failed = failuresText(cell);
  return `${whole(completed)}${failed === "0" ? "" : `, failed ${failed}`}`;
}
