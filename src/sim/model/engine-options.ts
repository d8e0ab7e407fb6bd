/** What a simulated engine is given, and what it tells whoever watches it. */

import type { Graph, StepShape } from "../../base/graph.ts";
import type { Profile } from "../../profile/profile.ts";
import type { CaptureResult, Dropped, StepCount } from "../../wire/protocol.ts";
import type { RequestSample, TokenListener } from "./batcher.ts";
import type { SimulatedGpu } from "./memory.ts";

export interface EngineOptions {
  readonly profile: Profile;
  readonly observer?: EngineObserver;
  /** `first`: only the first graph of each kind before ready has a warm-up run. @default "first" */
  readonly warmUps?: "first" | "all";
  /** Requests that may wait; more are refused and counted. @default 1,000,000 */
  readonly waitingMax?: number;
  /** Bytes captures must leave free. @default 0 */
  readonly marginBytes?: number;
  /** Where its memory is. @default a device of its own, with the profile's free bytes */
  readonly gpu?: SimulatedGpu;
  /** Relative standard deviation of step and capture times. @default 0 */
  readonly jitter?: number;
  /** Of the jitter. @default 1 */
  readonly seed?: number;
  /**
   * A graph that a step captures on its way, as an engine of ours never does: for comparisons.
   *
   * @default none
   */
  readonly captureInStep?: (
    planned: readonly Graph[],
    step: StepShape,
    captured: (graph: Graph) => boolean,
  ) => Graph | undefined;
}

export type CaptureOutcome = Pick<
  CaptureResult,
  "command" | "graph" | "outcome" | "reason" | "refusal" | "stallMs" | "ms" | "bytes"
>;

export type DropOutcome = Omit<Dropped, "type" | "ranks" | "epoch">;

/** Called from inside `begin` and `finish`; may call the engine's commands, not these two. */
export interface EngineObserver {
  /** The KV cache exists: `start` is awaited. */
  onLoaded?(atSeconds: number): void;
  onReady?(atSeconds: number): void;
  onCaptureStart?(graph: Graph, atSeconds: number): void;
  onCaptureResult?(result: CaptureOutcome, atSeconds: number): void;
  onDropResult?(result: DropOutcome, atSeconds: number): void;
  /** A step's activations found no memory: a real engine dies of it. */
  onOutOfMemory?(atSeconds: number): void;
  onStep?(step: Omit<StepCount, "count" | "timed">, atSeconds: number): void;
  onRequest?(sample: RequestSample): void;
  /** Of requests that arrived with a tag. */
  onToken?: TokenListener;
  onEdge?(state: "idle" | "busy", atSeconds: number): void;
}
