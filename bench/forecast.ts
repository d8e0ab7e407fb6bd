/**
 * `npm run bench:forecast [FOLDER]`: how well what remains after the first graph of each kind is
 * forecast, on every raw result in the folder (default bench/results), with constants fitted on the
 * other models only. Hypothesis: within 15% or 16 MiB, and nine in ten inside the error bar.
 *
 * Plans smaller than a whole run are subsets of it: the same readings, fewer of them. Runs of
 * several models are needed; what a run must look like is told in bench/lib/graph-memory.ts.
 */

import { pathToFileURL } from "node:url";
import type { Graph } from "../src/base/graph.ts";
import { topGraphs } from "../src/base/graph.ts";
import { MIB } from "../src/base/units.ts";
import type { ForecastConstants } from "../src/memory/constants.ts";
import { MemoryForecast } from "../src/memory/forecast.ts";
import { distinct, fitConstants, type MeasuredRun, readRuns } from "./lib/graph-memory.ts";
import { writeResult } from "./lib/result-file.ts";

const RESULTS = new URL("./results/", import.meta.url);

const PLANS: Readonly<Record<string, (graph: Graph) => boolean>> = {
  "all sizes": () => true,
  "powers of two": ({ tokens }) => Number.isInteger(Math.log2(tokens)),
  "up to 64": ({ tokens }) => tokens <= 64,
  "up to 256": ({ tokens }) => tokens <= 256,
  "every third": ({ tokens }) => tokens % 24 === 8 || tokens < 8,
};

interface Case {
  readonly model: string;
  readonly run: string;
  readonly plan: string;
  readonly graphs: number;
  readonly forecastMib: number;
  readonly errorMib: number;
  readonly measuredMib: number;
  readonly offShare: number;
  /** Within 15% or 16 MiB. */
  readonly close: boolean;
  /** Inside the error bar. */
  readonly covered: boolean;
}

function caseOf(run: MeasuredRun, plan: string, constants: ForecastConstants): Case {
  const keeps = PLANS[plan] as (graph: Graph) => boolean;
  const planned = run.graphs.map(({ graph }) => graph);
  const { layers, ranks, activationPeakBytes } = run;
  const shape = { layers, ranks, activationPeakBytes };
  const forecast = new MemoryForecast(planned, shape, new Map(), constants);
  const tops = new Set(topGraphs(planned).map(({ id }) => id));
  let poolTokens = 0;
  for (const { graph, bytes } of run.graphs) {
    if (!tops.has(graph.id)) continue;
    forecast.observe(graph, bytes, poolTokens);
    poolTokens = Math.max(poolTokens, graph.tokens);
  }
  const rest = run.graphs.filter(({ graph }) => !tops.has(graph.id) && keeps(graph));
  const graphs = rest.map(({ graph }) => ({ graph, pool: 0 }));
  const { bytes, errorBytes } = forecast.rest(graphs, new Map([[0, poolTokens]]));
  const measured = rest.reduce((sum, entry) => sum + entry.bytes, 0);
  const off = bytes - measured;
  return {
    model: run.model,
    run: `${run.name} (${run.file})`,
    plan,
    graphs: rest.length,
    forecastMib: round(bytes / MIB),
    errorMib: round(errorBytes / MIB),
    measuredMib: round(measured / MIB),
    offShare: Number((off / measured).toFixed(3)),
    close: Math.abs(off) <= Math.max(0.15 * measured, 16 * MIB),
    covered: Math.abs(off) <= errorBytes,
  };
}

function round(value: number): number {
  return Number(value.toFixed(1));
}

function main(folder: URL): void {
  const runs = distinct(readRuns(folder));
  const models = [...new Set(runs.map((run) => run.model))];
  if (models.length < 2) {
    throw new Error(`Expected runs of at least two models in ${folder.pathname}, got ${models}.`);
  }
  const cases = models.flatMap((model) => {
    const constants = fitConstants(runs.filter((run) => run.model !== model));
    return runs
      .filter((run) => run.model === model)
      .flatMap((run) => Object.keys(PLANS).map((plan) => caseOf(run, plan, constants)));
  });
  process.stdout.write("| model | run | plan | graphs left | forecast MiB | measured | off | |\n");
  process.stdout.write("|---|---|---|---|---|---|---|---|\n");
  for (const entry of cases) {
    const verdict = `${entry.close ? "close" : "NOT close"}, ${entry.covered ? "covered" : "NOT covered"}`;
    const off = `${(100 * entry.offShare).toFixed(1)}%`;
    process.stdout.write(
      `| ${entry.model} | ${entry.run} | ${entry.plan} | ${entry.graphs} | ` +
        `${entry.forecastMib} ± ${entry.errorMib} | ${entry.measuredMib} | ${off} | ${verdict} |\n`,
    );
  }
  const covered = cases.filter((entry) => entry.covered).length;
  const close = cases.filter((entry) => entry.close).length;
  const all = fitConstants(runs);
  process.stdout.write(
    `\n${close} of ${cases.length} within 15% or 16 MiB, ${covered} inside the error bar ` +
      `(aim: 90%); ${runs.length} runs of ${models.join(", ")}.\n` +
      `Fitted on all: ${(all.pieceBytes / MIB).toFixed(4)} MiB a piece, ` +
      `${(all.layerBytes / MIB).toFixed(4)} MiB a layer.\n`,
  );
  if (folder.href !== RESULTS.href) return;
  const document = { what: "forecast", method: "leave one model out", fittedOnAll: all, cases };
  writeResult(new URL("forecast.json.gz", RESULTS), document);
}

const folder = process.argv[2];
main(folder === undefined ? RESULTS : pathToFileURL(`${folder.replace(/\/$/, "")}/`));
