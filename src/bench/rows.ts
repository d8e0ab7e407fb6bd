/** The rows of the report's tables: one figure each, one column per mode. Pure text. */

import type { Distribution, Interval } from "../measure/statistics.ts";
import type { Estimate } from "./bootstrap.ts";
import type { ModeFigures, ScalarName, Summary } from "./summary.ts";
import type { WindowName } from "./windows.ts";

export interface Row {
  readonly title: string;
  readonly cells: readonly string[];
}

export interface RowGroup {
  readonly title: string;
  readonly rows: readonly Row[];
}

/** Where there is no figure. */
export const NONE = "–";

/** Groups of rows for one load; rows that no mode has a figure for are left out. */
export function rowGroups(cells: readonly ModeFigures[]): RowGroup[] {
  const groups = GROUPS.map(({ title, rows }) => ({
    title,
    rows: rows
      .map(([name, text]) => ({ title: name, cells: cells.map((mode) => text(mode) ?? NONE) }))
      .filter((row) => row.cells.some((cell) => cell !== NONE)),
  }));
  return groups.filter(({ rows }) => rows.length > 0);
}

/** What a cell of the table says; undefined where there is no figure. */
export type Text = (mode: ModeFigures) => string | undefined;
type RowSpec = readonly [title: string, text: Text];

const GROUPS: readonly { readonly title: string; readonly rows: readonly RowSpec[] }[] = [
  {
    title: "Start",
    rows: [
      ["spawn to ready, s", scalar("spawnToReadySeconds")],
      ["spawn to first token, s", scalar("spawnToFirstTokenSeconds")],
      ["spawn to settled, s", scalar("spawnToSettledSeconds")],
      ["ready to settled, s", scalar("readyToSettledSeconds")],
      ["capture before ready, s", scalar("captureBeforeReadySeconds")],
      ["wait in the first minute from spawn, request-seconds", scalar("firstMinuteWaitSeconds")],
      ["the same for each request, s", scalar("firstMinuteWaitSecondsPerRequest")],
      [
        "saved against the baseline, request-seconds",
        ({ versusBaseline }) => estimateText(versusBaseline?.firstMinuteSavedSeconds),
      ],
    ],
  },
  {
    title: "Runs",
    rows: [
      ["runs", runsText],
      ["requests completed", ({ runs }) => whole(sum(runs.map(({ completed }) => completed)))],
      ["requests failed", failuresText],
      ["requests a second", ({ throughputPerSecond }) => interval(throughputPerSecond)],
      ["within the limits, a second", ({ goodputPerSecond }) => interval(goodputPerSecond)],
      ["generator late, p99, ms", scalar("latenessP99Ms")],
      ["prompt tokens counted over wanted", tokensRatio("promptTokensRatio")],
      ["output tokens over wanted", tokensRatio("outputTokensRatio")],
    ],
  },
  {
    title: "Time to first token, ms (from when the request was due)",
    rows: [
      ...latencies("ttft"),
      ["p50, first two minutes after ready", ttft("first120", "p50")],
      ["p99, first two minutes after ready", ttft("first120", "p99")],
      ["p50, later", ttft("later", "p50")],
      ["p99, later", ttft("later", "p99")],
      ["requests due during the fill", requests("during")],
      ["p50, before the fill", ttft("before", "p50")],
      ["p50, during the fill", ttft("during", "p50")],
      ["p99, during the fill", ttft("during", "p99")],
      ["p50, after the fill", ttft("after", "p50")],
      ["p99, after the fill", ttft("after", "p99")],
      ["requests delayed by a capture", requests("delayed")],
      ["p50, delayed by a capture", ttft("delayed", "p50")],
      ["p50, not delayed", ttft("undelayed", "p50")],
    ],
  },
  {
    title: "Against the baseline's steady figures (ratio)",
    rows: [
      ["TTFT p50, first two minutes", ratio("ttft", "first120", "p50")],
      ["TTFT p99, first two minutes", ratio("ttft", "first120", "p99")],
      ["TTFT p50, later", ratio("ttft", "later", "p50")],
      ["TTFT p99, later", ratio("ttft", "later", "p99")],
      ["TTFT p50, all", ratio("ttft", "all", "p50")],
      ["time per output token p50, first two minutes", ratio("tpot", "first120", "p50")],
      ["time per output token p50, later", ratio("tpot", "later", "p50")],
      ["time per output token p50, all", ratio("tpot", "all", "p50")],
    ],
  },
  {
    title: "Time per output token, ms",
    rows: latencies("tpot"),
  },
  { title: "Inter-token latency, ms", rows: latencies("itl") },
  { title: "End to end, ms", rows: latencies("e2e") },
  {
    title: "Captures",
    rows: [
      ["longest time without a token while there was work, ms", scalar("longestTokenGapMs")],
      ["longest capture that held up requests, ms", scalar("longestDelayingCaptureMs")],
      ["longest capture after ready, ms", scalar("longestCaptureMs")],
      ["share of requests whose first token a capture delayed", scalar("shareDelayed")],
      ["share of requests that met a capture", scalar("shareMet")],
      ["ready to last capture, s", scalar("readyToLastCaptureSeconds")],
      ["ready to 80% of the plan, s", scalar("readyToFourFifthsSeconds")],
      ["share of the plan two minutes after ready, or at the end", scalar("capturedShareAt120")],
      ["graphs captured", plannedText],
      ["graph memory, MiB", scalar("graphMiB")],
      ["graphs never replayed", scalar("neverReplayedGraphs")],
      ["their captures, s", scalar("neverReplayedSeconds")],
      ["their memory, MiB", scalar("neverReplayedMiB")],
      ["ms per graph, before ready", scalar("atInitMsPerGraph")],
      ["ms per graph, between steps", scalar("betweenStepsMsPerGraph")],
      ["ms per graph, between steps, FULL only", scalar("fullBetweenStepsMsPerGraph")],
      ["MiB per graph, before ready", scalar("atInitMiBPerGraph")],
      ["MiB per graph, between steps", scalar("betweenStepsMiBPerGraph")],
      ["MiB per graph, between steps, FULL only", scalar("fullBetweenStepsMiBPerGraph")],
    ],
  },
  {
    title: "Kernels compiled while it served (told apart from captures)",
    rows: [
      ["times", scalar("compilationsAfterReady")],
      ["longest, ms", scalar("longestCompilationMs")],
      ["share of requests whose first token one delayed", scalar("shareDelayedByCompilation")],
      ["the longest time without a token was mostly", gapCauses],
    ],
  },
];

export function scalar(name: ScalarName): Text {
  return ({ scalars }) => interval(scalars[name]);
}

function requests(window: WindowName): Text {
  return ({ windows }) => {
    const count = windows[window]?.requests;
    return count === undefined ? undefined : whole(count);
  };
}

function ttft(window: WindowName, name: "p50" | "p99"): Text {
  return ({ windows }) => estimateText(windows[window]?.ttftEstimates?.[name]);
}

function ratio(metric: "ttft" | "tpot", window: WindowName, name: "p50" | "p99"): Text {
  return ({ versusBaseline }) => estimateText(versusBaseline?.[metric][window]?.[name]);
}

type Metric = "ttft" | "tpot" | "itl" | "e2e";

/** Those with an interval where there is one, the rest pooled over all runs. */
function latencies(metric: Metric): RowSpec[] {
  const told = (name: "mean" | "p50" | "p99"): Text => {
    return ({ windows }) => {
      const all = windows.all;
      const estimates = metric === "ttft" ? all?.ttftEstimates : all?.tpotEstimates;
      const timed = metric === "ttft" || metric === "tpot";
      return timed ? estimateText(estimates?.[name]) : numberText(all?.[metric]?.[name]);
    };
  };
  const pooled = (name: keyof Distribution): Text => {
    return ({ windows }) => numberText(windows.all?.[metric]?.[name]);
  };
  return [
    ["p50", told("p50")],
    ["p90", pooled("p90")],
    ["p95", pooled("p95")],
    ["p99", told("p99")],
    ["p99.9", pooled("p999")],
    ["max", pooled("max")],
    ["mean", told("mean")],
    ["standard deviation", pooled("sd")],
    ["coefficient of variation", pooled("cv")],
  ];
}

export function runsText({ runs, partial }: ModeFigures): string {
  return `${runs.length}${partial > 0 ? ` (${partial} partial)` : ""}`;
}

export function failuresText({ runs }: ModeFigures): string {
  const counts = new Map<string, number>();
  for (const { failures } of runs) {
    for (const [kind, count] of Object.entries(failures)) {
      counts.set(kind, (counts.get(kind) ?? 0) + count);
    }
  }
  const total = sum([...counts.values()]);
  if (total === 0) return "0";
  return `${whole(total)} (${[...counts].map(([kind, n]) => `${kind} ${n}`).join(", ")})`;
}

/** What explains the longest gap of each run; undefined where nobody timed compilations. */
function gapCauses({ runs }: ModeFigures): string | undefined {
  const counts = new Map<string, number>();
  for (const { longestTokenGapCause: cause } of runs) {
    if (cause !== undefined) counts.set(cause, (counts.get(cause) ?? 0) + 1);
  }
  if (counts.size === 0) return undefined;
  return [...counts].map(([cause, count]) => `${cause} ${count}`).join(", ");
}

function tokensRatio(name: "promptTokensRatio" | "outputTokensRatio"): Text {
  return ({ runs }) => {
    const ratios = runs.flatMap((run) => run[name]?.mean ?? []);
    return ratios.length === 0 ? undefined : numberText(sum(ratios) / ratios.length);
  };
}

export function plannedText({ scalars, runs }: ModeFigures): string | undefined {
  const captured = interval(scalars.graphsCaptured);
  const planned = runs.find((run) => run.graphsPlanned !== undefined)?.graphsPlanned;
  return captured === undefined || planned === undefined ? captured : `${captured} of ${planned}`;
}

export function interval(value: Interval | undefined): string | undefined {
  if (value === undefined) return undefined;
  return range(value.mean, value.low, value.high);
}

export function estimateText(value: Estimate | undefined): string | undefined {
  return value === undefined ? undefined : range(value.value, value.low, value.high);
}

/** A single run has no interval: the three are then the same. */
function range(value: number, low: number, high: number): string {
  if (low === -Infinity) return `${numberText(value)} (no interval)`;
  const texts = [value, low, high].map((number) => numberText(number) ?? NONE);
  const [text = NONE, from, to] = texts;
  return from === to ? text : `${text} (${from} to ${to})`;
}

/** Three digits that count, and thousands in groups. */
export function numberText(value: number | undefined): string | undefined {
  if (value === undefined || Number.isNaN(value)) return undefined;
  if (Math.abs(value) >= 1000) return whole(value);
  return value === 0 ? "0" : value.toFixed(digitsOf(value));
}

/** Both ends with the digits of the larger one: `0.95 to 1.02`. */
export function rangeText(low: number, high: number): string {
  const larger = Math.max(Math.abs(low), Math.abs(high));
  if (larger >= 1000 || larger === 0) return `${numberText(low)} to ${numberText(high)}`;
  const digits = digitsOf(larger);
  return `${low.toFixed(digits)} to ${high.toFixed(digits)}`;
}

/** Behind the point, for three digits of a number in all. */
function digitsOf(value: number): number {
  const size = Math.abs(value);
  const digits = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(size))));
  // 0.9997 is 1.00 and not 1.000: what it is rounded to has a digit more before the point.
  const rounded = Number(size.toFixed(digits));
  if (rounded >= 100) return 0;
  return Math.max(0, Math.min(digits, 2 - Math.floor(Math.log10(rounded || size))));
}

export function whole(value: number): string {
  return Math.round(value).toLocaleString("en-GB");
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** What stands above the tables, of what is in them. */
export function explanation({ goodput, cells }: Pick<Summary, "goodput" | "cells">): string {
  const limits = Object.entries(goodput).map(([name, ms]) => `${name} ${ms} ms`);
  const compared = cells.some(({ versusBaseline }) => versusBaseline?.ttft.first120 !== undefined);
  const started = cells.some(({ scalars }) => scalars.spawnToReadySeconds !== undefined);
  return [
    "In brackets: 95% bootstrap intervals, of quantiles over runs and requests, of the rest over " +
      "runs, where of three runs they are the least and the most.",
    "Figures without one are pooled over all runs.",
    compared
      ? "Steady: due later than two minutes after ready where there is such, else all."
      : undefined,
    started ? "Spawn to ready tells of the host's caches, too." : undefined,
    limits.length > 0 ? `Limits of good requests: ${limits.join(", ")}.` : undefined,
  ]
    .filter((sentence) => sentence !== undefined)
    .join(" ");
}
