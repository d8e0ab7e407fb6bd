/**
 * What the controller knows of one engine, and how each message changes it. Nothing here sends,
 * waits or publishes: a message goes in, the record changes, and what else to do comes out.
 */

import type { Forecast } from "../memory/forecast.ts";
import type { MemoryGuard } from "../memory/guard.ts";
import type { PlanSnapshot } from "../plan/engine-plan.ts";
import {
  createEngineState,
  type EngineState,
  type GraphState,
  recordSteps,
} from "../schedule/state.ts";
import type {
  Captured,
  CaptureResult,
  Hello,
  Inventory,
  Mode,
  Phase,
  RankMemory,
  Ready,
  Telemetry,
} from "../wire/protocol.ts";

/** Decisions remembered for people who ask why. */
const DECISIONS_MAX = 64;

export interface DecisionRecord {
  readonly atUnixMs: number;
  readonly decision: string;
  readonly graph?: string;
  readonly reason: string;
}

/** What went wrong with an engine so far, by kind. */
export interface ProblemCounts {
  /** Frames that were no message. */
  malformed: number;
  /** Messages of a type this version doesn't know. */
  unknownTypes: number;
  /** Graphs named that are not in the inventory. */
  unknownGraphs: number;
  /** Frames dropped unread because the engine sent too many. */
  flooded: number;
  /** Batches and steps the engine itself could not report. */
  telemetryDropped: number;
  /** Problems the engine reported. */
  reported: number;
  /** Times this name was taken from another process that was still connected. */
  replaced: number;
}

export interface EngineRecord {
  hello: Hello;
  mode: Mode;
  phase: Phase;
  connected: boolean;
  /** Why it is not connected; undefined while it is. */
  lostReason: string | undefined;
  /** The reason it gave when it said goodbye. */
  goodbye: string | undefined;
  /** Why somebody ended captures; undefined while they may happen, or end by themselves. */
  frozenReason: string | undefined;
  inventory: Inventory | undefined;
  state: EngineState | undefined;
  ranks: readonly RankMemory[];
  epoch: number;
  captureBeforeReadySeconds: number | undefined;
  /** Of these, seconds in warm-up runs; undefined where the engine doesn't tell them apart. */
  warmUpBeforeReadySeconds: number | undefined;
  readyAtSeconds: number | undefined;
  /** To the first time it settled: what it took to be done, whatever is asked of it later. */
  readyToSettledSeconds: number | undefined;
  longestCaptureMs: number;
  longestStallMs: number;
  /** Seconds that steps took longer than with their ideal graphs, by the cost estimates. */
  regretSeconds: number;
  memoryLine: string | undefined;
  /** What may be captured with the memory there is. */
  guard: MemoryGuard | undefined;
  /** The engine's `--gpu-memory-utilization`, where the user told it. */
  utilization: number | undefined;
  /** Name of the policy that decides. */
  policy: string | undefined;
  /** Why a graph is where it is, by the policy's word; undefined when it has none. */
  explain: ((graph: string) => string) | undefined;
  /** What earlier starts of such engines left; undefined where plans are off. */
  plan: PlanSnapshot | undefined;
  readonly decisions: DecisionRecord[];
  readonly problems: ProblemCounts;
}

export function createEngineRecord(hello: Hello, mode: Mode): EngineRecord {
  return {
    hello,
    mode,
    phase: hello.phase,
    connected: true,
    lostReason: undefined,
    goodbye: undefined,
    frozenReason: undefined,
    inventory: undefined,
    state: undefined,
    ranks: [],
    epoch: 0,
    captureBeforeReadySeconds: undefined,
    warmUpBeforeReadySeconds: undefined,
    readyAtSeconds: undefined,
    readyToSettledSeconds: undefined,
    longestCaptureMs: 0,
    longestStallMs: 0,
    regretSeconds: 0,
    memoryLine: undefined,
    guard: undefined,
    utilization: undefined,
    policy: undefined,
    explain: undefined,
    plan: undefined,
    decisions: [],
    problems: {
      malformed: 0,
      unknownTypes: 0,
      unknownGraphs: 0,
      flooded: 0,
      telemetryDropped: 0,
      reported: 0,
      replaced: 0,
    },
  };
}

export function noteDecision(record: EngineRecord, decision: DecisionRecord): void {
  record.decisions.push(decision);
  if (record.decisions.length > DECISIONS_MAX) record.decisions.shift();
}

/**
 * The engine owns the truth about what is captured; what this side counted of demand is kept as
 * long as the plan is the same.
 *
 * @returns ids of captured graphs that the plan doesn't have
 */
export function applyInventory(record: EngineRecord, message: Inventory): string[] {
  const { graphs, captured, phase } = message;
  const old = record.state;
  const samePlan =
    old !== undefined &&
    old.planned.length === graphs.length &&
    graphs.every((graph, index) => old.planned[index]?.id === graph.id);
  const state = samePlan ? old : createEngineState(graphs);
  state.frozen = record.frozenReason !== undefined;
  record.inventory = message;
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
export function applyReady(record: EngineRecord, message: Ready, atSeconds: number): string[] {
  record.captureBeforeReadySeconds = message.captureSeconds;
  record.warmUpBeforeReadySeconds = message.warmUpSeconds;
  record.readyAtSeconds = atSeconds;
  record.phase = "serving";
  setRanks(record, message.ranks, message.epoch);
  const { state } = record;
  if (state === undefined) return [];
  becomeReady(state, true);
  const unknown = noteSkipped(state, message.skipped ?? []);
  return [...unknown, ...adoptCaptured(record, state, message.captured)];
}

/** @returns ids that the plan doesn't have */
function noteSkipped(state: EngineState, skipped: readonly string[]): string[] {
  for (const id of skipped) {
    const entry = state.graphs.get(id);
    if (entry?.status === "planned") entry.reason = "left out before ready: the budget was used";
  }
  return skipped.filter((id) => !state.graphs.has(id));
}

/** @returns the graph's state if it is known, and whether its status changed */
export function applyResult(
  record: EngineRecord,
  message: CaptureResult,
): { entry: GraphState; changed: boolean } | undefined {
  const entry = record.state?.graphs.get(message.graph);
  if (message.ranks.length > 0) setRanks(record, message.ranks, message.epoch);
  if (entry === undefined) return undefined;
  const before = entry.status;
  record.longestStallMs = Math.max(record.longestStallMs, message.stallMs);
  if (message.outcome === "captured" || message.outcome === "already") {
    adopt(record, entry, message);
  } else if (message.outcome === "deferred") {
    entry.reason = reasonOf(message);
  } else if (before !== "captured") {
    if (message.refusal === "headroom") blockGraph(entry, reasonOf(message));
    else setStatus(entry, message.outcome, reasonOf(message));
  }
  return { entry, changed: entry.status !== before };
}

export function reasonOf(message: CaptureResult): string {
  return message.reason ?? `the engine gave no reason (${message.outcome})`;
}

/** @returns ids of graphs that served steps and that the plan doesn't have */
export function applyTelemetry(
  record: EngineRecord,
  message: Telemetry,
  atSeconds: number,
): string[] {
  record.problems.telemetryDropped = message.dropped;
  const { state } = record;
  if (state === undefined) return [];
  state.running = message.running;
  state.waiting = message.waiting;
  const unknown = new Set<string>();
  for (const step of message.steps) {
    if (step.served !== "" && !state.graphs.has(step.served)) unknown.add(step.served);
    else recordSteps(state, step, step.served, step.count, atSeconds);
  }
  return [...unknown];
}

export function setRanks(record: EngineRecord, ranks: readonly RankMemory[], epoch?: number): void {
  record.ranks = ranks;
  if (epoch !== undefined) record.epoch = epoch;
}

/** Starts over after a change of mode: refusals are asked again, failures are not. */
export function applyMode(record: EngineRecord, mode: Mode): void {
  record.mode = mode;
  record.frozenReason = undefined;
  const { state } = record;
  if (state === undefined) return;
  state.frozen = false;
  state.settled = false;
  for (const entry of state.graphs.values()) {
    if (entry.status === "refused") setStatus(entry, "planned");
  }
}

/** Refuses a graph until there is memory for it. */
export function blockGraph(entry: GraphState, reason: string): void {
  setStatus(entry, "refused", reason);
  entry.retryable = true;
}

/** Whether a graph is still to be captured: planned, or waiting for memory. */
export function isOpen({ status, retryable }: GraphState): boolean {
  return status === "planned" || (status === "refused" && retryable === true);
}

export function setStatus(entry: GraphState, status: GraphState["status"], reason?: string): void {
  entry.status = status;
  delete entry.retryable;
  if (reason === undefined) delete entry.reason;
  else entry.reason = reason;
}

/** Bytes on the rank that has the least; undefined when no rank reported. */
export function freeBytesMin(ranks: readonly RankMemory[]): number | undefined {
  return ranks.length === 0 ? undefined : Math.min(...ranks.map((rank) => rank.freeBytes));
}

export function takenBytes(state: EngineState): number {
  let bytes = 0;
  for (const entry of state.graphs.values()) {
    if (entry.status === "captured") bytes += entry.bytes ?? 0;
  }
  return bytes;
}

export function forecastOf(record: EngineRecord): Forecast | undefined {
  const { state, guard } = record;
  if (state === undefined) return undefined;
  return guard?.rest(state, (id) => {
    const entry = state.graphs.get(id);
    return entry !== undefined && isOpen(entry);
  });
}

/**
 * An engine that serves counts as idle until an edge says otherwise: a command for an idle engine
 * is deferred by a busy one, whereas one that never comes leaves a restarted fill standing.
 */
function becomeReady(state: EngineState, ready: boolean): void {
  state.ready = ready;
  state.idle = ready;
}

function adoptCaptured(
  record: EngineRecord,
  state: EngineState,
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

function adopt(record: EngineRecord, entry: GraphState, cost: Captured | CaptureResult): void {
  // `already` answers a repeated command: what the capture cost is known from the first answer.
  const known = entry.status === "captured" && entry.captureMs !== undefined;
  if (!known) {
    entry.captureMs = cost.ms;
    entry.bytes = cost.bytes;
    record.longestCaptureMs = Math.max(record.longestCaptureMs, cost.ms);
  }
  setStatus(entry, "captured", entry.reason);
}
