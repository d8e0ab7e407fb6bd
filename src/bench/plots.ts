/** What the report draws: series as plain numbers, each with the table that says the same. */

import { counted } from "../base/counted.ts";
import { MIB } from "../base/units.ts";
import { quantile } from "../measure/statistics.ts";
import type { CellRun } from "./samples.ts";
import { completedOf, readySecondsOf, tpotMs, ttftMs } from "./windows.ts";

export interface Series {
  readonly name: string;
  /** Place in the palette: a mode has the same colour in every plot. */
  readonly colour: number;
  readonly x: readonly number[];
  readonly y: readonly number[];
}

export interface PlotTable {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Plot {
  readonly kind: "points" | "lines" | "steps";
  readonly title: string;
  /** What somebody who can't see it should know. */
  readonly description: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xLog: boolean;
  readonly yLog: boolean;
  readonly series: readonly Series[];
  /** Captures: from when to when. */
  readonly marks: readonly (readonly [from: number, to: number])[];
  /** The same limits in each of several plots that are to be compared. */
  readonly yRange?: readonly [number, number];
  readonly xRange?: readonly [number, number];
  readonly table: PlotTable;
}

const POINTS_MAX = 3000;
const BUCKETS = 24;
const STEPS_MAX = 400;
const SHARES = [
  ...Array.from({ length: 100 }, (_, index) => index / 100),
  0.995,
  0.999,
  1,
] as const;

/** Plots of one load; runs are those of that load, modes in the report's order. */
export function plotsOf(runs: readonly CellRun[], modes: readonly string[]): Plot[] {
  const colours = new Map(modes.map((mode, index) => [mode, index]));
  const groups = modes
    .map((mode) => ({
      mode,
      colour: colours.get(mode) ?? 0,
      runs: runs.filter(({ cell }) => cell.mode === mode),
    }))
    .filter((group) => group.runs.some((run) => completedOf(run).length > 0));
  return [
    ...ttftOverTime(groups),
    distribution(groups, "Time to first token", ttftMs),
    distribution(groups, "Time per output token", tpotMs),
    ...overTime(groups),
  ].filter((plot) => plot.series.some(({ x }) => x.length > 0));
}

interface Group {
  readonly mode: string;
  readonly colour: number;
  readonly runs: readonly CellRun[];
}

/** The first run that is complete, else the first. */
function shown({ runs }: Group): CellRun {
  return runs.find(({ status }) => status === "complete") ?? (runs[0] as CellRun);
}

function ttftOverTime(groups: readonly Group[]): Plot[] {
  const all = groups.map((group) => {
    const run = shown(group);
    const ready = readySecondsOf(run);
    const requests = completedOf(run);
    return { group, run, ready, requests };
  });
  const values = all.flatMap(({ requests }) => requests.map(ttftMs));
  const times = all.flatMap(({ requests, ready }) => requests.map((r) => r.dueSeconds - ready));
  const least = values.reduce((min, value) => Math.min(min, value), Number.POSITIVE_INFINITY);
  const most = values.reduce((max, value) => Math.max(max, value), 0);
  const from = times.reduce((min, value) => Math.min(min, value), 0);
  const to = times.reduce((max, value) => Math.max(max, value), 1);
  return all.map(({ group, run, ready, requests }) => {
    const points = requests.map(
      (request) => [request.dueSeconds - ready, ttftMs(request)] as const,
    );
    const kept = thinned(points);
    const marks = run.captures.map(
      ({ startSeconds, endSeconds }) => [startSeconds - ready, endSeconds - ready] as const,
    );
    const longest = points.reduce((most, [, y]) => Math.max(most, y), 0);
    return {
      kind: "points",
      title: `${group.mode}: time to first token over time, run ${run.cell.run} of ${group.runs.length}`,
      description: `${counted(points.length, "request")}, the longest took ${longest.toFixed(1)} ms; ${marksText(marks.length)}.`,
      xLabel: "seconds after ready",
      yLabel: "ms",
      xLog: false,
      yLog: true,
      series: [
        {
          name: "time to first token",
          colour: group.colour,
          x: kept.map(([x]) => round(x)),
          y: kept.map(([, y]) => round(y)),
        },
      ],
      marks: marks.map(([start, end]) => [round(start), round(end)] as const),
      yRange: [Math.max(0.01, least * 0.8), Math.max(1, most * 1.25)],
      xRange: [from, to],
      table: timeTable(points, marks),
    };
  });
}

function marksText(captures: number): string {
  if (captures === 0) return "no captures on it";
  return `${counted(captures, "capture")}, marked as vertical lines`;
}

type Point = readonly [x: number, y: number];

/** Of many points the highest of each stretch are kept and the rest thinned evenly. */
function thinned(points: readonly Point[]): Point[] {
  if (points.length <= POINTS_MAX) return [...points];
  const perStretch = Math.ceil(points.length / (POINTS_MAX / 2));
  const kept: Point[] = [];
  for (let at = 0; at < points.length; at += perStretch) {
    const stretch = points.slice(at, at + perStretch);
    const top = stretch.reduce((best, point) => (point[1] > best[1] ? point : best));
    const first = stretch[0] as Point;
    kept.push(...(first === top ? [top] : [first, top].sort((a, b) => a[0] - b[0])));
  }
  return kept;
}

function timeTable(points: readonly Point[], marks: readonly Point[]): PlotTable {
  const from = points.reduce((min, [x]) => Math.min(min, x), 0);
  const to = points.reduce((max, [x]) => Math.max(max, x), 0);
  const width = Math.max(1, (to - from) / BUCKETS);
  const rows = Array.from({ length: Math.ceil((to - from) / width) || 1 }, (_, index) => {
    const start = from + index * width;
    const end = start + width;
    const last = end >= to;
    const inside = (x: number): boolean => x >= start && (x < end || last);
    const values = points.filter(([x]) => inside(x)).map(([, y]) => y);
    const captures = marks.filter(([x]) => inside(x)).length;
    const figures =
      values.length === 0
        ? ["–", "–", "–"]
        : [0.5, 0.99, 1].map((share) => quantile(values, share).toFixed(1));
    return [
      `${start.toFixed(1)} to ${Math.min(end, to).toFixed(1)}`,
      String(values.length),
      ...figures,
      String(captures),
    ];
  });
  return {
    head: ["seconds after ready", "requests", "p50 ms", "p99 ms", "max ms", "captures"],
    rows,
  };
}

function distribution(
  groups: readonly Group[],
  name: string,
  pick: (request: Parameters<typeof ttftMs>[0]) => number | undefined,
): Plot {
  const samples = groups.map((group) => ({
    group,
    values: group.runs
      .flatMap((run) => completedOf(run).flatMap((request) => pick(request) ?? []))
      .sort((a, b) => a - b),
  }));
  const some = samples.filter(({ values }) => values.length > 0);
  const told = [0.5, 0.9, 0.95, 0.99, 0.999, 1];
  return {
    kind: "lines",
    title: `${name}: cumulative distribution per mode, all runs`,
    description: some
      .map(({ group, values }) => `${group.mode}: median ${quantile(values, 0.5).toFixed(1)} ms`)
      .join("; "),
    xLabel: "ms",
    yLabel: "share of requests",
    xLog: true,
    yLog: false,
    series: some.map(({ group, values }) => ({
      name: group.mode,
      colour: group.colour,
      x: SHARES.map((share) => round(at(values, share))),
      y: [...SHARES],
    })),
    marks: [],
    yRange: [0, 1],
    ...rangeOf(some.map(({ values }) => values)),
    table: {
      head: ["mode", "requests", ...told.map((share) => (share === 1 ? "max" : `p${share * 100}`))],
      rows: some.map(({ group, values }) => [
        group.mode,
        String(values.length),
        ...told.map((share) => at(values, share).toFixed(1)),
      ]),
    },
  };
}

/** Where the lines are: two tokens in one packet would stretch a logarithmic axis by decades. */
function rangeOf(samples: readonly (readonly number[])[]): Pick<Plot, "xRange"> {
  const low = Math.min(...samples.map((values) => at(values, 0.02)));
  const high = Math.max(...samples.map((values) => at(values, 1)));
  return low > 0 && high > low ? { xRange: [low * 0.8, high * 1.1] } : {};
}

/** The value at a share of sorted values: no interpolation, so that each is one that was seen. */
function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

function overTime(groups: readonly Group[]): Plot[] {
  const withMemory = groups.filter((group) => shown(group).memory.length > 0);
  if (withMemory.length === 0) return [];
  const plot = (
    title: string,
    yLabel: string,
    pick: (memory: CellRun["memory"][number]) => number,
  ): Plot => {
    const series = withMemory.map((group) => {
      const run = shown(group);
      const ready = readySecondsOf(run);
      const end = run.times.endSeconds ?? run.memory.at(-1)?.atSeconds ?? ready;
      const points = run.memory.map((m) => [round(m.atSeconds - ready), round(pick(m))] as const);
      const last = points.at(-1) as Point;
      // A line that stops at its last step would look as if the engine had ended there.
      const kept = [...everyNth(points, STEPS_MAX), [round(end - ready), last[1]] as const];
      return {
        name: group.mode,
        colour: group.colour,
        x: kept.map(([x]) => x),
        y: kept.map(([, y]) => y),
      };
    });
    return {
      kind: "steps",
      title,
      description: series.map(({ name, y }) => `${name}: ${y.at(-1)} at the end`).join("; "),
      xLabel: "seconds after ready",
      yLabel,
      xLog: false,
      yLog: false,
      series,
      marks: [],
      table: {
        head: ["mode", "seconds after ready", yLabel],
        rows: series.flatMap(({ name, x, y }) =>
          everyNth(
            x.map((seconds, index) => [name, String(seconds), String(y[index])]),
            BUCKETS,
          ),
        ),
      },
    };
  };
  return [
    plot("Graphs captured over time, first run of each mode", "graphs", (m) => m.graphsCaptured),
    plot("Graph memory over time, first run of each mode", "MiB", (m) => m.takenBytes / MIB),
  ];
}

/** At most about so many, the first and the last among them. */
function everyNth<T>(list: readonly T[], countMax: number): T[] {
  const every = Math.ceil(list.length / countMax);
  return list.filter((_, index) => index % every === 0 || index === list.length - 1);
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
