/** Cost profiles: what one model on one GPU was measured to take, with its provenance. */

import type { Graph } from "../base/graph.ts";

/** `[tokens, seconds]`, tokens rising; between two rows the cost is interpolated. */
export type CostRow = readonly [tokens: number, seconds: number];

/** What it takes to capture one graph. */
export interface CaptureCost {
  readonly graph: Graph;
  /** Milliseconds of the warm-up run and of the capture proper, before ready. */
  readonly warmMs: number;
  readonly captureMs: number;
  /** Milliseconds as a command of its own between two steps. */
  readonly laterMs: number;
  readonly bytes: number;
}

export interface StepCosts {
  /** By the graph's padded tokens. */
  readonly full: readonly CostRow[];
  readonly piecewise: readonly CostRow[];
  /** By the step's own tokens: ungraphed steps are not padded. */
  readonly ungraphed: readonly CostRow[];
  readonly secondsPerRequest: number;
  /** For each token of context that a decoding request attends to. */
  readonly secondsPerContextToken: number;
  /** For each token of an ungraphed step beyond the table's last row. */
  readonly secondsPerTokenBeyond: number;
  /** For each pair of a prompt's new token and a token it attends to. */
  readonly secondsPerPromptPair: number;
}

export interface Profile {
  readonly name: string;
  /** What was measured, in words; shown wherever simulated numbers are. */
  readonly title: string;
  readonly measuredOn: string;
  readonly setup: string;
  /** Where each field comes from: measured, derived, estimated or assumed, and how. */
  readonly provenance: Readonly<Record<string, { readonly kind: string; readonly how: string }>>;
  readonly engine: {
    readonly model: string;
    readonly vllmVersion: string;
    readonly gpuName: string;
    readonly cudagraphMode: string;
    readonly layers: number;
    readonly tensorParallel: number;
    readonly pipelineParallel: number;
  };
  /** Seconds from the start of the process to the KV cache, graph capture not included. */
  readonly startupSeconds: number;
  /**
   * Seconds that a request spends outside the engine: HTTP, tokenizer, messages between processes,
   * the way back of its tokens. 0 where the file has none.
   */
  readonly frontEndSeconds: number;
  readonly limits: {
    readonly maxRequests: number;
    readonly maxBatchedTokens: number;
    readonly kvCacheTokens: number;
    readonly kvBlockTokens: number;
    /**
     * Steps that are put together before the one under way has ended: 1 of an engine that schedules
     * asynchronously, else 0, also where the file has none.
     */
    readonly stepsAhead: number;
  };
  readonly memory: {
    readonly totalBytes: number;
    /** Before the first capture. */
    readonly freeBytes: number;
    readonly reservedBytes: number;
    readonly activationPeakBytes: number;
  };
  readonly steps: StepCosts;
  readonly captures: {
    /** Share of warm-up plus capture that remains when the warm-up run is skipped. */
    readonly withoutWarmUp: number;
    /** All graphs stock would capture, in stock's order. */
    readonly costs: readonly CaptureCost[];
  };
}
