/** Which engine gets the next request. Pure: engines as they are in, a choice out. */

import { type EngineSnapshot, PAD_LIMIT } from "lazygraph";

export interface Candidate {
  readonly inFlight: number;
  readonly capturing: boolean;
  /** Whether the batch with one more request in it has a graph. */
  readonly hasNextGraph: boolean;
}

/**
 * What is against an engine, in requests that it has already. A capture holds it up for some tens
 * of milliseconds, longer than a few more requests in its batch do; a missing graph makes steps
 * slower only until it is captured. So neither outweighs a queue.
 */
const CAPTURE_REQUESTS = 8;
const MISSING_GRAPH_REQUESTS = 2;

export function cost({ inFlight, capturing, hasNextGraph }: Candidate): number {
  return (
    inFlight + (capturing ? CAPTURE_REQUESTS : 0) + (hasNextGraph ? 0 : MISSING_GRAPH_REQUESTS)
  );
}

export type Choose = <T extends Candidate>(candidates: readonly T[], turn: number) => T | undefined;

/** The cheapest one; among equals they take turns, by `turn`. Undefined when there is none. */
export function choose<T extends Candidate>(candidates: readonly T[], turn: number): T | undefined {
  const costs = candidates.map(cost);
  const least = Math.min(...costs);
  const cheapest = candidates.filter((_, index) => costs[index] === least);
  return cheapest[turn % cheapest.length];
}

/** The captured graphs of an engine as far as they matter for a decode batch of n requests. */
export class GraphSizes {
  readonly #captured: readonly number[];
  readonly #largest: number;

  constructor(graphs: EngineSnapshot["graphs"]) {
    // Decode steps take FULL graphs where there are any.
    const kind = graphs.some((graph) => graph.kind === "FULL") ? "FULL" : "PIECEWISE";
    const usable = graphs.filter((graph) => graph.kind === kind);
    this.#largest = Math.max(0, ...usable.map(({ tokens }) => tokens));
    this.#captured = usable
      .filter(({ status }) => status === "captured")
      .map(({ tokens }) => tokens)
      .sort((a, b) => a - b);
  }

  /** Beyond the largest graph that was planned, stock has none either. */
  has(requests: number): boolean {
    if (requests > this.#largest) return true;
    const limit = Math.max(PAD_LIMIT.tokens, requests * PAD_LIMIT.factor);
    return this.#captured.some((tokens) => tokens >= requests && tokens <= limit);
  }
}
