/**
 * Which graphs a histogram of steps needs, in which order. Pure.
 *
 * Greedy, from the tops on: next comes the graph that spares these steps the most request-seconds
 * for each second of its capture, given those before it; so neighbours don't count twice. It ends
 * where a graph spares less than its own capture takes.
 */

import { fitsCase } from "../base/graph.ts";
import type { PlanGraph, PlanTraffic } from "./plan.ts";

/** A plan's `first` never gets longer than this: it is what a start captures early. */
const NEEDED_MAX = 256;
/** How often a graph is looked at for a row, in all: a save must not hold up the gateway. */
const LOOKS_MAX = 2_000_000;
/** Milliseconds of a capture where none is known. */
const CAPTURE_MS = 30;

/** @param tops ids of graphs that every start has from the first */
export function neededGraphs(
  graphs: readonly PlanGraph[],
  traffic: readonly PlanTraffic[],
  tops: ReadonlySet<string>,
): string[] {
  const candidates = graphs.filter(({ id }) => !tops.has(id));
  // A quarter of the looks for a first round, the rest for those that choose.
  const rows = heaviest(traffic, Math.floor(LOOKS_MAX / 4 / Math.max(1, graphs.length)));
  const seconds = captureSeconds(graphs);
  // Seconds of each size's steps with what is held so far.
  const held = rows.map((row) => heldSeconds(row, graphs, tops));
  const rateOf = (graph: PlanGraph): number => spared(graph, rows, held) / seconds(graph);
  // What a graph spares only falls while others come before it: whoever leads by an old figure is
  // looked at again, and the rest need not be.
  const rates = Float64Array.from(candidates, rateOf);
  const lookedAt = new Int32Array(candidates.length);
  const needed: string[] = [];
  let looks = candidates.length * rows.length;
  while (needed.length < NEEDED_MAX && looks < LOOKS_MAX) {
    looks += rows.length;
    const place = largest(rates);
    const best = candidates[place];
    if (best === undefined || (rates[place] ?? 0) <= 1) break;
    if (lookedAt[place] !== needed.length) {
      rates[place] = rateOf(best);
      lookedAt[place] = needed.length;
      continue;
    }
    needed.push(best.id);
    rates[place] = 0;
    for (const [index, row] of rows.entries()) {
      if (serves(best, row)) held[index] = Math.min(held[index] ?? 0, best.stepSeconds);
    }
  }
  return needed;
}

function heaviest(traffic: readonly PlanTraffic[], countMax: number): readonly PlanTraffic[] {
  if (traffic.length <= countMax) return traffic;
  return [...traffic].sort((a, b) => b.requestSteps - a.requestSteps).slice(0, countMax);
}

/** The place of the largest; the first of equals. */
function largest(values: Float64Array): number {
  let best = -1;
  let most = Number.NEGATIVE_INFINITY;
  for (let place = 0; place < values.length; place++) {
    const value = values[place] ?? 0;
    if (value <= most) continue;
    best = place;
    most = value;
  }
  return best;
}

/** Whether a graph may serve the steps of a row. */
export function serves(graph: PlanGraph, row: PlanTraffic): boolean {
  const { tokens, uniform } = row;
  const anyUniform = graph.uniform === undefined || graph.uniform === uniform;
  return graph.tokens >= tokens && anyUniform && fitsCase(graph, row);
}

function heldSeconds(
  row: PlanTraffic,
  graphs: readonly PlanGraph[],
  held: ReadonlySet<string>,
): number {
  let seconds = row.ungraphedSeconds;
  for (const graph of graphs) {
    if (held.has(graph.id) && serves(graph, row)) seconds = Math.min(seconds, graph.stepSeconds);
  }
  return seconds;
}

function spared(
  graph: PlanGraph,
  traffic: readonly PlanTraffic[],
  held: readonly number[],
): number {
  let sum = 0;
  for (const [index, row] of traffic.entries()) {
    if (!serves(graph, row)) continue;
    sum += row.requestSteps * Math.max(0, (held[index] ?? 0) - graph.stepSeconds);
  }
  return sum;
}

/** Seconds of a graph's capture; of one that was never captured, its kind's median. */
export function captureSeconds(graphs: readonly PlanGraph[]): (graph: PlanGraph) => number {
  const medians = new Map(
    (["FULL", "PIECEWISE"] as const).map((kind) => {
      const known = graphs.flatMap((g) => (g.kind === kind && g.captureMs ? [g.captureMs] : []));
      known.sort((a, b) => a - b);
      return [kind, known[known.length >> 1] ?? CAPTURE_MS] as const;
    }),
  );
  return ({ kind, captureMs }) => (captureMs || medians.get(kind) || CAPTURE_MS) / 1000;
}
