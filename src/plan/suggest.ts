/**
 * The capture sizes that traffic justifies, for those who set them by hand. Pure.
 *
 * vLLM takes the smallest captured size that covers a step, and runs ungraphed above the largest.
 * So leaving a size out costs its steps the padding to the next one. For each number of sizes the
 * best set is found exactly (a shortest path over the sizes); the suggestion is the smallest set
 * that costs at most a given share more than all sizes do.
 */

import { median } from "../base/median.ts";
import { captureSeconds, serves } from "./needed.ts";
import type { Plan, PlanGraph, PlanTraffic } from "./plan.ts";

export interface Suggestion {
  /** Capture sizes, rising. */
  readonly sizes: readonly number[];
  readonly sizesPlanned: number;
  readonly graphsKept: number;
  readonly graphsPlanned: number;
  /** Milliseconds of captures that are spared; those never measured count as their kind's median. */
  readonly captureMsSpared: number;
  /** Bytes likewise; undefined when no start measured any. */
  readonly bytesSpared: number | undefined;
  /** Graphs spared whose capture no start measured. */
  readonly graphsUnmeasured: number;
  /** By how much the mean step gets longer, as a share. */
  readonly lossShare: number;
  /** Request-steps behind it, aged by start. */
  readonly requestSteps: number;
  /** Share of them whose own graph has timed steps; of the others a cost profile knows. */
  readonly measuredShare: number;
}

export interface SuggestOptions {
  /** By how much steps may get longer, as a share. @default 0.01 */
  readonly lossShareMax?: number;
}

/** Sizes that a plan's traffic is put onto: more than vLLM ever plans by itself. */
const SIZES_MAX = 512;
const LOSS_SHARE_MAX = 0.01;

/** Undefined where the plan has no traffic. */
export function suggestSizes(plan: Plan, options: SuggestOptions = {}): Suggestion | undefined {
  const used = plan.traffic.filter(({ requestSteps }) => requestSteps > 0);
  if (used.length === 0 || plan.graphs.length === 0) return undefined;
  const { sizes, rowsAt } = candidates(plan, used);
  const cost = segmentCosts(plan, sizes, rowsAt);
  const all = sum(sizes.map((_, to) => cost(to - 1, to)));
  const lossShareMax = options.lossShareMax ?? LOSS_SHARE_MAX;
  const chosen = smallestSet(sizes.length, cost, all * (1 + lossShareMax));
  const kept = chosen.places.map((place) => sizes[place] ?? 0);
  return { ...spared(plan, kept), ...evidence(plan, used), lossShare: chosen.cost / all - 1 };
}

/** The flag of vLLM 0.26 that sets these sizes. */
export function captureSizesFlag(sizes: readonly number[]): string {
  return `--cudagraph-capture-sizes ${sizes.join(" ")}`;
}

/** Planned sizes that steps round up to, and with each the traffic that does. */
function candidates(
  { graphs }: Plan,
  used: readonly PlanTraffic[],
): { sizes: number[]; rowsAt: PlanTraffic[][] } {
  const planned = [...new Set(graphs.map(({ tokens }) => tokens))].sort((a, b) => a - b);
  const at = new Map<number, PlanTraffic[]>();
  for (const row of used) {
    const size = planned.find((tokens) => tokens >= row.tokens);
    if (size !== undefined) at.set(size, [...(at.get(size) ?? []), row]);
  }
  const weight = (size: number): number =>
    sum((at.get(size) ?? []).map(({ requestSteps }) => requestSteps));
  const busiest = [...at.keys()].sort((a, b) => weight(b) - weight(a)).slice(0, SIZES_MAX);
  const sizes = busiest.sort((a, b) => a - b);
  return { sizes, rowsAt: sizes.map((size) => at.get(size) ?? []) };
}

/** Request-seconds of the traffic at the sizes in `(from, to]` when `to` is captured and they not. */
function segmentCosts(
  { graphs }: Plan,
  sizes: readonly number[],
  rowsAt: readonly (readonly PlanTraffic[])[],
): (from: number, to: number) => number {
  // Running sums over the sizes below each, so that a segment is one subtraction.
  const sums = sizes.map((size, to) => {
    const servers = graphs.filter(({ tokens }) => tokens === size);
    const running = new Float64Array(to + 2);
    for (let place = 0; place <= to; place++) {
      const rows = rowsAt[place] ?? [];
      const cost = sum(rows.map((row) => row.requestSteps * stockSeconds(row, servers)));
      running[place + 1] = (running[place] ?? 0) + cost;
    }
    return running;
  });
  return (from, to) => (sums[to]?.[to + 1] ?? 0) - (sums[to]?.[from + 1] ?? 0);
}

/** Seconds of a row's steps by stock's rule: FULL before PIECEWISE, ungraphed where neither fits. */
function stockSeconds(row: PlanTraffic, servers: readonly PlanGraph[]): number {
  const fitting = servers.filter((graph) => serves(graph, row));
  const server = fitting.find(({ kind }) => kind === "FULL") ?? fitting[0];
  return server?.stepSeconds ?? row.ungraphedSeconds;
}

/** The fewest sizes whose cost stays within the limit, the largest among them always. */
function smallestSet(
  count: number,
  cost: (from: number, to: number) => number,
  costMax: number,
): { places: number[]; cost: number } {
  // costs[to]: least cost of everything up to `to` with `to` captured, in so many sizes so far.
  let costs = Array.from({ length: count }, (_, to) => cost(-1, to));
  const from: number[][] = [Array.from({ length: count }, () => -1)];
  const last = count - 1;
  while ((costs[last] ?? 0) > costMax * (1 + 1e-12) && from.length < count) {
    const back: number[] = [];
    const next: number[] = [];
    for (let to = 0; to < count; to++) {
      let best = Number.POSITIVE_INFINITY;
      for (let via = 0; via < to; via++) {
        const total = (costs[via] ?? 0) + cost(via, to);
        if (total >= best) continue;
        best = total;
        back[to] = via;
      }
      next[to] = best;
    }
    costs = next;
    from.push(back);
  }
  const places = [last];
  for (let round = from.length - 1; round > 0; round--) {
    places.unshift(from[round]?.[places[0] ?? 0] ?? 0);
  }
  return { places, cost: costs[last] ?? 0 };
}

function spared(
  { graphs }: Plan,
  sizes: readonly number[],
): Pick<
  Suggestion,
  | "sizes"
  | "sizesPlanned"
  | "graphsKept"
  | "graphsPlanned"
  | "captureMsSpared"
  | "bytesSpared"
  | "graphsUnmeasured"
> {
  const kept = new Set(sizes);
  const left = graphs.filter(({ tokens }) => !kept.has(tokens));
  const seconds = captureSeconds(graphs);
  const usualBytes = median(graphs.flatMap((graph) => graph.bytes ?? []));
  return {
    sizes,
    sizesPlanned: new Set(graphs.map(({ tokens }) => tokens)).size,
    graphsKept: graphs.length - left.length,
    graphsPlanned: graphs.length,
    captureMsSpared: sum(left.map((graph) => seconds(graph) * 1000)),
    bytesSpared: usualBytes === undefined ? undefined : sum(left.map((g) => g.bytes ?? usualBytes)),
    graphsUnmeasured: left.filter(({ captureMs }) => captureMs === undefined).length,
  };
}

function evidence(
  { graphs }: Plan,
  used: readonly PlanTraffic[],
): Pick<Suggestion, "requestSteps" | "measuredShare"> {
  const requestSteps = sum(used.map((row) => row.requestSteps));
  const measured = used.filter((row) =>
    graphs.some((graph) => graph.tokens === row.tokens && serves(graph, row) && graph.timed > 0),
  );
  return {
    requestSteps,
    measuredShare: sum(measured.map((row) => row.requestSteps)) / requestSteps,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
