/** Orders in which missing graphs are captured, each as a pure choice with its reason. */

import { bySizeDescending, type Graph } from "../base/graph.ts";
import { PAD_LIMIT } from "./dispatch.ts";
import { type EngineState, missingGraphs } from "./state.ts";

export interface Choice {
  readonly graph: Graph;
  readonly reason: string;
}

/** The missing graph that most steps wanted, if at least `stepsMin` did. */
export function mostWanted(state: EngineState, stepsMin: number): Choice | undefined {
  let best: Graph | undefined;
  let wantedMost = stepsMin - 1;
  for (const graph of missingGraphs(state)) {
    const wanted = state.graphs.get(graph.id)?.wanted ?? 0;
    if (wanted > wantedMost) {
      best = graph;
      wantedMost = wanted;
    }
  }
  return (
    best && {
      graph: best,
      reason: `${best.id}: ${wantedMost === 1 ? "1 step" : `${wantedMost} steps`} wanted it`,
    }
  );
}

/**
 * A sparse ladder for unknown traffic: sizes that are powers of two, FULL before PIECEWISE. It
 * starts where padding stops being free and climbs, since every rung there gives steps a graph
 * that had none; then it descends, where a rung only saves padding.
 */
export function nextRung(state: EngineState): Choice | undefined {
  const rungs = missingGraphs(state).filter((graph) => Number.isInteger(Math.log2(graph.tokens)));
  const [graph] = rungs.sort(byRung);
  return graph && { graph, reason: `${graph.id}: next rung of the sparse ladder` };
}

function byRung(a: Graph, b: Graph): number {
  if (a.tokens === b.tokens) return a.kind === b.kind ? 0 : a.kind === "FULL" ? -1 : 1;
  const aClimbs = a.tokens >= PAD_LIMIT.tokens;
  const bClimbs = b.tokens >= PAD_LIMIT.tokens;
  if (aClimbs !== bClimbs) return aClimbs ? -1 : 1;
  return aClimbs ? a.tokens - b.tokens : b.tokens - a.tokens;
}

export function largestMissing(state: EngineState): Choice | undefined {
  const [graph] = missingGraphs(state).sort(bySizeDescending);
  return graph && { graph, reason: `${graph.id}: largest of the rest` };
}
