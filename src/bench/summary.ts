/** All runs of a folder summed up: a mode under a load, its windows, intervals and comparisons. */

import { MIB } from "../base/units.ts";
import {
  bootstrapMean,
  type Distribution,
  distributionOf,
  type Interval,
} from "../measure/statistics.ts";
import { compare, type Estimate, type Estimates, estimate } from "./bootstrap.ts";
import { isDisturbed } from "./disturbed.ts";
import { hostsOf } from "./host.ts";
import { itlMs } from "./latencies.ts";
import type { Load } from "./load.ts";
import { type RunFigures, runFigures } from "./run-figures.ts";
import type { CellRun, HostFacts, RequestRecord } from "./samples.ts";
import type { Goodput, ModeSpec } from "./spec.ts";
import { durationSeconds, isGood } from "./vllm-result.ts";
import {
  completedOf,
  e2eMs,
  inWindow,
  tpotMs,
  ttftMs,
  WINDOWS,
  type WindowName,
} from "./windows.ts";

/** Latencies of the requests of one window, in milliseconds, over all runs. */
export interface WindowFigures {
  readonly requests: number;
  readonly ttft?: Distribution;
  readonly tpot?: Distribution;
  readonly itl?: Distribution;
  readonly e2e?: Distribution;
  /** 95% intervals over runs and requests. */
  readonly ttftEstimates?: Estimates;
  readonly tpotEstimates?: Estimates;
}

type Ratios = Omit<Estimates, "samples" | "runs">;

export interface ModeFigures {
  readonly mode: string;
  readonly load: string;
  readonly simulated?: string;
  readonly runs: readonly RunFigures[];
  readonly partial: number;
  readonly windows: Readonly<Partial<Record<WindowName, WindowFigures>>>;
  readonly goodputPerSecond?: Interval;
  readonly throughputPerSecond?: Interval;
  /** Means over runs, with 95% intervals over runs. */
  readonly scalars: Readonly<Partial<Record<ScalarName, Interval>>>;
  /** Against the baseline under the same load; of the baseline, its own parts. */
  readonly versusBaseline?: Versus;
}

export interface Versus {
  readonly baseline: string;
  /**
   * Ratios of TTFT and of time per output token; the baseline's are its steady ones. None where
   * requests waited for the engine's start, because no part of such a run is steady, and none where
   * the host was too busy for one of the two.
   */
  readonly ttft: Readonly<Partial<Record<WindowName, Ratios>>>;
  readonly tpot: Readonly<Partial<Record<WindowName, Ratios>>>;
  /**
   * Seconds that a request of the first minute from spawn waits less than with the baseline, on
   * average, and in all.
   */
  readonly firstMinuteSavedSecondsPerRequest?: Estimate;
  readonly firstMinuteSavedSeconds?: Estimate;
}

export interface Summary {
  readonly format: 1;
  readonly title: string;
  readonly baseline: string;
  readonly goodput: Goodput;
  readonly simulated: boolean;
  readonly partial: boolean;
  readonly hosts: readonly HostFacts[];
  readonly modes: Readonly<Record<string, ModeSpec>>;
  readonly loads: Readonly<Record<string, Load>>;
  readonly cells: readonly ModeFigures[];
}

export const SCALARS = [
  "spawnToReadySeconds",
  "spawnToFirstTokenSeconds",
  "spawnToSettledSeconds",
  "readyToSettledSeconds",
  "captureBeforeReadySeconds",
  "readyToLastCaptureSeconds",
  "readyToFourFifthsSeconds",
  "capturedShareAt120",
  "longestTokenGapMs",
  "compilationsAfterReady",
  "longestCompilationMs",
  "shareDelayedByCompilation",
  "longestDelayingCaptureMs",
  "longestCaptureMs",
  "shareDelayed",
  "shareMet",
  "graphsCaptured",
  "graphMiB",
  "neverReplayedGraphs",
  "neverReplayedSeconds",
  "neverReplayedMiB",
  "atInitMsPerGraph",
  "atInitMiBPerGraph",
  "betweenStepsMsPerGraph",
  "betweenStepsMiBPerGraph",
  "fullBetweenStepsMsPerGraph",
  "fullBetweenStepsMiBPerGraph",
  "firstMinuteWaitSeconds",
  "firstMinuteWaitSecondsPerRequest",
  "latenessP99Ms",
] as const;

export type ScalarName = (typeof SCALARS)[number];

/** Windows that are compared with the baseline. */
const COMPARED: readonly WindowName[] = ["all", "during", "after", "first120", "later"];

const SCALAR_OF: Readonly<Record<ScalarName, (run: RunFigures) => number | undefined>> = {
  spawnToReadySeconds: (run) => run.spawnToReadySeconds,
  spawnToFirstTokenSeconds: (run) => run.spawnToFirstTokenSeconds,
  spawnToSettledSeconds: (run) => run.spawnToSettledSeconds,
  readyToSettledSeconds: (run) => run.readyToSettledSeconds,
  captureBeforeReadySeconds: (run) => run.captureBeforeReadySeconds,
  readyToLastCaptureSeconds: (run) => run.readyToLastCaptureSeconds,
  readyToFourFifthsSeconds: (run) => run.readyToFourFifthsSeconds,
  capturedShareAt120: (run) => run.capturedShareAt120,
  longestTokenGapMs: (run) => times(run.longestTokenGap?.seconds, 1000),
  compilationsAfterReady: (run) => run.compilationsAfterReady,
  longestCompilationMs: (run) => run.longestCompilationMs,
  shareDelayedByCompilation: (run) => run.shareDelayedByCompilation,
  longestDelayingCaptureMs: (run) => run.longestDelayingCaptureMs,
  longestCaptureMs: (run) => run.longestCaptureMs,
  shareDelayed: (run) => run.shareDelayed,
  shareMet: (run) => run.shareMet,
  graphsCaptured: (run) => run.graphsCaptured,
  graphMiB: (run) => times(run.graphBytes, 1 / MIB),
  neverReplayedGraphs: (run) => run.graphs?.neverReplayed.graphs,
  neverReplayedSeconds: (run) => run.graphs?.neverReplayed.seconds,
  neverReplayedMiB: (run) => times(run.graphs?.neverReplayed.bytes, 1 / MIB),
  atInitMsPerGraph: (run) => run.graphs?.atInit?.ms,
  atInitMiBPerGraph: (run) => times(run.graphs?.atInit?.bytes, 1 / MIB),
  betweenStepsMsPerGraph: (run) => run.graphs?.betweenSteps?.ms,
  betweenStepsMiBPerGraph: (run) => times(run.graphs?.betweenSteps?.bytes, 1 / MIB),
  fullBetweenStepsMsPerGraph: (run) => run.graphs?.fullBetweenSteps?.ms,
  fullBetweenStepsMiBPerGraph: (run) => times(run.graphs?.fullBetweenSteps?.bytes, 1 / MIB),
  firstMinuteWaitSeconds: (run) =>
    waitPerRequest(run) === undefined ? undefined : run.firstMinute?.waitSeconds,
  firstMinuteWaitSecondsPerRequest: waitPerRequest,
  latenessP99Ms: (run) => run.generatorLateP99Ms,
};

function times(value: number | undefined, factor: number): number | undefined {
  return value === undefined ? undefined : value * factor;
}

/** Seconds that a request of the first minute waited, on average; undefined where none got a token. */
export function waitPerRequest({ firstMinute }: RunFigures): number | undefined {
  if (firstMinute === undefined || firstMinute.requests === firstMinute.unanswered)
    return undefined;
  return firstMinute.waitSeconds / (firstMinute.requests - firstMinute.unanswered);
}

export interface SummaryOptions {
  readonly title: string;
  readonly baseline: string;
  readonly goodput: Goodput;
  readonly runs: readonly CellRun[];
}

export function summarise({ title, baseline, goodput, runs }: SummaryOptions): Summary {
  const groups = new Map<string, CellRun[]>();
  for (const run of runs) {
    const key = JSON.stringify([run.cell.load, run.cell.mode]);
    groups.set(key, [...(groups.get(key) ?? []), run]);
  }
  const pooled = [...groups.values()].map((group) => new Pooled(group));
  return {
    format: 1,
    title,
    baseline,
    goodput,
    simulated: runs.some(({ simulated }) => simulated !== undefined),
    partial: runs.some(({ status }) => status !== "complete"),
    hosts: hostsOf(runs),
    modes: Object.fromEntries(runs.map(({ cell, mode }) => [cell.mode, mode])),
    loads: Object.fromEntries(runs.map(({ cell, load }) => [cell.load, load])),
    cells: pooled.map((own) => {
      const base = pooled.find(({ mode, load }) => mode === baseline && load === own.load);
      return own.figures(goodput, base);
    }),
  };
}

/** The runs of one mode under one load. */
class Pooled {
  readonly mode: string;
  readonly load: string;
  readonly #runs: readonly CellRun[];
  readonly #figures: readonly RunFigures[];
  readonly #completed: readonly (readonly RequestRecord[])[];

  constructor(runs: readonly CellRun[]) {
    const { mode, load } = (runs[0] as CellRun).cell;
    this.mode = mode;
    this.load = load;
    this.#runs = runs;
    this.#figures = runs.map(runFigures);
    this.#completed = runs.map(completedOf);
  }

  figures(goodput: Goodput, baseline: Pooled | undefined): ModeFigures {
    const simulated = this.#runs.find((run) => run.simulated !== undefined)?.simulated;
    const windows = WINDOWS.flatMap((name) => {
      const figures = this.#window(name);
      return figures === undefined ? [] : [[name, figures] as const];
    });
    const perSecond = (accept: (request: RequestRecord) => boolean): number[] =>
      this.#runs.flatMap(({ requests }, index) => {
        // With those that failed: a server that fell over served nothing from then on.
        const seconds = durationSeconds(requests.filter(({ warmUp }) => !warmUp));
        const count = this.#completed[index]?.filter(accept).length ?? 0;
        return seconds === 0 ? [] : [count / seconds];
      });
    const limited = Object.keys(goodput).length > 0;
    const good = limited ? perSecond((request) => isGood(request, goodput)) : [];
    const all = perSecond(() => true);
    return {
      mode: this.mode,
      load: this.load,
      ...(simulated === undefined ? {} : { simulated }),
      runs: this.#figures,
      partial: this.#figures.filter(({ status }) => status === "partial").length,
      windows: Object.fromEntries(windows),
      ...(good.length === 0 ? {} : { goodputPerSecond: bootstrapMean(good) }),
      ...(all.length === 0 ? {} : { throughputPerSecond: bootstrapMean(all) }),
      scalars: this.#scalars(),
      ...(baseline === undefined ? {} : { versusBaseline: this.#versus(baseline) }),
    };
  }

  #scalars(): ModeFigures["scalars"] {
    return Object.fromEntries(
      SCALARS.flatMap((name) => {
        const values = this.#figures.flatMap((run) => SCALAR_OF[name](run) ?? []);
        return values.length === 0 ? [] : [[name, bootstrapMean(values)]];
      }),
    );
  }

  #records(name: WindowName): RequestRecord[][] {
    return this.#runs.map((run, index) => inWindow(run, name, this.#completed[index] ?? []));
  }

  #window(name: WindowName): WindowFigures | undefined {
    const records = this.#records(name);
    const all = records.flat();
    if (all.length === 0) return undefined;
    const fields = {
      ttft: distributionOf(all.map(ttftMs)),
      tpot: distributionOf(all.flatMap((request) => tpotMs(request) ?? [])),
      itl: distributionOf(itlMs(all)),
      e2e: distributionOf(all.map(e2eMs)),
      ttftEstimates: estimate(valuesOf(records, "ttft")),
      tpotEstimates: estimate(valuesOf(records, "tpot")),
    };
    const known = Object.entries(fields).filter(([, value]) => value !== undefined);
    return { requests: all.length, ...Object.fromEntries(known) };
  }

  #versus(baseline: Pooled): Versus {
    // What the generator did to a run is no property of its mode.
    const disturbed = [...this.#figures, ...baseline.#figures].some(isDisturbed);
    const steady = disturbed ? undefined : baseline.#steady();
    const records = steady === undefined ? [] : baseline.#records(steady);
    const ratios = (metric: Metric): Partial<Record<WindowName, Ratios>> =>
      Object.fromEntries(
        COMPARED.flatMap((name) => {
          if (baseline === this && name === steady) return [];
          const found = compare(valuesOf(this.#records(name), metric), valuesOf(records, metric));
          return found === undefined ? [] : [[name, found]];
        }),
      );
    const saved = (name: "firstMinuteWaitSeconds" | "firstMinuteWaitSecondsPerRequest") =>
      baseline === this ? undefined : difference(baseline.#each(name), this.#each(name));
    const inAll = saved("firstMinuteWaitSeconds");
    const each = saved("firstMinuteWaitSecondsPerRequest");
    return {
      baseline: baseline.mode,
      ttft: ratios("ttft"),
      tpot: ratios("tpot"),
      ...(inAll === undefined ? {} : { firstMinuteSavedSeconds: inAll }),
      ...(each === undefined ? {} : { firstMinuteSavedSecondsPerRequest: each }),
    };
  }

  #each(name: ScalarName): number[] {
    return this.#figures.flatMap((run) => SCALAR_OF[name](run) ?? []);
  }

  /** Those due later than two minutes after ready, where there are any, else all. */
  #steady(): WindowName | undefined {
    if (this.#runs.some(({ start }) => start === "spawn")) return undefined;
    return this.#records("later").some((records) => records.length > 0) ? "later" : "all";
  }
}

type Metric = "ttft" | "tpot";

function valuesOf(records: readonly (readonly RequestRecord[])[], metric: Metric): number[][] {
  if (metric === "ttft") return records.map((run) => run.map(ttftMs));
  return records.map((run) => run.flatMap((request) => tpotMs(request) ?? []));
}

/** Of two modes' means over runs, from their bootstrap intervals (Zou & Donner 2008). */
export function difference(from: readonly number[], to: readonly number[]): Estimate | undefined {
  if (from.length === 0 || to.length === 0) return undefined;
  const a = bootstrapMean(from, 1);
  const b = bootstrapMean(to, 2);
  const value = a.mean - b.mean;
  // One value alone has no spread.
  if (a.n < 2 || b.n < 2) return { value, low: -Infinity, high: Infinity };
  // Half-widths of independent means add as squares.
  const below = Math.hypot(a.mean - a.low, b.high - b.mean);
  const above = Math.hypot(a.high - a.mean, b.mean - b.low);
  return { value, low: value - below, high: value + above };
}
