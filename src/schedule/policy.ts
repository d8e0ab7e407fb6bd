/**
 * The extension point: a policy turns what happened to one engine into decisions.
 *
 * A policy is pure. It reads no clock, sends nothing and keeps no state outside `EngineState`'s
 * fields and its own object; the same code drives the real engine, the simulated one and the
 * property tests. The controller (or the simulator) carries the decisions out.
 */

import type { Graph, StepShape } from "../base/graph.ts";
import type { EngineState } from "./state.ts";

/** What happened. `atSeconds` is the caller's monotonic clock. */
export type EngineEvent = { readonly atSeconds: number } & (
  | { readonly type: "inventory" }
  | { readonly type: "ready" }
  | { readonly type: "demand"; readonly steps?: readonly StepsSeen[] }
  | { readonly type: "idle" }
  | { readonly type: "busy" }
  | { readonly type: "captured"; readonly graph: string }
  | { readonly type: "deferred"; readonly graph: string }
  | { readonly type: "refused"; readonly graph: string }
  | { readonly type: "failed"; readonly graph: string }
  /** The gateway expects this many requests in this many seconds. */
  | { readonly type: "announce"; readonly inSeconds: number; readonly requests: number }
  /** Memory has run out for these graphs, or there is room for them again: see their status. */
  | { readonly type: "memory"; readonly graphs: readonly string[] }
  | { readonly type: "tick" }
);

/** Steps of one shape since the last demand: what a policy that reckons with costs learns from. */
export interface StepsSeen extends StepShape {
  /** Graph that served them; empty: ungraphed. */
  readonly served: string;
  readonly count: number;
  /** Sum over the `timed` ones; 0 where nothing was timed. */
  readonly seconds: number;
  readonly timed: number;
  /** Mean context of their requests, in tokens. */
  readonly contextTokens: number;
}

export interface TableRow {
  readonly upTo: number;
  readonly graphs: readonly string[];
}

/** Which graph serves which step; see `Dispatch` in src/wire/protocol.ts for the rule. */
export interface DispatchTable {
  readonly uniform: readonly TableRow[];
  readonly mixed: readonly TableRow[];
}

/** What to do, and why. Every decision carries its reason as a readable sentence. */
export type Decision = { readonly reason: string } & (
  | {
      readonly type: "start";
      /** Captured before ready, whatever they take. */
      readonly graphs: readonly Graph[];
      /** And then these, in this order, as many as the budget holds. */
      readonly more?: readonly Graph[];
      /**
       * Milliseconds of capture before ready, from which on none of `more` is begun. Absent: the
       * engine's own rule, a share of what stock would spend (`first-budget.ts`).
       */
      readonly budgetMs?: number;
    }
  | { readonly type: "capture"; readonly graph: Graph; readonly whenIdle: boolean }
  | { readonly type: "dispatch"; readonly table: DispatchTable }
  | { readonly type: "settled" }
  | { readonly type: "wait"; readonly seconds: number }
);

/** @param why no more is captured, where graphs are missing */
export function settledWith(missing: number, why: string): Decision {
  const reason =
    missing === 0
      ? "no graph is left to capture"
      : `${why}, ${missing === 1 ? "1 graph stays" : `${missing} graphs stay`} uncaptured`;
  return { type: "settled", reason };
}

export interface Policy {
  readonly name: string;
  /** At most one `capture` per call; none while `state.capturing` is set. */
  decide(state: EngineState, event: EngineEvent): readonly Decision[];
}
