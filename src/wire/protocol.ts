/**
 * The protocol between a controller (ROUTER) and its engines (DEALER), version 2.
 *
 * The only definition on this side; `worker/src/lazygraph_vllm/protocol/messages.py` mirrors it and the
 * golden frames under test/golden keep the two alike. One ZeroMQ frame holds one msgpack map whose
 * `type` names the message. Unknown fields are ignored, unknown types counted and dropped.
 * docs/protocol.md explains the order of messages and what each side promises.
 *
 * Units: `…Ms` milliseconds, `…Seconds` seconds, `…Bytes` bytes. Graph ids as in src/base/graph.ts.
 */

import type { Graph, StepCase } from "../base/graph.ts";

/**
 * Version 2 added the case of graphs and steps (`loras`, `queryLength`, `microbatches`) and
 * `start.more`: what a peer of version 1 must not leave out unread. See version.ts.
 */
export const PROTOCOL_VERSION = 2;
/** The oldest version that is still spoken. */
export const PROTOCOL_VERSION_MIN = 1;

/** Bounds that both sides enforce on arrival; a frame or field beyond them is refused. */
export const LIMITS = {
  frameBytes: 1_048_576,
  graphs: 4096,
  tiers: 64,
  ranks: 256,
  stepsPerBatch: 512,
  textChars: 2048,
  idChars: 128,
  tableRows: 4096,
  rowGraphs: 64,
  retrySecondsMax: 3600,
  heartbeatMsMin: 10,
  heartbeatMsMax: 600_000,
  /** A day: no start captures longer. */
  budgetMsMax: 86_400_000,
  tokens: 1_048_576,
  /** Parts of an engine that sleep each for itself. */
  tags: 16,
  /** Phases of a start. */
  phases: 64,
  /** Entries of `orders.pin` and of `orders.exclude`. */
  rules: 256,
  /** A year, of `orders.settleWithinSeconds` and of the time that captures have had so far. */
  secondsMax: 31_536_000,
} as const;

export type Mode = "eager" | "lazy" | "idle";
export const MODES: readonly Mode[] = ["eager", "lazy", "idle"];

/** Where an engine stands. `stock`: our plugin stepped aside, vLLM runs unchanged. */
export type Phase = "loading" | "capturing" | "serving" | "stock" | "stopping";
export const PHASES: readonly Phase[] = ["loading", "capturing", "serving", "stock", "stopping"];

/**
 * What is kept back from vLLM's KV cache: nothing; what serving and the smallest graphs find not
 * even outside vLLM's share of the device; the top graph of each kind; or all graphs.
 */
export type Reserve = "none" | "least" | "top" | "plan";
export const RESERVES: readonly Reserve[] = ["none", "least", "top", "plan"];

/**
 * What its operator ordered for an engine, beside the mode of its controller's options. The engine
 * keeps it as it was told last and tells it with every `hello`, so that the next controller goes by
 * it. Absent fields: no such order.
 */
export interface Orders {
  /** Rises with every order, so that a heartbeat can tell which one came last; absent: 0. */
  readonly serial?: number;
  /** Set for this engine. */
  readonly mode?: Mode;
  /** Why captures were ended by somebody; they stay so until a mode is set. */
  readonly frozen?: string;
  /** Seconds in which captures may happen, from ready or from the last order of a mode on. */
  readonly settleWithinSeconds?: number;
  /** Rules about graphs, as the controller's options have them. */
  readonly pin?: readonly string[];
  readonly exclude?: readonly string[];
  readonly graphsMax?: number;
}

// ------------------------------------------------------------------ engine → controller

/** First message of a session, sent while weights load and again after every reconnect. */
export interface Hello {
  readonly type: "hello";
  readonly versionMin: number;
  readonly versionMax: number;
  /** Logical identity, stable over restarts of the engine. */
  readonly engine: string;
  /** Random per engine process: tells a restart from a reconnect. */
  readonly session: string;
  readonly pluginVersion: string;
  readonly vllmVersion: string;
  readonly model: string;
  readonly host: string;
  readonly pid: number;
  readonly phase: Phase;
  /** The mode the engine was started with; the controller's `welcome` may change it. */
  readonly mode: Mode;
  readonly tensorParallel: number;
  readonly pipelineParallel: number;
  /** Profile name when the engine is simulated, else absent. */
  readonly simulated?: string;
  /** Which of the plugin's adapters to vLLM serves this engine, e.g. `v31`; absent: not told. */
  readonly adapter?: string;
  /** It takes `sleep` and `wake`; absent: it doesn't. */
  readonly sleeps?: boolean;
  /** The highest incarnation that has welcomed it; absent: none has, or it is not told. */
  readonly incarnation?: number;
  /** What it was told last; absent: nothing yet. */
  readonly orders?: Orders;
  /** Whose it is; absent: it has no CURVE keys, or can't prove one. */
  readonly proof?: KeyProof;
}

/** That the sender of a `hello` has the secret key to this public one. See key-proof.ts. */
export interface KeyProof {
  /** Z85. */
  readonly key: string;
  /** Of name, session and both keys; 64 hexadecimal digits. */
  readonly mac: string;
}

/** What one rank sees of its GPU. */
export interface RankMemory {
  readonly rank: number;
  readonly gpuUuid: string;
  readonly gpuName: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Held by torch's allocator: in use and cached. */
  readonly reservedBytes: number;
  /** Segments of the graph pool. */
  readonly poolBytes: number;
  /** Activation peak that vLLM measured in its profile run. */
  readonly activationPeakBytes: number;
  /**
   * Of `activationPeakBytes`, what torch's allocator holds already: reserved but not allocated
   * outside the graph pools, read while no step is under way. Absent: not known, take 0.
   */
  readonly activationHeldBytes?: number;
  /** The same, not held to the peak: what emptying torch's cache may give back. Absent: nothing. */
  readonly cachedBytes?: number;
}

/** One graph that is captured, with what it cost. */
export interface Captured {
  readonly graph: string;
  /** Wall milliseconds on the slowest rank. */
  readonly ms: number;
  /** Growth of (pool segments + device memory outside torch), largest over ranks. */
  readonly bytes: number;
}

/** What was taken off the KV cache for graphs, on each rank. */
export interface Reserved {
  readonly mode: Reserve;
  /** For graphs; with `least` a part of it may lie outside vLLM's share of the device anyway. */
  readonly bytes: number;
  /** What the KV cache would hold more without it, `servingBytes` included. */
  readonly kvTokens: number;
  /**
   * Besides `bytes`: for what serving takes beyond vLLM's budget, where the utilisation leaves too
   * little outside of it. Absent: nothing.
   */
  readonly servingBytes?: number;
}

/** Everything the scheduler needs; sent after the KV cache exists and before the first capture. */
export interface Inventory {
  readonly type: "inventory";
  readonly phase: Phase;
  /** All graphs stock would capture, in stock's order. */
  readonly graphs: readonly Graph[];
  readonly captured: readonly Captured[];
  readonly ranks: readonly RankMemory[];
  readonly cudagraphMode: string;
  readonly layers: number;
  /** Its attention is multi-head latent, whose graphs take more; absent: no, or it isn't told. */
  readonly latent?: boolean;
  readonly maxRequests: number;
  readonly maxBatchedTokens: number;
  readonly kvCacheTokens: number;
  /** Bumped by each change of the captured set; equal on all ranks. */
  readonly epoch: number;
  /** Set when the plugin stepped aside (`phase: "stock"`): the sentence it logged. */
  readonly unsupported?: string;
  /** Absent: nothing was reserved, or the engine can't. */
  readonly reserve?: Reserved;
  /** The tiers that the engine took over from `start`; absent: none, one pool for all. */
  readonly tiers?: readonly (readonly string[])[];
  /** What of the engine sleeps, such as `weights` and `kv_cache`; absent: it is awake. */
  readonly asleep?: readonly string[];
  /** Why it captures no more, by the last `freeze`; absent: it may, or doesn't tell. */
  readonly frozen?: string;
  /**
   * How long ago the time for captures began: at ready, or with the last order of a mode. Absent:
   * it hasn't begun, or it isn't told.
   */
  readonly settlingSeconds?: number;
}

/** Sent once, when the engine starts to serve. */
export interface Ready {
  readonly type: "ready";
  /** Seconds in graph capture before ready, slowest rank. */
  readonly captureSeconds: number;
  readonly captured: readonly Captured[];
  readonly ranks: readonly RankMemory[];
  readonly epoch: number;
  /** Of `captureSeconds`, those in warm-up runs; absent: not told apart. */
  readonly warmUpSeconds?: number;
  /** Of `start.more`: left out because the budget was used; absent: none. */
  readonly skipped?: readonly string[];
  /** What the start spent until then, by phase; absent: it wasn't timed. */
  readonly phases?: readonly PhaseSeconds[];
}

/** A phase of an engine's start; seconds in it and in nothing inside it. */
export interface PhaseSeconds {
  readonly name: string;
  readonly seconds: number;
}

/** Answer to `capture`; `deferred` and `refused` are normal outcomes. */
export interface CaptureResult {
  readonly type: "result";
  readonly command: number;
  readonly graph: string;
  readonly outcome: "captured" | "already" | "deferred" | "refused" | "failed";
  /** Why, for all but `captured` and `already`. */
  readonly reason?: string;
  /** With `refused`: `headroom` (memory; ask again when there is room) or `other` (for good). */
  readonly refusal?: "headroom" | "other";
  /** Milliseconds the engine was held up, waiting and bookkeeping included. */
  readonly stallMs: number;
  readonly ms: number;
  readonly bytes: number;
  readonly ranks: readonly RankMemory[];
  readonly epoch: number;
}

/** Answer to `drop`. Anything but `dropped` means that nothing was dropped. */
export interface Dropped {
  readonly type: "dropped";
  readonly command: number;
  readonly outcome: "dropped" | "refused" | "deferred" | "failed";
  /** What was dropped; empty for every other outcome. */
  readonly graphs: readonly string[];
  /** Device memory given back, the smallest over the ranks. */
  readonly freedBytes: number;
  /** Why, for all but `dropped`. */
  readonly reason?: string;
  readonly ranks: readonly RankMemory[];
  readonly epoch: number;
}

/** Answer to `sleep` and `wake`; with `refused` nothing was done. */
export interface Slept {
  readonly type: "slept";
  readonly command: number;
  readonly outcome: "asleep" | "awake" | "refused" | "failed";
  /** What of the engine sleeps now. */
  readonly asleep: readonly string[];
  /** What it took, the wait for running requests included. */
  readonly seconds: number;
  /** Device memory of dropped graphs that came back, the smallest over the ranks; absent: none. */
  readonly freedBytes?: number;
  /** Why, for `refused` and `failed`. */
  readonly reason?: string;
  readonly ranks: readonly RankMemory[];
  readonly epoch: number;
}

/** Steps of one shape and case since the last batch. */
export interface StepCount extends StepCase {
  readonly tokens: number;
  readonly requests: number;
  /** 0 for a mixed step. */
  readonly uniform: number;
  /** Graph that served it; empty: ungraphed. */
  readonly served: string;
  readonly count: number;
  /** Sum of the steps' GPU seconds, event to event; 0 where not measured. */
  readonly seconds: number;
  /** How many of `count` the `seconds` cover. */
  readonly timed: number;
  /** Mean context length in tokens of the requests in the timed steps, of all where none is. */
  readonly contextTokens: number;
}

/** Demand since the last batch; dropped, not queued, when nobody listens. */
export interface Telemetry {
  readonly type: "telemetry";
  readonly sequence: number;
  /** Batches and steps that could not be reported so far. */
  readonly dropped: number;
  readonly steps: readonly StepCount[];
  readonly running: number;
  readonly waiting: number;
}

/** The engine ran out of work, or has work again. */
export interface Edge {
  readonly type: "edge";
  readonly state: "idle" | "busy";
  readonly running: number;
  readonly waiting: number;
}

export interface Heartbeat {
  readonly type: "heartbeat";
  readonly ranks?: readonly RankMemory[];
  // How an engine stands, so that its controller sees when a message was lost; absent: not told.
  readonly phase?: Phase;
  readonly mode?: Mode;
  readonly epoch?: number;
  /** How many graphs are. */
  readonly captured?: number;
  readonly state?: "idle" | "busy";
  /** The `serial` of its orders. */
  readonly orders?: number;
  /** It captures no more; absent: it may. */
  readonly frozen?: boolean;
  /** Something of it sleeps; absent: it is awake. */
  readonly asleep?: boolean;
}

/** The engine refuses or ignores a message that is valid msgpack but not valid for it. */
export interface Problem {
  readonly type: "problem";
  readonly code: string;
  readonly message: string;
}

export interface Goodbye {
  readonly type: "goodbye";
  readonly reason: string;
}

export type FromEngine =
  | Hello
  | Inventory
  | Ready
  | CaptureResult
  | Dropped
  | Slept
  | Telemetry
  | Edge
  | Heartbeat
  | Problem
  | Goodbye;

// ------------------------------------------------------------------ controller → engine

/** Accepts a `hello`. The engine answers with `inventory` as soon as it can. */
export interface Welcome {
  readonly type: "welcome";
  readonly version: number;
  /**
   * Start of this controller in Unix milliseconds, or one more than what an engine had before, if
   * that is more: an older controller is fenced off.
   */
  readonly incarnation: number;
  readonly heartbeatMs: number;
  readonly mode: Mode;
  /** Overrides the engine's own setting if it comes before the KV cache is sized. */
  readonly reserve?: Reserve;
  /** With `top` and `plan`: bytes per rank known from an earlier start, instead of a forecast. */
  readonly reserveBytes?: number;
  /** What every capture must leave free on each rank, besides its own size; default 64 MiB. */
  readonly marginBytes?: number;
  /** In the place of what the engine was told before; absent: that stays. */
  readonly orders?: Orders;
}

/** Ends the session: the engine goes on by its mode's defaults and doesn't ask again. */
export interface Refuse {
  readonly type: "refuse";
  readonly code: string;
  readonly message: string;
}

/**
 * Puts a `hello` off: there is no place now. The engine serves as without a controller and says
 * `hello` again. An older one, which doesn't know this, says it again every second anyway.
 */
export interface Later {
  readonly type: "later";
  readonly code: string;
  readonly message: string;
  /** Until the next `hello`. */
  readonly retrySeconds: number;
}

/**
 * Which graphs to capture before ready, in this order. Answers the first `inventory`. An engine
 * that has begun already takes only what it says of the time without a controller.
 */
export interface Start {
  readonly type: "start";
  readonly graphs: readonly string[];
  /** Then these, in this order, as many as the budget holds; absent: none. Version 2. */
  readonly more?: readonly string[];
  /**
   * Milliseconds of capture before ready, warm-up runs included, from which on none of `more` is
   * begun; absent: the engine's own rule, 1/30 of what stock would spend. Version 2.
   */
  readonly budgetMs?: number;
  /**
   * Lists of graphs that get a memory pool each, so that one can be dropped without the others; a
   * graph is in one at most. Graphs in none share the default pool; absent: all do.
   */
  readonly tiers?: readonly (readonly string[])[];
  /** Graphs that the engine must not capture by itself, without its controller; absent: none. */
  readonly exclude?: readonly string[];
  /** Without its controller the engine captures nothing where it holds so many; absent: no limit. */
  readonly graphsMax?: number;
}

/** One graph, on all ranks, between two steps. */
export interface Capture {
  readonly type: "capture";
  /** Rises within an incarnation; a repeated command is answered again, not executed again. */
  readonly command: number;
  readonly graph: string;
  /** Only if the engine has nothing to do when the command's turn comes; else `deferred`. */
  readonly whenIdle: boolean;
  /** Every rank tries to have this much before anything is captured; absent: no such check. */
  readonly needBytes?: number;
}

/**
 * Drops graphs on all ranks between two steps, and gives their memory back. `graphs` must be
 * all captured graphs of one or more tiers: a pool returns its memory only as a whole.
 */
export interface Drop {
  readonly type: "drop";
  /** As for `capture`. */
  readonly command: number;
  readonly graphs: readonly string[];
}

/**
 * The dispatch table: for a step of n tokens the row with the smallest `upTo` ≥ n applies, and its
 * first captured graph that covers the step is replayed; none: ungraphed. Uniform decode steps and
 * mixed steps have a table each.
 */
export interface DispatchRow {
  readonly upTo: number;
  readonly graphs: readonly string[];
}

export interface Dispatch {
  readonly type: "dispatch";
  readonly uniform: readonly DispatchRow[];
  readonly mixed: readonly DispatchRow[];
}

/** Ends captures for good (`frozen: true`); they resume only after a mode change. */
export interface Freeze {
  readonly type: "freeze";
  readonly reason: string;
  /** As in `welcome`. */
  readonly orders?: Orders;
}

export interface SetMode {
  readonly type: "mode";
  readonly mode: Mode;
  /** As in `welcome`. */
  readonly orders?: Orders;
  /** How long ago the time for captures began; absent: the engine's own word stays. */
  readonly settlingSeconds?: number;
}

/**
 * Gives memory back, once the requests that run have ended; new ones wait. Only for an engine whose
 * `hello` says that it `sleeps`.
 */
export interface Sleep {
  readonly type: "sleep";
  /** As for `capture`. */
  readonly command: number;
  /** 1: the weights are kept on the host; 2: they are given up, and loaded again at `wake`. */
  readonly level: number;
  /** All graphs are dropped as well; absent: they stay, and serve again after `wake`. */
  readonly dropGraphs?: boolean;
}

/** Serves again. */
export interface Wake {
  readonly type: "wake";
  /** As for `capture`. */
  readonly command: number;
  /** Absent: where a `sleep` of level 2 gave them up. */
  readonly reloadWeights?: boolean;
}

/** Asks for a fresh `inventory`. */
export interface Resync {
  readonly type: "resync";
  /** True when this controller doesn't know the session: `hello` comes first, then `inventory`. */
  readonly hello?: boolean;
}

export type ToEngine =
  | Welcome
  | Refuse
  | Later
  | Start
  | Capture
  | Drop
  | Dispatch
  | Freeze
  | SetMode
  | Sleep
  | Wake
  | Resync
  | Heartbeat;
