/**
 * Memory of one engine, between what it tells and the guard: what it reports goes into the guard,
 * and what the guard refuses, gives back or gives up changes the engine's graphs. Every capture
 * passes `reserve` before it is sent.
 */

import type { Graph } from "../../base/graph.ts";
import { mib } from "../../base/units.ts";
import type { RecordedBytes } from "../../memory/forecast.ts";
import type { Grant, MemoryGuard } from "../../memory/guard.ts";
import { type EngineState, waitingForMemory } from "../../schedule/state.ts";
import type { Captured, CaptureResult, Dropped, Inventory, Start } from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import { blockGraph, bookGraph, bookState, remember } from "./booking.ts";
import type { Inner, StepTools } from "./effects.ts";
import { announceDropped, announceRefused, announceRoom } from "./tell.ts";

/** Between two attempts to give up a tier. */
const DROP_SECONDS_MIN = 1;
/** Between two looks at free memory that only time is the reason for. */
const REVIEW_SECONDS_MIN = 2;
/** One that is lost for longer needs no memory kept for its serving: it is likely dead. */
const LOST_CLAIM_SECONDS = 60;

const DROPPED_REASON = "dropped: serving needs its memory";

type Inners<T = void> = Generator<Inner, T, undefined>;

// ------------------------------------------------------------------ what the engine told

/** Call after an inventory was applied. */
export function* inventoryMemory(
  record: EngineRecord,
  message: Inventory,
  recorded: RecordedBytes | undefined,
  tools: StepTools,
): Inners {
  const { state, hello, guard } = record;
  yield { type: "cancel", timer: "forget" };
  if (state === undefined) return;
  if (state !== record.course.guarded) {
    remember(record, { guarded: state });
    const ranks = Math.max(1, hello.tensorParallel * hello.pipelineParallel);
    const peaks = message.ranks.map((rank) => rank.activationPeakBytes);
    const activationPeakBytes = Math.max(0, ...peaks);
    const { layers, latent, reserve } = message;
    const shape = { layers, latent, ranks, activationPeakBytes, reserve };
    guard?.plan(state.planned, shape, recorded);
  }
  guard?.adopt(message.tiers ?? []);
  // What went with a sleep, or by a drop whose answer was lost, takes nothing any more.
  const held = new Set(message.captured.map(({ graph }) => graph));
  guard?.dropped(state.planned.flatMap(({ id }) => (held.has(id) ? [] : [id])));
  yield* report(record);
  learn(record, message.captured);
  if (!tools.watchesGpus || hello.simulated !== undefined) return;
  yield { type: "follow", gpus: gpusOf(record) };
}

/** Call after `ready` was applied. */
export function* readyMemory(
  record: EngineRecord,
  captured: readonly Captured[],
  tools: StepTools,
): Inners {
  letGo(record);
  yield* report(record);
  learn(record, captured);
  yield* reviewLater(record, tools);
}

/** Call after a result was applied. */
export function* resultMemory(
  record: EngineRecord,
  message: CaptureResult,
  answers: boolean,
  tools: StepTools,
): Inners {
  if (answers) letGo(record);
  if (message.ranks.length > 0) yield* report(record);
  if (message.outcome === "captured") learn(record, [message]);
  if (message.outcome !== "refused" || message.refusal !== "headroom") return;
  record.guard?.refused();
  yield* reviewLater(record, tools);
}

/** Call after a heartbeat brought the ranks' memory. */
export function* heartbeatMemory(record: EngineRecord, tools: StepTools): Inners {
  yield* report(record);
  yield* review(record, tools);
}

/**
 * The connection is gone: whether an open capture happened, readings will show. What serving
 * claims goes with an engine that said goodbye, and soon with any other that stays away: its
 * record may outlive it for good, while others start on that GPU under names of their own.
 */
export function* lostMemory(record: EngineRecord): Inners {
  yield* endWaits(record);
  if (record.phase === "stopping") record.guard?.close();
  else yield { type: "wait", timer: "forget", seconds: LOST_CLAIM_SECONDS };
}

/** It has stayed away; its next report claims anew. */
export function forgetMemory({ connected, guard }: EngineRecord): void {
  if (!connected) guard?.close();
}

export function* closeMemory(record: EngineRecord): Inners {
  yield* endWaits(record);
  record.guard?.close();
}

function* endWaits(record: EngineRecord): Inners {
  letGo(record);
  yield { type: "cancel", timer: "review" };
  yield { type: "cancel", timer: "forget" };
}

// ------------------------------------------------------------------ what may be captured

/** The first set as far as it fits, and the pools it needs. */
export function* startMemory(
  record: EngineRecord,
  wanted: readonly Graph[],
  tools: StepTools,
): Inners<Omit<Start, "type">> {
  const { state, guard } = record;
  if (state === undefined || guard === undefined) return { graphs: wanted.map(({ id }) => id) };
  letGo(record);
  const fit = guard.start(wanted, state);
  if (fit.needBytes > 0) remember(record, { release: guard.hold(fit.needBytes) });
  const blocked = fit.blocked.filter(({ id }) => state.graphs.get(id)?.status === "planned");
  if (blocked.length > 0) {
    const availableBytes = guard.headroom()?.bytes ?? 0;
    const ids = blocked.map(({ id }) => id);
    const rest = guard.rest(state, (id) => ids.includes(id));
    const needBytes = rest === undefined ? 0 : rest.bytes + rest.errorBytes;
    yield* refuse(record, { graphs: ids, needBytes, availableBytes }, tools);
  }
  const graphs = fit.graphs.map(({ id }) => id);
  const tiers = guard.tierLists(state.planned);
  return tiers === undefined ? { graphs } : { graphs, tiers };
}

/**
 * Reserves what a capture will take, by the readings there are.
 *
 * @returns undefined when it does not fit: its graphs are marked, and the policy has been told
 */
export function* reserve(
  record: EngineRecord,
  graph: Graph,
  tools: StepTools,
): Inners<number | undefined> {
  const { state, guard } = record;
  if (state === undefined || guard === undefined) return 0;
  const answer = guard.reserve(graph, state);
  if (answer.granted) {
    letGo(record);
    hold(record, answer);
    return answer.needBytes;
  }
  bookState(record, { capturing: undefined });
  yield* refuse(record, answer, tools);
  yield { type: "ask", happening: { type: "memory", graphs: answer.graphs } };
  return undefined;
}

/** Asks again for what fits by now, and gives up a tier where serving runs short. */
export function* review(record: EngineRecord, tools: StepTools): Inners {
  const { state, connected, course, guard } = record;
  if (guard === undefined) return;
  if (course.closed || state === undefined || !state.ready || !connected) return;
  yield { type: "thresholds", gpus: gpusOf(record) };
  if (!(yield* drop(record, state, guard, tools))) yield* giveBack(record, state, guard);
  yield* reviewLater(record, tools);
}

// ------------------------------------------------------------------ tiers

/** The engine dropped these, and gave this much back. */
export function* droppedMemory(
  record: EngineRecord,
  { graphs, freedBytes, ranks }: Dropped,
  tools: StepTools,
): Inners {
  remember(record, { dropping: false });
  if (record.course.closed) return;
  if (ranks.length > 0) yield* report(record);
  record.guard?.dropped(graphs);
  // An inventory that was told before the drop, and came after it was decided, has them as captured.
  const back = graphs.filter((id) => record.state?.graphs.get(id)?.status === "captured");
  for (const id of back) blockGraph(record, id, DROPPED_REASON);
  if (back.length > 0) yield { type: "ask", happening: { type: "memory", graphs: back } };
  yield announceDropped(record, graphs, freedBytes);
  yield* reviewLater(record, tools);
}

/** The drop did not happen: the graphs are still there. */
export function* keptMemory(
  record: EngineRecord,
  graphs: readonly Graph[],
  reason: string,
  tools: StepTools,
): Inners {
  remember(record, { dropping: false });
  for (const { id } of graphs) {
    const entry = record.state?.graphs.get(id);
    if (entry?.retryable === true) bookGraph(record, id, "captured", reason);
  }
  yield { type: "ask", happening: { type: "memory", graphs: graphs.map(({ id }) => id) } };
  yield* reviewLater(record, tools);
}

function* drop(
  record: EngineRecord,
  state: EngineState,
  guard: MemoryGuard,
  tools: StepTools,
): Inners<boolean> {
  const { dropping, dropAtSeconds } = record.course;
  const now = tools.now();
  if (dropping || now < dropAtSeconds || state.capturing !== undefined) return false;
  const graphs = guard.surplus(state);
  if (graphs.length === 0) return false;
  remember(record, { dropping: true, dropAtSeconds: now + DROP_SECONDS_MIN });
  guard.refused();
  for (const { id } of graphs) blockGraph(record, id, DROPPED_REASON);
  // The table first: no step is to ask for a graph that is about to go.
  yield { type: "ask", happening: { type: "memory", graphs: graphs.map(({ id }) => id) } };
  yield { type: "drop", graphs };
  return true;
}

// ------------------------------------------------------------------ the rest

function* giveBack(record: EngineRecord, state: EngineState, guard: MemoryGuard): Inners {
  if (record.course.dropping || state.frozen || waitingForMemory(state) === 0) return;
  // Its answer will say how much is free.
  if (state.capturing !== undefined) return;
  if (record.mode === "eager" && state.settled) return;
  const { graphs, probe } = guard.returning(state);
  if (graphs.length === 0) return;
  for (const id of graphs) bookGraph(record, id, "planned", "asked for again: memory may suffice");
  if (!probe) yield announceRoom(record, graphs, guard.headroom()?.bytes ?? 0);
  yield state.settled ? { type: "reopen" } : { type: "ask", happening: { type: "memory", graphs } };
}

interface Lack {
  readonly graphs: readonly string[];
  readonly needBytes: number;
  readonly availableBytes: number;
}

function* refuse(
  record: EngineRecord,
  { graphs, needBytes, availableBytes }: Lack,
  tools: StepTools,
): Inners {
  const { state, guard, course } = record;
  if (state === undefined) return;
  guard?.refused();
  const available = mib(Math.max(0, availableBytes));
  const reason = `needs up to ${mib(needBytes)}, and ${available} are left beside serving`;
  for (const id of graphs) blockGraph(record, id, reason);
  remember(record, { refusals: course.refusals + 1 });
  const repeated = course.refusals > 1;
  yield announceRefused(record, state, { graphs, needBytes, availableBytes, repeated }, reason);
  yield* reviewLater(record, tools);
}

function learn(
  { state, guard }: EngineRecord,
  captured: readonly { readonly graph: string; readonly bytes: number }[],
): void {
  if (state === undefined) return;
  const known = captured.flatMap(({ graph: id, bytes }) => {
    const graph = state.graphs.get(id)?.graph;
    return graph === undefined ? [] : [{ graph, bytes }];
  });
  guard?.captured(known, state);
}

function* report(record: EngineRecord): Inners {
  record.guard?.report(record.ranks);
  yield { type: "thresholds", gpus: gpusOf(record) };
}

function gpusOf({ ranks }: EngineRecord): string[] {
  return ranks.map((rank) => rank.gpuUuid);
}

function hold(record: EngineRecord, { release }: Grant): void {
  remember(record, { release });
}

/** Ends what is held for a capture: it is over, or was not sent after all. */
export function letGo(record: EngineRecord): void {
  record.course.release?.();
  remember(record, { release: undefined });
}

/** One timer at most, and only while something waits for memory. */
function* reviewLater(record: EngineRecord, tools: StepTools): Inners {
  const { state, connected, course, guard } = record;
  yield { type: "cancel", timer: "review" };
  if (course.closed || !connected || state === undefined || guard === undefined) return;
  if (waitingForMemory(state) === 0) return;
  const seconds = Math.max(REVIEW_SECONDS_MIN, guard.retryAtSeconds - tools.now());
  yield { type: "wait", timer: "review", seconds };
}

/** The time of a review has come: of the GPUs that can be read, by a fresh reading. */
export function* reviewDue(record: EngineRecord): Inners {
  yield { type: "read", gpus: gpusOf(record) };
}
