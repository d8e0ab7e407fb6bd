/**
 * Raw results about the memory of graphs, in the order of their capture, and what can be fitted
 * on them. Two kinds of files under bench/results are read:
 *
 * - `"what": "graph-memory"`: `model`, `layers`, `ranks`, `measured` (how), and `graphs`, a list of
 *   `{ kind, tokens, bytes }` in the order of capture, bytes of the largest rank; several starts go
 *   into `runs`, a list of `{ name, graphs, activationPeakBytes? }`, instead of `graphs`. This is
 *   what a script under bench/gpu has to write.
 * - `"what": "main-job"`: the controller's last snapshot of each start that captured everything.
 */

import { readdirSync } from "node:fs";
import type { Graph, GraphKind } from "../../src/base/graph.ts";
import { bySizeDescending, topGraphs } from "../../src/base/graph.ts";
import { MIB } from "../../src/base/units.ts";
import type { ForecastConstants } from "../../src/memory/constants.ts";
import { readResult } from "./result-file.ts";

export interface MeasuredRun {
  readonly file: string;
  readonly name: string;
  readonly model: string;
  readonly layers: number;
  readonly ranks: number;
  readonly activationPeakBytes: number;
  /** In the order of capture: the top graph of each kind first. */
  readonly graphs: readonly { readonly graph: Graph; readonly bytes: number }[];
}

interface RawGraph {
  readonly kind: GraphKind;
  readonly tokens: number;
  readonly bytes: number;
}

/** Layers of models in results that don't tell. */
const LAYERS: Readonly<Record<string, number>> = {
  "llama-3.1-8b": 32,
  "qwen3-0.6b": 28,
  "llama-3.2-3b": 28,
  "llama-3.1-70b": 80,
};

/** Every run in a folder that has the memory of all its graphs, in order of file and name. */
export function readRuns(folder: URL): MeasuredRun[] {
  const files = readdirSync(folder).filter((file) => /\.json(\.(gz|br))?$/.test(file));
  return files.sort().flatMap((file) => {
    const raw = readResult<{ what?: string }>(new URL(file, folder));
    if (raw.what === "graph-memory") return graphMemoryRuns(file, raw as GraphMemoryFile);
    if (raw.what === "main-job") return mainJobRuns(file, raw as MainJobFile);
    return [];
  });
}

interface GraphMemoryFile {
  readonly model: string;
  readonly layers: number;
  readonly ranks: number;
  readonly activationPeakBytes?: number;
  readonly measured?: string;
  readonly graphs?: readonly RawGraph[];
  readonly runs?: readonly {
    readonly name: string;
    readonly activationPeakBytes?: number;
    readonly graphs: readonly RawGraph[];
  }[];
}

function graphMemoryRuns(file: string, raw: GraphMemoryFile): MeasuredRun[] {
  const { model, layers, ranks, activationPeakBytes = 0 } = raw;
  const name = raw.measured?.startsWith("one graph a command") ? "one by one" : "all in one go";
  const runs = raw.runs ?? [{ name, graphs: raw.graphs ?? [] }];
  return runs.map((run) => ({
    file,
    name: run.name,
    model,
    layers,
    ranks,
    activationPeakBytes: run.activationPeakBytes ?? activationPeakBytes,
    graphs: inOrder(run.graphs),
  }));
}

interface MainJobFile {
  readonly model: string;
  readonly cells: readonly {
    readonly mode: string;
    readonly round: number;
    readonly engine?: {
      readonly tensorParallel: number;
      readonly pipelineParallel: number;
      readonly ranks: readonly { readonly activationPeakBytes: number }[];
      readonly graphs: readonly (RawGraph & { readonly status: string })[];
    };
  }[];
}

function mainJobRuns(file: string, raw: MainJobFile): MeasuredRun[] {
  return raw.cells.flatMap(({ mode, round, engine }) => {
    if (engine === undefined || engine.graphs.some(({ status }) => status !== "captured"))
      return [];
    return {
      file,
      name: `${mode} ${round}`,
      model: raw.model,
      layers: LAYERS[raw.model] ?? 0,
      ranks: engine.tensorParallel * engine.pipelineParallel,
      activationPeakBytes: Math.max(...engine.ranks.map((rank) => rank.activationPeakBytes)),
      graphs: inOrder(engine.graphs),
    };
  });
}

/** A snapshot lists graphs in stock's order, where the tops are not next to each other. */
function inOrder(raw: readonly RawGraph[]): MeasuredRun["graphs"] {
  const graphs = raw.map(({ kind, tokens, bytes }) => ({
    graph: {
      id: `${kind}:${tokens}`,
      kind,
      tokens,
      ...(kind === "FULL" ? { requests: tokens, uniform: 1 } : {}),
    } satisfies Graph,
    bytes,
  }));
  const tops = new Set(topGraphs(graphs.map(({ graph }) => graph)).map(({ id }) => id));
  const isTop = (entry: { graph: Graph }): boolean => tops.has(entry.graph.id);
  return [...graphs.filter(isTop), ...graphs.filter((entry) => !isTop(entry))];
}

/** Runs that are the same to the byte say nothing new: the first of them stays. */
export function distinct(runs: readonly MeasuredRun[]): MeasuredRun[] {
  const seen = new Set<string>();
  return runs.filter((run) => {
    const key = run.model + run.graphs.map(({ graph, bytes }) => `${graph.id}=${bytes}`).join();
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

/** A reading this far over its kind's mean is a step of the pool, not a graph. */
const LATE_BYTES = 5 * MIB;

/** The constants that these runs alone suggest: every model counts the same. */
export function fitConstants(runs: readonly MeasuredRun[]): ForecastConstants {
  const models = [...new Set(runs.map((run) => run.model))];
  const fits = models.map((model) => averageFit(runs.filter((run) => run.model === model)));
  return {
    pieceBytes: mean(fits.map((fit) => fit.pieceBytes)),
    layerBytes: mean(fits.map((fit) => fit.layerBytes)),
  };
}

function averageFit(runs: readonly MeasuredRun[]): ForecastConstants {
  return {
    pieceBytes: mean(runs.map((run) => usualBytes(run, "PIECEWISE") / (run.layers + 1))),
    layerBytes: mean(runs.map((run) => usualBytes(run, "FULL") / run.layers)),
  };
}

/** Mean of a kind without its top, which holds the pool, and without late steps of the pool. */
function usualBytes({ graphs }: MeasuredRun, kind: GraphKind): number {
  const own = graphs.filter(({ graph }) => graph.kind === kind);
  const [top] = own.map(({ graph }) => graph).sort(bySizeDescending);
  const readings = own.filter(({ graph }) => graph !== top).map(({ bytes }) => bytes);
  const all = mean(readings);
  return mean(readings.filter((bytes) => bytes <= all + LATE_BYTES));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
