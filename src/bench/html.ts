/** The report as one HTML file that needs no network: text and tables as they are, plots by uPlot. */

import { GIB, MIB } from "../base/units.ts";
import { cautions } from "./cautions.ts";
import { conclusions } from "./conclusion.ts";
import { type GlanceTable, glanceOf, loadsOf } from "./glance.ts";
import { loadText } from "./load.ts";
import { bodyRow, columnHead, pageOf, table, text, wide } from "./page.ts";
import type { Plot, Series } from "./plots.ts";
import { explanation, numberText, rowGroups } from "./rows.ts";
import type { RunFigures } from "./run-figures.ts";
import { runTable } from "./run-table.ts";
import type { ModeFigures, Summary } from "./summary.ts";

export interface ReportPage {
  readonly summary: Summary;
  /** By load. */
  readonly plots: ReadonlyMap<string, readonly Plot[]>;
  readonly madeAt: string;
}

const GRAPHS_SHOWN = 30;

export function htmlOf(page: ReportPage): string {
  const { summary, plots } = page;
  const loads = loadsOf(summary.cells);
  const numbered = loads.flatMap((load) => plots.get(load) ?? []);
  const sections = loads.map(
    (load, index) =>
      `<section id="load-${index}" aria-label="${text(load)}">${loadSection(summary, load, plots.get(load) ?? [], numbered)}</section>`,
  );
  return pageOf({
    title: summary.title,
    cautions: cautions(summary),
    body: `${glanceSection(summary, loads)}
<p class="muted">${text(explanation(summary))} Made ${text(page.madeAt)}.</p>
${sections.join("\n")}
${howSection(summary)}`,
    plots: numbered.map(drawable),
  });
}

/** What the page's script needs; the table is in the page already. */
function drawable({ table: _, ...plot }: Plot): object {
  return plot;
}

/** What it comes to in words, then a table for each load, whose name leads to its section. */
function glanceSection(summary: Summary, loads: readonly string[]): string {
  const said = conclusions(summary).map((sentence) => `<li>${text(sentence)}</li>`);
  const tables = glanceOf(summary).flatMap(({ load, tables: own }) =>
    own.map((one) => glanceTable(one, load, loads.indexOf(load))),
  );
  const title = "At a glance";
  return `<section aria-label="${title}"><h2>${title}</h2>
<ul class="conclusion">${said.join("")}</ul>
${tables.join("\n")}
</section>`;
}

/** On a narrow page each row is a block of its own, where every figure has its mode beside it. */
function glanceTable({ modes, rows }: GlanceTable, load: string, index: number): string {
  const head = modes.map(columnHead).join("");
  const body = rows.map(({ title, cells }) => {
    const figures = cells.map(
      (cell, at) => `<td data-mode="${text(modes[at] ?? "")}">${figureText(cell)}</td>`,
    );
    return `<tr><th scope="row">${text(title)}</th>${figures.join("")}</tr>`;
  });
  const link = `<a href="#load-${index}">${text(load)}</a>`;
  return `<table class="glance"><thead><tr><th scope="col">${link}</th>${head}</tr></thead><tbody>${body.join("")}</tbody></table>`;
}

/** A figure and its interval, which goes into a line of its own where there is no room. */
function figureText(cell: string): string {
  const [, value = cell, interval] = /^(.*?) (\(.*\))$/s.exec(cell) ?? [];
  if (interval === undefined) return text(cell);
  return `${text(value)} <span class="interval">${text(interval)}</span>`;
}

function runsSection(cells: readonly ModeFigures[]): string {
  const runs = runTable(cells);
  return runs === undefined ? "" : `<h3>Run by run</h3>${table(runs, "Run by run")}`;
}

function loadSection(
  summary: Summary,
  load: string,
  plots: readonly Plot[],
  numbered: readonly Plot[],
): string {
  const cells = summary.cells.filter((cell) => cell.load === load);
  const figures = plots.map((plot) => figure(plot, numbered.indexOf(plot)));
  return `<h2>${text(load)}</h2>
<p class="muted">${text(loadText(summary.loads[load]))}</p>
${figures.join("\n")}
${runsSection(cells)}
<h3>All figures</h3>
${figuresTable(cells, load)}
${cells.map(graphsOf).join("\n")}
${failedRuns(cells)}`;
}

function figure(plot: Plot, number: number): string {
  const keys = plot.series.map((series) => key(series, plot.kind === "points"));
  const mark =
    plot.marks.length === 0
      ? ""
      : '<li data-key="0" data-mark data-plain="1"><svg viewBox="0 0 32 12" aria-hidden="true"><line x1="0" y1="6" x2="32" y2="6" stroke-width="6"/></svg>capture</li>';
  return `<h3>${text(plot.title)}</h3>
<p class="muted">${text(plot.description)}</p>
<ul class="keys">${keys.join("")}${mark}</ul>
<div class="plot" data-plot="${number}" role="img" aria-label="${text(`${plot.title}. ${plot.description}. Its table follows.`)}"></div>
<details><summary>Table: ${text(plot.title)}</summary>${table(plot.table, plot.title)}</details>`;
}

function key({ name, colour }: Series, plain: boolean): string {
  const solid = plain ? ' data-plain="1"' : "";
  return `<li data-key="${colour}"${solid}><svg viewBox="0 0 32 12" aria-hidden="true"><line x1="0" y1="6" x2="32" y2="6" stroke-width="3"/></svg>${text(name)}</li>`;
}

function figuresTable(cells: readonly ModeFigures[], load: string): string {
  const head = ["figure", ...cells.map(({ mode }) => mode)].map(columnHead).join("");
  const body = rowGroups(cells).map(({ title, rows }) => {
    const group = `<tr class="group"><th scope="rowgroup" colspan="${cells.length + 1}">${text(title)}</th></tr>`;
    const lines = rows.map((row) => bodyRow([row.title, ...row.cells]));
    return `<tbody>${group}${lines.join("")}</tbody>`;
  });
  return wide(
    `<table><caption>${text(load)}</caption><thead><tr>${head}</tr></thead>${body.join("")}</table>`,
    `All figures of ${load}`,
  );
}

/** Graphs by replays, of the first run that knows them. */
function graphsOf({ mode, runs }: ModeFigures): string {
  const run = runs.find(({ graphs }) => graphs !== undefined);
  const graphs = run?.graphs?.byReplays ?? [];
  if (graphs.length === 0) return "";
  const rows = graphs
    .slice(0, GRAPHS_SHOWN)
    .map(({ id, status, replays, wanted, ms, bytes }) => [
      id,
      status,
      String(replays),
      String(wanted),
      ms === undefined ? "–" : ms.toFixed(1),
      bytes === undefined ? "–" : (bytes / MIB).toFixed(1),
    ]);
  const title = `${mode}: graphs by replays, run ${run?.run}`;
  const shown =
    graphs.length > GRAPHS_SHOWN ? `, the first ${GRAPHS_SHOWN} of ${graphs.length}` : "";
  return `<details><summary>${text(title + shown)}</summary>${table(
    { head: ["graph", "status", "replays", "wanted", "ms", "MiB"], rows },
    title,
  )}</details>`;
}

function failedRuns(cells: readonly ModeFigures[]): string {
  const rows = cells.flatMap(({ mode, runs }) =>
    runs.filter(({ status }) => status === "partial").map((run) => partialRow(mode, run)),
  );
  if (rows.length === 0) return "";
  const title = "Partial runs";
  return `<h3>${title}</h3>${table({ head: ["mode", "run", "completed", "why"], rows }, title)}`;
}

function partialRow(mode: string, { run, completed, requests, reason = "" }: RunFigures): string[] {
  return [mode, String(run), `${completed} of ${requests}`, reason];
}

function howSection({ modes, hosts, cells, baseline }: Summary): string {
  const rows = Object.entries(modes).map(([name, mode]) => [name, JSON.stringify(mode)]);
  const hostRows = hosts.map((host) => [
    host.name,
    `${host.cpus} × ${host.cpuModel}`,
    `${numberText(host.memoryBytes / GIB)} GiB`,
    host.gpus.length === 0 ? "none told" : host.gpus.join(", "),
    host.node,
    host.lazygraph,
  ]);
  const started = cells.flatMap(({ runs }) => runs.map(({ startedAt }) => startedAt)).sort();
  return `<section aria-label="How it was run"><h2>How it was run</h2>
<p>By <code>lazygraph bench</code>, a fresh engine for each run unless a mode names a URL; baseline
${text(baseline)}; ${started.length} ${started.length === 1 ? "run" : "runs"} from ${text(started[0] ?? "–")}
to ${text(started.at(-1) ?? "–")}. Arrivals are open loop: requests go out when due, and latencies
count from then.</p>
${table({ head: ["mode", "engine"], rows }, "Modes")}
${table({ head: ["host", "processor", "memory", "GPUs", "Node", "lazygraph"], rows: hostRows }, "Hosts")}
</section>`;
}
