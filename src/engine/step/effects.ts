/** What goes into a step, what it may ask, and what comes out of it to be carried out. */

import type { LazygraphError } from "../../base/errors.ts";
import type { Graph } from "../../base/graph.ts";
import type { EnginePlans } from "../../plan/engine-plan.ts";
import type { PolicyMaker } from "../../schedule/choice.ts";
import type { Decision, EngineEvent } from "../../schedule/policy.ts";
import type { PlanRules } from "../../schedule/rules.ts";
import type { Dropped, FromEngine, Hello, Mode, Orders, ToEngine } from "../../wire/protocol.ts";
import type { EngineEventBase, EventName, LazygraphEvents } from "../events.ts";
import type { ProblemCounts } from "../record.ts";

/** Every message of an engine but those that admission takes in. */
export type EngineMessage = Exclude<FromEngine, { type: "hello" | "goodbye" }>;

/** Waits of an engine, each at most once at a time. */
export type Timer = "tick" | "settle" | "review" | "forget";

export type EngineInput =
  | { readonly type: "join" }
  | { readonly type: "return"; readonly hello: Hello }
  /** @param answers whether it settles the command that was open */
  | { readonly type: "message"; readonly message: EngineMessage; readonly answers: boolean }
  | { readonly type: "goodbye"; readonly reason: string }
  | { readonly type: "lost"; readonly error: LazygraphError }
  | { readonly type: "close" }
  // Orders of the gateway.
  | { readonly type: "mode"; readonly mode: Mode }
  | { readonly type: "freeze"; readonly reason: string }
  | { readonly type: "announce"; readonly inSeconds: number; readonly requests: number }
  | { readonly type: "timer"; readonly timer: Timer }
  /** Free memory was read, or has crossed what is spoken for. */
  | { readonly type: "review" }
  /** A capture's turn has come; its GPUs were read just now. */
  | { readonly type: "turn"; readonly capture: CaptureEffect }
  /** Its memory is reserved, and it is to be sent. */
  | {
      readonly type: "reserved";
      readonly capture: CaptureEffect;
      readonly needBytes: number;
      /** The connection it was decided for is still there. */
      readonly open: boolean;
    }
  | { readonly type: "unanswered"; readonly graph: string; readonly error: unknown }
  | { readonly type: "dropped"; readonly graphs: readonly Graph[]; readonly answer: Dropped }
  | { readonly type: "kept"; readonly graphs: readonly Graph[]; readonly reason: string }
  | { readonly type: "problem"; readonly kind: keyof ProblemCounts; readonly count: number };

export type CaptureEffect = { readonly type: "capture" } & Omit<
  Extract<Decision, { type: "capture" }>,
  "type"
>;

type Told<K extends EventName> = LazygraphEvents[K] extends infer E
  ? E extends unknown
    ? Omit<E, keyof EngineEventBase>
    : never
  : never;

export type PublishEffect = {
  [K in EventName]: { readonly type: "publish"; readonly name: K; readonly event: Told<K> };
}[EventName];

export type Effect =
  | { readonly type: "welcome"; readonly mode: Mode; readonly orders: Orders }
  | {
      readonly type: "send";
      readonly message: Exclude<ToEngine, { type: "capture" | "drop" | "sleep" | "wake" }>;
    }
  /** In the queue of commands, one at a time: when its turn comes, the step is asked once more. */
  | CaptureEffect
  | { readonly type: "drop"; readonly graphs: readonly Graph[] }
  /** The capture whose turn it is may be sent: so much is reserved for it. */
  | { readonly type: "granted"; readonly needBytes: number }
  | {
      readonly type: "command";
      readonly graph: string;
      readonly whenIdle: boolean;
      readonly needBytes: number;
    }
  /** Free memory of these GPUs, by their driver where this host has them; then a review. */
  | { readonly type: "read"; readonly gpus: readonly string[] }
  /** News of these GPUs from now on. */
  | { readonly type: "follow"; readonly gpus: readonly string[] }
  /** What is spoken for on these GPUs has changed, below which news are due. */
  | { readonly type: "thresholds"; readonly gpus: readonly string[] }
  | { readonly type: "wait"; readonly timer: Timer; readonly seconds: number }
  | { readonly type: "cancel"; readonly timer: Timer }
  | PublishEffect
  /** The record is another one now, as a snapshot shows it. */
  | { readonly type: "changed" };

export type Effects = Generator<Effect, void, undefined>;

/** An event of the policy's, without its time. */
export type Happening = EngineEvent extends infer E
  ? E extends EngineEvent
    ? Omit<E, "atSeconds">
    : never
  : never;

/**
 * What a part of the step asks of another one, in its place in the order of effects: what a policy
 * says to something that happened, and captures that go on after their end.
 */
export type Inner =
  | Effect
  | { readonly type: "ask"; readonly happening: Happening }
  | { readonly type: "reopen" };

export interface StepTools {
  /** Monotonic seconds. */
  readonly now: () => number;
  readonly unixMs: () => number;
  readonly policy: PolicyMaker;
  readonly settleWithinSeconds: number | undefined;
  /** Graphs that the user pinned or excluded. */
  readonly rules: PlanRules;
  /** Where learned plans come from; undefined: none do. */
  readonly plans: EnginePlans | undefined;
  /** The GPUs of this host are watched. */
  readonly watchesGpus: boolean;
  /** Whether anybody listens to these events: what nobody hears needn't be told. */
  readonly hears: (name: EventName) => boolean;
}
