/** What a report comes to, in words: each mode against the baseline, load by load. Pure text. */

import { counted } from "../base/counted.ts";
import type { Estimate } from "./bootstrap.ts";
import { loadsOf } from "./glance.ts";
import { numberText, rangeText } from "./rows.ts";
import type { RunFigures } from "./run-figures.ts";
import { difference, type ModeFigures, type Summary } from "./summary.ts";

/** One sentence for each mode other than the baseline; of a single mode, what it is. */
export function conclusions(summary: Pick<Summary, "cells" | "baseline">): string[] {
  const loads = loadsOf(summary.cells);
  return loads.flatMap((load) => {
    const cells = summary.cells.filter((cell) => cell.load === load);
    const base = cells.find(({ mode }) => mode === summary.baseline);
    const others = cells.filter((cell) => cell !== base);
    const under = loads.length > 1 ? `Under ${load}: ` : "";
    if (base === undefined) return others.map((cell) => `${under}${alone(cell)}`);
    if (others.length === 0) return [`${under}${alone(base)}`];
    return others.map((cell) => `${under}${against(cell, base)}`);
  });
}

function alone({ mode, windows, runs }: ModeFigures): string {
  const { p50, p99 } = windows.all?.ttftEstimates ?? {};
  const completed = runs.reduce((sum, run) => sum + run.completed, 0);
  if (p50 === undefined) return `${mode} completed no request.`;
  const tail = p99 === undefined ? "" : `, 99% within ${numberText(p99.value)} ms`;
  return (
    `${mode} gave the first token after ${numberText(p50.value)} ms at the median${tail}, over ` +
    `${counted(completed, "request")} in ${runsOf(runs.length)}.`
  );
}

function against(cell: ModeFigures, base: ModeFigures): string {
  const parts = [start(cell, base), firstToken(cell, base), pace(cell)];
  const said = parts.filter((part) => part !== undefined);
  const name = `${cell.mode} against ${base.mode}`;
  if (said.length === 0) return `${name}: no figure of both can be compared.`;
  return `${name}: ${said.join("; ")}.`;
}

function start(cell: ModeFigures, base: ModeFigures): string | undefined {
  const each = (read: (run: RunFigures) => number | undefined): Estimate | undefined =>
    difference(
      base.runs.flatMap((run) => read(run) ?? []),
      cell.runs.flatMap((run) => read(run) ?? []),
    );
  const ready = each((run) => run.spawnToReadySeconds);
  if (ready === undefined) return undefined;
  if (isSingle(ready)) return `ready ${signed(ready.value, "s")} (one run: no interval)`;
  if (ready.low <= 0 && ready.high >= 0) return "ready at no certainly different time";
  return `ready ${signed(ready.value, "s")} (95%: ${range(ready)} s)`;
}

function signed(seconds: number, unit: string): string {
  return `${numberText(Math.abs(seconds))} ${unit} ${seconds >= 0 ? "sooner" : "later"}`;
}

function range({ low, high }: Estimate): string {
  const [from = 0, to = 0] = [Math.abs(low), Math.abs(high)].sort((a, b) => a - b);
  return rangeText(from, to);
}

function firstToken(cell: ModeFigures, base: ModeFigures): string | undefined {
  const ratio = cell.versusBaseline?.ttft.all?.p50;
  if (ratio !== undefined) return `median time to first token ${times(ratio)}`;
  const saved = cell.versusBaseline?.firstMinuteSavedSecondsPerRequest;
  if (saved === undefined) return undefined;
  const single = isSingle(saved);
  if (!single && saved.low <= 0 && saved.high >= 0) {
    return "a request of the first minute waits no certainly different time";
  }
  const less = saved.value >= 0 ? "less" : "more";
  return (
    `a request of the first minute waits ${numberText(Math.abs(saved.value))} s ${less} than with ` +
    base.mode +
    (single ? " (one run: no interval)" : "")
  );
}

function pace(cell: ModeFigures): string | undefined {
  const ratio = cell.versusBaseline?.tpot.all?.p50;
  return ratio === undefined ? undefined : `median time per output token ${times(ratio)}`;
}

function times(ratio: Estimate): string {
  const { value, low, high } = ratio;
  if (isSingle(ratio)) return `${numberText(value)} times as long (one request: no interval)`;
  const interval = `95%: ${rangeText(low, high)}`;
  if (low <= 1 && high >= 1) return `not certainly different (${interval})`;
  return `${numberText(value)} times as long (${interval})`;
}

function isSingle({ low }: Estimate): boolean {
  return low === -Infinity;
}

function runsOf(count: number): string {
  return count === 1 ? "one run" : `${count} runs`;
}
