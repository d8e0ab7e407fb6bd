/**
 * The one file that writes an engine's record. Nothing here sends, waits or publishes: something
 * comes in, the record changes, and what else there is to do comes out.
 *
 * For everybody else the record is read-only, by its types; that nobody but the step comes here is
 * a rule of biome.json.
 */

import { sharedPlan } from "../../schedule/shared-plan.ts";
import {
  bookSteps,
  createEngineState,
  recordSteps,
  type WritableGraph,
  type WritableState,
} from "../../schedule/state.ts";
import type {
  Captured,
  CaptureResult,
  Inventory,
  Mode,
  Orders,
  RankMemory,
  Ready,
  StepCount,
  Telemetry,
} from "../../wire/protocol.ts";
import { type DecisionLog, type DecisionRecord, inOnePiece } from "../decision-log.ts";
import { type Course, type EngineRecord, type ProblemCounts, reasonOf } from "../record.ts";

const NO_IDS: readonly string[] = [];

type Writable<T> = { -readonly [K in keyof T]: T[K] };
type Simple = Pick<
  EngineRecord,
  | "hello"
  | "phase"
  | "connected"
  | "lostReason"
  | "goodbye"
  | "orders"
  | "frozenReason"
  | "epoch"
  | "readyToSettledSeconds"
  | "regretSeconds"
  | "memoryLine"
  | "policy"
  | "explain"
  | "plan"
>;

/** Fields that are put down as they come. */
export function book(record: EngineRecord, change: Partial<Simple>): void {
  Object.assign(record, change);
}

/** What the step itself is to remember. */
export function remember({ course }: EngineRecord, change: Partial<Course>): void {
  Object.assign(course, change);
}

/** What is told of the engine as a whole, beside its graphs. */
export function bookState(
  { state }: EngineRecord,
  change: Partial<Omit<WritableState, "graphs" | "planned">>,
): void {
  if (state !== undefined) Object.assign(state, change);
}

export function countProblem(
  { problems }: EngineRecord,
  kind: keyof ProblemCounts,
  count: number,
): void {
  (problems as ProblemCounts)[kind] += count;
}

/** A status of one graph, with its reason; what is not in the plan has none. */
export function bookGraph(
  record: EngineRecord,
  id: string,
  status: WritableGraph["status"],
  reason?: string,
): void {
  const entry = graphOf(record, id);
  if (entry !== undefined) setStatus(entry, status, reason);
}

/** Refuses a graph until there is memory for it. */
export function blockGraph(record: EngineRecord, id: string, reason: string): void {
  const entry = graphOf(record, id);
  if (entry !== undefined) block(entry, reason);
}

/** A capture is decided: from now on no other is, until it is answered. */
export function bookCapture(record: EngineRecord, id: string, reason: string): void {
  const entry = graphOf(record, id);
  if (entry !== undefined) entry.reason = inOnePiece(reason);
  bookState(record, { capturing: id });
}

function graphOf({ state }: EngineRecord, id: string): WritableGraph | undefined {
  return (state as WritableState | undefined)?.graphs.get(id);
}

export function noteDecision(record: EngineRecord, decision: DecisionRecord): void {
  (record.decisions as DecisionLog).add(decision);
}

/**
 * The engine owns the truth about what is captured; what this side counted of demand is kept as
 * long as the plan is the same.
 *
 * @returns ids of captured graphs that the plan doesn't have
 */
export function applyInventory(record: Writable<EngineRecord>, message: Inventory): string[] {
  const { captured, phase } = message;
  const old = record.state as WritableState | undefined;
  const samePlan =
    old !== undefined &&
    old.planned.length === message.graphs.length &&
    message.graphs.every((graph, index) => old.planned[index]?.id === graph.id);
  const graphs = samePlan ? old.planned : sharedPlan(message.graphs);
  const state = samePlan ? old : createEngineState(graphs);
  state.frozen = record.frozenReason !== undefined;
  record.inventory = samePlan ? message : { ...message, graphs };
  record.asleep = message.asleep ?? [];
  record.state = state;
  // A process never stops being ready but by ending: `ready` has overtaken this inventory.
  const overtaken = old?.ready === true && (phase === "loading" || phase === "capturing");
  record.phase = overtaken ? "serving" : phase;
  becomeReady(state, record.phase === "serving");
  setRanks(record, message.ranks, message.epoch);
  const held = new Set(captured.map((entry) => entry.graph));
  for (const entry of state.graphs.values()) {
    if (entry.status === "captured" && !held.has(entry.graph.id)) setStatus(entry, "planned");
  }
  return adoptCaptured(record, state, captured);
}

/** @returns ids of captured graphs that the plan doesn't have */
export function applyReady(
  record: Writable<EngineRecord>,
  message: Ready,
  atSeconds: number,
): string[] {
  record.captureBeforeReadySeconds = message.captureSeconds;
  record.warmUpBeforeReadySeconds = message.warmUpSeconds;
  record.startPhases = message.phases ?? [];
  record.readyAtSeconds = atSeconds;
  record.phase = "serving";
  setRanks(record, message.ranks, message.epoch);
  const state = record.state as WritableState | undefined;
  if (state === undefined) return [];
  becomeReady(state, true);
  const unknown = noteSkipped(state, message.skipped ?? []);
  return [...unknown, ...adoptCaptured(record, state, message.captured)];
}

/** @returns ids that the plan doesn't have */
function noteSkipped(state: WritableState, skipped: readonly string[]): string[] {
  for (const id of skipped) {
    const entry = state.graphs.get(id);
    if (entry?.status === "planned") entry.reason = "left out before ready: the budget was used";
  }
  return skipped.filter((id) => !state.graphs.has(id));
}

/** @returns the graph's state if it is known, and whether its status changed */
export function applyResult(
  record: Writable<EngineRecord>,
  message: CaptureResult,
): { changed: boolean } | undefined {
  const entry = graphOf(record, message.graph);
  if (message.ranks.length > 0) setRanks(record, message.ranks, message.epoch);
  if (entry === undefined) return undefined;
  const before = entry.status;
  record.longestStallMs = Math.max(record.longestStallMs, message.stallMs);
  if (message.outcome === "captured" || message.outcome === "already") {
    adopt(record, entry, message);
  } else if (message.outcome === "deferred") {
    entry.reason = reasonOf(message);
  } else if (before !== "captured") {
    if (message.refusal === "headroom") block(entry, reasonOf(message));
    else setStatus(entry, message.outcome, reasonOf(message));
  }
  return { changed: entry.status !== before };
}

/** @returns ids of graphs that served steps and that the plan doesn't have */
export function applyTelemetry(
  record: Writable<EngineRecord>,
  message: Telemetry,
): readonly string[] {
  if (message.dropped > 0) (record.problems as ProblemCounts).telemetryDropped = message.dropped;
  const state = record.state as WritableState | undefined;
  if (state === undefined) return NO_IDS;
  state.running = message.running;
  state.waiting = message.waiting;
  const { plan } = record.course;
  const { steps } = message;
  const placed = plan?.placed(steps);
  let unknown: Set<string> | undefined;
  for (let at = 0; at < steps.length; at++) {
    const step = steps[at] as StepCount;
    const { served, count } = step;
    if (plan === undefined || placed === undefined) {
      if (served !== "" && !state.graphs.has(served)) unknown = (unknown ?? new Set()).add(served);
      else recordSteps(state, step, served, count);
      continue;
    }
    const server = placed.servers[at] ?? -1;
    if (served !== "" && server === -1) unknown = (unknown ?? new Set()).add(served);
    else {
      const { entries } = state;
      const wanted = entries[plan.idealAt(step, placed.buckets[at])];
      bookSteps(state, wanted, entries[server], count);
    }
  }
  return unknown === undefined ? NO_IDS : [...unknown];
}

export function setRanks(
  record: Writable<EngineRecord>,
  ranks: readonly RankMemory[],
  epoch?: number,
): void {
  record.ranks = ranks;
  // It only rises in a process: what comes late tells of earlier.
  if (epoch !== undefined) record.epoch = Math.max(record.epoch, epoch);
}

/** Starts over after a change of mode: refusals are asked again, failures are not. */
export function applyMode(record: Writable<EngineRecord>, mode: Mode): void {
  const { frozen: _ended, ...orders } = record.orders;
  record.orders = nextOrders(orders, { mode });
  record.mode = mode;
  record.frozenReason = undefined;
  const state = record.state as WritableState | undefined;
  if (state === undefined) return;
  state.frozen = false;
  state.settled = false;
  for (const entry of state.graphs.values()) {
    if (entry.status === "refused") setStatus(entry, "planned");
  }
}

/** What is ordered from now on. */
export function nextOrders(before: Orders, change: Partial<Orders>): Orders {
  return { ...before, ...change, serial: (before.serial ?? 0) + 1 };
}

function setStatus(entry: WritableGraph, status: WritableGraph["status"], reason?: string): void {
  // Nothing is deleted: an object that has lost a field is a slow and a large one.
  entry.status = status;
  entry.retryable = undefined;
  entry.reason = reason;
}

/**
 * An engine that serves counts as idle until an edge says otherwise: a command for an idle engine
 * is deferred by a busy one, whereas one that never comes leaves a restarted fill standing.
 */
function becomeReady(state: WritableState, ready: boolean): void {
  state.ready = ready;
  state.idle = ready;
}

function adoptCaptured(
  record: Writable<EngineRecord>,
  state: WritableState,
  captured: readonly Captured[],
): string[] {
  const unknown: string[] = [];
  for (const item of captured) {
    const entry = state.graphs.get(item.graph);
    if (entry === undefined) unknown.push(item.graph);
    else adopt(record, entry, item);
  }
  return unknown;
}

function adopt(
  record: Writable<EngineRecord>,
  entry: WritableGraph,
  cost: Captured | CaptureResult,
): void {
  // `already` answers a repeated command: what the capture cost is known from the first answer.
  const known = entry.status === "captured" && entry.captureMs !== undefined;
  if (!known) {
    entry.captureMs = cost.ms;
    entry.bytes = cost.bytes;
    record.longestCaptureMs = Math.max(record.longestCaptureMs, cost.ms);
  }
  setStatus(entry, "captured", entry.reason);
}

function block(entry: WritableGraph, reason: string): void {
  setStatus(entry, "refused", reason);
  entry.retryable = true;
}
