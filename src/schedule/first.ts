/** What comes before ready: the tops, or, once that is known, what earlier starts needed most. */

import { type Graph, topGraphs } from "../graph.ts";
import type { Costs } from "./cost.ts";

export interface FirstInput {
  readonly costs: Costs;
  /** What earlier starts needed, most needed first. */
  readonly learned: readonly Graph[];
  /** Seconds of captures; the first learned graph comes whatever it takes. */
  readonly secondsMax: number;
}

export interface First {
  readonly graphs: readonly Graph[];
  readonly reason: string;
}

/**
 * Every capture before ready holds up all who wait, and most of them need one graph for a start. So
 * with a plan its first graph takes the place of the tops, which few steps are large enough for.
 */
export function firstGraphs({ costs, learned, secondsMax }: FirstInput): First {
  const graphs: Graph[] = [];
  let seconds = 0;
  for (const graph of learned) {
    seconds += costs.captureSeconds(graph).value;
    if (graphs.length > 0 && seconds > secondsMax) break;
    graphs.push(graph);
  }
  if (graphs.length === 0) {
    return { graphs: topGraphs(costs.shapes.planned), reason: "the top graph of each kind" };
  }
  const names = graphs.length === 1 ? `${graphs[0]?.id}, which` : `${graphs.length} graphs that`;
  return { graphs, reason: `${names} earlier starts needed most` };
}
