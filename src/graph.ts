/**
 * A graph: one captured CUDA graph, named by what a step must look like to replay it.
 *
 * The engine gives every graph a stable id such as `FULL:24` and is the only side that makes ids;
 * this side treats them as opaque keys and reads the fields.
 */

/** vLLM's runtime mode of a graph. FULL records the whole forward pass, PIECEWISE all but attention. */
export type GraphKind = "FULL" | "PIECEWISE";

export interface Graph {
  /** Stable within one plugin version, e.g. `FULL:24` or `PIECEWISE:512`. */
  readonly id: string;
  readonly kind: GraphKind;
  /** Padded tokens of a step that replays this graph. */
  readonly tokens: number;
  /** Largest number of requests it can serve; absent when requests need no padding (PIECEWISE). */
  readonly requests?: number;
  /** Tokens every request must have (a uniform decode graph); absent when any mixture fits. */
  readonly uniform?: number;
}

/** The shape of one step, as far as the choice of a graph depends on it. */
export interface StepShape {
  /** Scheduled tokens before padding. */
  readonly tokens: number;
  readonly requests: number;
  /** Tokens of each request when all have the same number, else 0. */
  readonly uniform: number;
}

/** Whether `graph` may serve a step of this shape. A mixed step never takes a uniform graph. */
export function covers(graph: Graph, step: StepShape): boolean {
  return (
    graph.tokens >= step.tokens &&
    (graph.requests === undefined || graph.requests >= step.requests) &&
    (graph.uniform === undefined || graph.uniform === step.uniform)
  );
}

/**
 * The graph stock vLLM would replay for this step with everything captured: the smallest size that
 * covers it, FULL before PIECEWISE at the same size; undefined where stock would run ungraphed.
 * Source: `CudaGraphManager._init_candidates` and `dispatch` of vLLM 0.26.
 */
export function idealGraph(graphs: readonly Graph[], step: StepShape): Graph | undefined {
  // One pass without allocations: this runs for every step that an engine reports.
  let next = Number.POSITIVE_INFINITY;
  let ideal: Graph | undefined;
  for (const graph of graphs) {
    if (graph.tokens < step.tokens || graph.tokens > next) continue;
    if (graph.tokens < next) ideal = undefined;
    next = graph.tokens;
    const better = ideal === undefined || (graph.kind === "FULL" && ideal.kind !== "FULL");
    if (better && covers(graph, step)) ideal = graph;
  }
  return ideal;
}

/** Largest first; PIECEWISE before FULL at one size, as stock captures (its buffers are larger). */
export function bySizeDescending(a: Graph, b: Graph): number {
  return b.tokens - a.tokens || (a.kind === b.kind ? 0 : a.kind === "PIECEWISE" ? -1 : 1);
}

/**
 * The top graph of each kind and uniform length: what lazy and idle mode capture before ready.
 * PIECEWISE comes first, as in stock: FULL then fits into the pool's buffers.
 */
export function topGraphs(graphs: readonly Graph[]): Graph[] {
  const tops = new Map<string, Graph>();
  for (const graph of graphs) {
    const group = `${graph.kind}/${graph.uniform ?? 0}`;
    const top = tops.get(group);
    if (top === undefined || graph.tokens > top.tokens) tops.set(group, graph);
  }
  return [...tops.values()].sort((a, b) =>
    a.kind === b.kind ? b.tokens - a.tokens : a.kind === "PIECEWISE" ? -1 : 1,
  );
}
