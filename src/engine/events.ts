/**
 * What a program may watch: `node:diagnostics_channel` channels with typed payloads.
 *
 * A channel nobody listens to costs nothing. `NODE_DEBUG=lazygraph` is one more subscriber, which
 * writes every event to stderr.
 */

import { channel, subscribe, unsubscribe } from "node:diagnostics_channel";
import { debuglog } from "node:util";
import { callback, checkOption } from "../base/check-options.ts";
import { oneOf } from "../base/schema.ts";
import type { Forecast } from "../memory/forecast.ts";
import type { Mode, StepCount } from "../wire/protocol.ts";
import type { MemoryVerdict } from "./memory-line.ts";

/** Which engine an event is about, and when: Unix milliseconds. */
export interface EngineEventBase {
  readonly engine: string;
  readonly session: string;
  readonly atUnixMs: number;
}

export interface EngineJoinEvent extends EngineEventBase {
  readonly model: string;
  readonly mode: Mode;
  /** True when the same engine process came back. */
  readonly reconnected: boolean;
  readonly simulated: boolean;
}

export interface EngineLostEvent extends EngineEventBase {
  readonly code: string;
  readonly reason: string;
  /** What it gave as its reason when it left by itself; absent when it was lost. */
  readonly goodbye?: string;
}

export interface EngineReadyEvent extends EngineEventBase {
  readonly captureSeconds: number;
  readonly graphsCaptured: number;
  readonly graphsPlanned: number;
}

export interface EngineSettledEvent extends EngineEventBase {
  readonly reason: string;
  /** To the first time it settled; absent when this controller did not see it get ready. */
  readonly readyToSettledSeconds?: number;
  readonly graphsCaptured: number;
  readonly graphsPlanned: number;
}

/** It falls asleep, wakes up, or some of it does. */
export interface EngineAsleepEvent extends EngineEventBase {
  /** What of it sleeps, in vLLM's words; empty: it is awake. */
  readonly asleep: readonly string[];
}

/** After the first graphs: what they took, what is free, what the rest will take. */
export interface EngineMemoryEvent extends EngineEventBase {
  readonly takenBytes: number;
  /** Of the rank with the least room; absent when none reported. */
  readonly freeBytes?: number;
  /** Of it, what serving still needs, margin, other engines and captures under way included. */
  readonly servingBytes?: number;
  /** What graphs may take. */
  readonly headroomBytes?: number;
  readonly forecast: Forecast;
  readonly verdict: MemoryVerdict;
  /** The flags that would make room for all; absent where all fit. */
  readonly advice?: string;
  /** The same as one line to be read. */
  readonly line: string;
}

/** Graphs that were not asked for, because memory would not suffice; asked again with room. */
export interface MemoryRefusedEvent extends EngineEventBase {
  readonly graphs: readonly string[];
  /** What the asked graph, or before ready all of them, may take. */
  readonly needBytes: number;
  readonly availableBytes: number;
  /** Whether this engine's memory has run out before. */
  readonly repeated: boolean;
  /** The same as one line to be read, with what to change. */
  readonly line: string;
}

/** Room for graphs that waited for memory. */
export interface MemoryRoomEvent extends EngineEventBase {
  readonly graphs: readonly string[];
  readonly availableBytes: number;
  readonly line: string;
}

/** A tier of graphs that was given up for serving. */
export interface MemoryDroppedEvent extends EngineEventBase {
  readonly graphs: readonly string[];
  readonly freedBytes: number;
  readonly line: string;
}

export interface CaptureStartEvent extends EngineEventBase {
  readonly graph: string;
  readonly whenIdle: boolean;
  readonly reason: string;
}

export interface CaptureEndEvent extends EngineEventBase {
  readonly graph: string;
  readonly ms: number;
  readonly stallMs: number;
  readonly bytes: number;
  /** Captured so far, this one included, and planned in all. */
  readonly graphsCaptured: number;
  readonly graphsPlanned: number;
}

/**
 * A capture that did not happen. Failed ones are not tried again, refused ones only where the
 * engine had no memory for them.
 */
export interface CaptureMissEvent extends EngineEventBase {
  readonly graph: string;
  readonly reason: string;
  /** Set for `failed` when no answer came: ERR_LAZYGRAPH_ENGINE_LOST or …_TIMEOUT. */
  readonly code?: string;
}

/** Steps that an engine ran since it told the last ones; what it could not tell is missing. */
export interface EngineStepsEvent extends EngineEventBase {
  readonly running: number;
  readonly waiting: number;
  readonly steps: readonly StepCount[];
}

export interface DecisionEvent extends EngineEventBase {
  readonly decision:
    | "start"
    | "capture"
    | "dispatch"
    | "settled"
    | "wait"
    | "freeze"
    | "mode"
    | "plan";
  readonly graph?: string;
  readonly reason: string;
}

/** Something a peer or a policy did wrong; the controller goes on. */
export interface ProblemEvent {
  /** Empty when the engine is not known. */
  readonly engine: string;
  readonly atUnixMs: number;
  readonly code: string;
  readonly message: string;
}

/** Every channel and what is published on it. */
export interface LazygraphEvents {
  readonly "lazygraph:engine:join": EngineJoinEvent;
  readonly "lazygraph:engine:lost": EngineLostEvent;
  readonly "lazygraph:engine:ready": EngineReadyEvent;
  readonly "lazygraph:engine:settled": EngineSettledEvent;
  readonly "lazygraph:engine:asleep": EngineAsleepEvent;
  readonly "lazygraph:engine:memory": EngineMemoryEvent;
  readonly "lazygraph:engine:steps": EngineStepsEvent;
  readonly "lazygraph:memory:refused": MemoryRefusedEvent;
  readonly "lazygraph:memory:room": MemoryRoomEvent;
  readonly "lazygraph:memory:dropped": MemoryDroppedEvent;
  readonly "lazygraph:capture:start": CaptureStartEvent;
  readonly "lazygraph:capture:end": CaptureEndEvent;
  readonly "lazygraph:capture:refused": CaptureMissEvent;
  readonly "lazygraph:capture:deferred": CaptureMissEvent;
  readonly "lazygraph:capture:failed": CaptureMissEvent;
  readonly "lazygraph:decision": DecisionEvent;
  readonly "lazygraph:problem": ProblemEvent;
}

export type EventName = keyof LazygraphEvents;

export const EVENT_NAMES: readonly EventName[] = [
  "lazygraph:engine:join",
  "lazygraph:engine:lost",
  "lazygraph:engine:ready",
  "lazygraph:engine:settled",
  "lazygraph:engine:asleep",
  "lazygraph:engine:memory",
  "lazygraph:engine:steps",
  "lazygraph:memory:refused",
  "lazygraph:memory:room",
  "lazygraph:memory:dropped",
  "lazygraph:capture:start",
  "lazygraph:capture:end",
  "lazygraph:capture:refused",
  "lazygraph:capture:deferred",
  "lazygraph:capture:failed",
  "lazygraph:decision",
  "lazygraph:problem",
];

const channels = new Map(EVENT_NAMES.map((name) => [name, channel(name)]));

/** @internal Whether anybody hears what is published there. */
export function isHeard(name: EventName): boolean {
  return channels.get(name)?.hasSubscribers === true;
}

/** @internal */
export function publish<K extends EventName>(name: K, event: LazygraphEvents[K]): void {
  const target = channels.get(name);
  if (target?.hasSubscribers === true) target.publish(Object.freeze(event));
}

/**
 * @internal
 * @param engine its name; empty where it is no engine's, or nobody knows whose
 */
export function publishProblem(engine: string, code: string, message: string): void {
  publish("lazygraph:problem", { engine, atUnixMs: Date.now(), code, message });
}

/**
 * Calls `listener` for every event of one channel, of all controllers in this process.
 *
 * @returns a function that ends the subscription
 * @throws OptionError for a name that no event has, and for a listener that is no function
 */
export function onEvent<K extends EventName>(
  name: K,
  listener: (event: LazygraphEvents[K]) => void,
): () => void {
  checkOption("name", name, oneOf(EVENT_NAMES));
  checkOption("listener", listener, callback);
  const receive = (message: unknown): void => listener(message as LazygraphEvents[K]);
  subscribe(name, receive);
  return () => {
    unsubscribe(name, receive);
  };
}

const debug = debuglog("lazygraph");
if (debug.enabled) {
  for (const name of EVENT_NAMES) {
    // JSON escapes control characters: what an engine says can't drive the terminal.
    onEvent(name, (event) => debug("%s %s", name, JSON.stringify(event)));
  }
}
