/** The runs of one load side by side: whether they agree is seen before they are pooled. Pure. */

import { isDisturbed } from "./disturbed.ts";
import type { PlotTable } from "./plots.ts";
import { NONE, numberText, whole } from "./rows.ts";
import type { RunFigures } from "./run-figures.ts";
import type { ModeFigures } from "./summary.ts";

type Column = readonly [title: string, text: (run: RunFigures) => string | undefined];

const COLUMNS: readonly Column[] = [
  ["spawn to ready, s", (run) => numberText(run.spawnToReadySeconds)],
  ["ready to settled, s", (run) => numberText(run.readyToSettledSeconds)],
  ["TTFT p50, ms", (run) => numberText(run.ttft?.p50)],
  ["TTFT p99, ms", (run) => numberText(run.ttft?.p99)],
  ["time per output token p50, ms", (run) => numberText(run.tpot?.p50)],
  ["completed", (run) => `${whole(run.completed)} of ${whole(run.requests)}`],
  ["generator late p99, ms", (run) => numberText(run.generatorLateP99Ms)],
  ["", remark],
];

/** Undefined of a single run, which the other tables are. */
export function runTable(cells: readonly ModeFigures[]): PlotTable | undefined {
  const runs = cells.flatMap(({ mode, runs }) => runs.map((run) => ({ mode, run })));
  if (runs.length === cells.length) return undefined;
  const columns = COLUMNS.filter(([, text]) => runs.some(({ run }) => text(run) !== undefined));
  return {
    head: ["run", ...columns.map(([title]) => title)],
    rows: runs.map(({ mode, run }) => [
      `${mode} ${run.run}`,
      ...columns.map(([, text]) => text(run) ?? NONE),
    ]),
  };
}

function remark(run: RunFigures): string | undefined {
  const parts = [
    run.status === "partial" ? "partial" : undefined,
    isDisturbed(run) ? "too busy" : undefined,
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? undefined : parts.join(", ");
}
