/** The report of a folder: every run that is there, whole or partial, in four forms. */

import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { makeFolder } from "../base/make-folder.ts";
import { aiperfRecords } from "./aiperf-records.ts";
import { benchmarkReport } from "./benchmark-report.ts";
import { htmlOf } from "./html.ts";
import { markdownOf } from "./markdown.ts";
import { plotsOf } from "./plots.ts";
import type { CellRun } from "./samples.ts";
import {
  folderError,
  readFacts,
  readHeads,
  readRun,
  runName,
  writable,
  writeWhole,
} from "./store.ts";
import { type Summary, summarise } from "./summary.ts";
import { traceEvents } from "./trace-events.ts";
import { vllmResult } from "./vllm-result.ts";

export interface WrittenReport {
  readonly summary: Summary;
  readonly markdown: string;
  readonly files: readonly string[];
}

/**
 * Writes report.html, report.json and report.md into the folder, and for each run a timeline
 * (`traces/*.json.gz`) and the run in the forms of `vllm bench serve` (`vllm/*.json`), llm-d
 * (`llm-d/*.json`) and AIPerf (`aiperf/*.jsonl`).
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` for a folder without a run, or that can't be read
 */
export async function writeReport(folder: string): Promise<WrittenReport> {
  const { title, baseline, goodput, modes: known } = await readFacts(folder);
  const runs: CellRun[] = [];
  for (const head of await readHeads(folder)) runs.push(await readRun(folder, head));
  if (runs.length === 0) throw folderError(folder, "a folder with at least one run", "none");
  const present = runs.map(({ cell }) => cell.mode);
  // The baseline may be a cell of another day.
  const base = present.includes(baseline) ? baseline : (present[0] as string);
  const summary = summarise({ title, baseline: base, goodput, runs });
  const modes = [...new Set([base, ...known, ...present])].filter((mode) => present.includes(mode));
  const loads = [...new Set(runs.map(({ cell }) => cell.load))];
  const plots = new Map(
    loads.map((load) => [
      load,
      plotsOf(
        runs.filter(({ cell }) => cell.load === load),
        modes,
      ),
    ]),
  );
  const ordered = { ...summary, cells: sortedBy(summary.cells, modes) };
  const markdown = markdownOf(ordered);
  const madeAt = new Date().toISOString();
  const files = {
    "report.html": htmlOf({ summary: ordered, plots, madeAt }),
    "report.json": `${JSON.stringify(ordered)}\n`,
    "report.md": markdown,
  };
  for (const [name, text] of Object.entries(files)) await writeWhole(join(folder, name), text);
  for (const name of ["traces", "vllm", "llm-d", "aiperf"]) {
    const path = join(folder, name);
    await writable(path, makeFolder(path));
  }
  for (const run of runs) {
    const name = runName(run.cell);
    const events = gzipSync(JSON.stringify(traceEvents(run)));
    await writeWhole(join(folder, "traces", `${name}.json.gz`), events);
    const result = JSON.stringify(vllmResult(run, goodput));
    await writeWhole(join(folder, "vllm", `${name}.json`), `${result}\n`);
    const report = JSON.stringify(benchmarkReport(run));
    await writeWhole(join(folder, "llm-d", `${name}.json`), `${report}\n`);
    await writeWhole(join(folder, "aiperf", `${name}.jsonl`), aiperfRecords(run));
  }
  return {
    summary: ordered,
    markdown,
    files: Object.keys(files).map((name) => join(folder, name)),
  };
}

/** The baseline first, then as the runs name them. */
function sortedBy(cells: Summary["cells"], modes: readonly string[]): Summary["cells"] {
  return [...cells].sort((a, b) => modes.indexOf(a.mode) - modes.indexOf(b.mode));
}
