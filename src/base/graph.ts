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
  /** Active LoRA adapters that it was captured for; absent: 0. */
  readonly loras?: number;
  /** Largest number of tokens that one request may have; absent: any. */
  readonly queryLength?: number;
  /** Microbatches that its step is split into; absent: 1. */
  readonly microbatches?: number;
  /**
   * Decoder layers of a drafter's runs whose graphs are captured, dropped and counted with this
   * one, for a forecast of its bytes; absent: 0. What several graphs share counts with one of them.
   */
  readonly draftLayers?: number;
}

/** What of a step decides, besides its size and its requests, which graphs may serve it. */
export interface StepCase {
  /**
   * The adapter case: how many active LoRA adapters its graph must have been captured for, as the
   * engine rounds the step's own number up to one that it has graphs for; absent: 0.
   */
  readonly loras?: number;
  /** Tokens of its longest request; absent where the engine sets no bound, as with a prompt. */
  readonly queryLength?: number;
  /** Microbatches that it is split into; absent: 1. */
  readonly microbatches?: number;
}

/** The shape of one step, as far as the choice of a graph depends on it. */
export interface StepShape extends StepCase {
  /** Scheduled tokens before padding. */
  readonly tokens: number;
  readonly requests: number;
  /** Tokens of each request when all have the same number, else 0. */
  readonly uniform: number;
}

/**
 * Whether `graph` may serve a step of this shape. A mixed step never takes a uniform graph.
 * Source: `_is_compatible` in `vllm/v1/worker/gpu/cudagraph_utils.py` of vLLM 0.33; in older
 * versions the fields of the case that they don't have stand at their defaults.
 */
export function covers(graph: Graph, step: StepShape): boolean {
  return (
    graph.tokens >= step.tokens &&
    (graph.requests === undefined || graph.requests >= step.requests) &&
    (graph.uniform === undefined || graph.uniform === step.uniform) &&
    fitsCase(graph, step)
  );
}

/** Whether `graph` was captured for steps of this case. */
export function fitsCase(graph: Graph, { loras, queryLength, microbatches }: StepCase): boolean {
  return (
    (graph.loras ?? 0) === (loras ?? 0) &&
    (graph.microbatches ?? 1) === (microbatches ?? 1) &&
    // A step without a bound holds a prompt: it must not run in a graph that has one.
    (graph.queryLength === undefined ||
      (queryLength !== undefined && queryLength <= graph.queryLength))
  );
}

/**
 * The graph stock vLLM would replay for this step with everything captured: the smallest size that
 * covers it, FULL before PIECEWISE at the same size; undefined where stock would run ungraphed.
 * Sizes are those of the step's adapter case alone, as vLLM keeps a list of candidates for each.
 * Source: `CudaGraphManager._init_candidates` and `dispatch` of vLLM 0.26.
 */
export function idealGraph(graphs: readonly Graph[], step: StepShape): Graph | undefined {
  // One pass without allocations: this runs for every step that an engine reports.
  let next = Number.POSITIVE_INFINITY;
  let ideal: Graph | undefined;
  const loras = step.loras ?? 0;
  for (const graph of graphs) {
    if (graph.tokens < step.tokens || graph.tokens > next || (graph.loras ?? 0) !== loras) continue;
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

/** Stock's order: PIECEWISE, then FULL, each from the largest down. */
export function byKindThenSize(a: Graph, b: Graph): number {
  if (a.kind !== b.kind) return a.kind === "PIECEWISE" ? -1 : 1;
  return bySizeDescending(a, b);
}

/**
 * The top graph of each kind, uniform length and case: what lazy and idle mode capture before
 * ready. PIECEWISE comes first, as in stock: FULL then fits into the pool's buffers.
 */
export function topGraphs(graphs: readonly Graph[]): Graph[] {
  const tops = new Map<string, Graph>();
  for (const graph of graphs) {
    const group = `${graph.kind}/${graph.uniform ?? 0}/${caseKey(graph)}`;
    const top = tops.get(group);
    if (top === undefined || graph.tokens > top.tokens) tops.set(group, graph);
  }
  return [...tops.values()].sort((a, b) =>
    a.kind === b.kind ? b.tokens - a.tokens : a.kind === "PIECEWISE" ? -1 : 1,
  );
}

/** The case without the fields that stand at their defaults. */
export function caseOf({ loras = 0, queryLength, microbatches = 1 }: StepCase): StepCase {
  return {
    ...(loras === 0 ? {} : { loras }),
    ...(queryLength === undefined ? {} : { queryLength }),
    ...(microbatches === 1 ? {} : { microbatches }),
  };
}

/** Equal for equal cases, of graphs or of steps. */
export function caseKey({ loras = 0, queryLength = 0, microbatches = 1 }: StepCase): string {
  return `${loras}/${queryLength}/${microbatches}`;
}
