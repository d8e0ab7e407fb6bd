/** What somebody who knows all steps ahead would pay at least, for a few graphs and steps. */

/** One step of an instance. */
export interface OfflineStep {
  /** Requests that wait on the step, and on a capture right before it. */
  readonly requests: number;
  /** Seconds without any of the graphs, and in each of them (Infinity where it doesn't fit). */
  readonly without: number;
  readonly withGraph: readonly number[];
}

/**
 * The least sum of regrets (against the fastest choice for each step) and prices: by dynamic
 * programming over the sets of captured graphs. Before each step any number may be captured.
 */
export function offlineOptimum(
  steps: readonly OfflineStep[],
  stallSeconds: readonly number[],
): number {
  const sets = 1 << stallSeconds.length;
  let costs = new Float64Array(sets).fill(Number.POSITIVE_INFINITY);
  costs[0] = 0;
  for (const step of steps) {
    const next = costs.slice();
    // Graph by graph: a set is reached from itself without the graph, at the price of now.
    for (const [graph, stall] of stallSeconds.entries()) {
      for (let set = 0; set < sets; set++) {
        if ((set & (1 << graph)) === 0) continue;
        const bought = (next[set ^ (1 << graph)] ?? 0) + stall * step.requests;
        next[set] = Math.min(next[set] ?? 0, bought);
      }
    }
    const best = Math.min(step.without, ...step.withGraph);
    for (let set = 0; set < sets; set++) {
      next[set] = (next[set] ?? 0) + step.requests * (secondsOf(step, set) - best);
    }
    costs = next;
  }
  return Math.min(...costs);
}

function secondsOf({ without, withGraph }: OfflineStep, set: number): number {
  let seconds = without;
  for (const [graph, withIt] of withGraph.entries()) {
    if ((set & (1 << graph)) !== 0 && withIt < seconds) seconds = withIt;
  }
  return seconds;
}
