/**
 * One step of one engine: something comes in, its record changes, and what is to be done comes out,
 * in the order in which it is to be done. Nothing here sends, waits, reads or publishes, and nothing
 * awaits between deciding and booking; whoever runs it carries out each effect before it asks for
 * the next one, since a listener may give an order in between.
 *
 *   input ─▶ step ─▶ booking: the record
 *             │ ▲
 *             │ ╰── decide (the policy, the gateway's orders), memory (the guard)
 *             ▼
 *          effects
 */

import type { LazygraphError } from "../../base/errors.ts";
import { capturedGraphs } from "../../schedule/state.ts";
import type { CaptureResult, Inventory, Ready, Telemetry } from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import {
  applyInventory,
  applyReady,
  applyResult,
  applyTelemetry,
  book,
  bookGraph,
  bookState,
  countProblem,
  remember,
  setRanks,
} from "./booking.ts";
import {
  askPolicy,
  captureReserved,
  captureTurn,
  followed,
  inventoryTold,
  reopen,
} from "./decide.ts";
import type {
  Effect,
  Effects,
  EngineInput,
  EngineMessage,
  Inner,
  StepTools,
  Timer,
} from "./effects.ts";
import {
  closeMemory,
  droppedMemory,
  forgetMemory,
  heartbeatMemory,
  inventoryMemory,
  keptMemory,
  lostMemory,
  readyMemory,
  resultMemory,
  review,
  reviewDue,
} from "./memory.ts";
import {
  adoptCourse,
  CAPTURES_ENDED,
  expect,
  freezeMessage,
  freezeOrdered,
  modeMessage,
  setMode,
  settleLater,
  settleOver,
} from "./orders.ts";
import { pulse } from "./pulse.ts";
import { recallPlan } from "./recall.ts";
import { resync, resyncUnlessNext } from "./resync.ts";
import { announceUnmatched, applyRules } from "./rules.ts";
import {
  announceAsleep,
  announceJoin,
  announceLost,
  announceMemory,
  announceProblem,
  announceReady,
  announceResult,
  announceSteps,
  announceUnanswered,
  announceUnknown,
} from "./tell.ts";

type Inners = Generator<Inner, void, undefined>;

const CHANGED: Effect = { type: "changed" };

/** What comes of nearly all messages: a snapshot has changed, and nothing is to be done. */
const ONLY_CHANGED: readonly Effect[] = [CHANGED];

export function step(record: EngineRecord, input: EngineInput, tools: StepTools): Iterable<Effect> {
  if (input.type !== "message") return stepped(record, happened(record, input, tools), tools);
  const { message, answers } = input;
  if (message.type === "telemetry") return reported(record, message, tools);
  const inners = told(record, message, answers, tools);
  // Heartbeats come all the time, and tell what an engine's other messages tell as well.
  return message.type === "heartbeat"
    ? resolved(record, inners, tools)
    : stepped(record, inners, tools);
}

function* stepped(record: EngineRecord, inners: Inners, tools: StepTools): Effects {
  yield* resolved(record, inners, tools);
  yield CHANGED;
}

/**
 * Ten times a second of every engine, and mostly nothing comes of it: then there is nothing to be
 * done one after the other, and no generator is made for it.
 */
function reported(record: EngineRecord, message: Telemetry, tools: StepTools): Iterable<Effect> {
  const now = tools.now();
  const unknown = applyTelemetry(record, message);
  if (unknown.length > 0 || tools.hears("lazygraph:engine:steps")) {
    return saying(record, message, unknown, now, tools);
  }
  return observed(record, message, now, tools);
}

/** What parts of a step ask of each other, in its place. */
function* resolved(record: EngineRecord, inners: Inners, tools: StepTools): Effects {
  for (const inner of inners) {
    if (inner.type === "ask") {
      const advice = askPolicy(record, inner.happening, tools);
      // Mostly there is nothing to do, and that is the end of it.
      if (advice !== undefined) yield* resolved(record, followed(record, advice, tools), tools);
    } else if (inner.type === "reopen") yield* resolved(record, reopen(record, tools), tools);
    else yield inner;
  }
}

function* happened(
  record: EngineRecord,
  input: Exclude<EngineInput, { type: "message" }>,
  tools: StepTools,
): Inners {
  switch (input.type) {
    case "join":
      return yield* joined(record, false);
    case "return": {
      const { hello } = input;
      book(record, { hello, phase: hello.phase, connected: true });
      book(record, { lostReason: undefined, goodbye: undefined });
      return yield* joined(record, true);
    }
    case "goodbye":
      return book(record, { phase: "stopping", goodbye: input.reason });
    case "lost":
      return yield* lost(record, input.error);
    case "close":
      return yield* closed(record);
    case "mode":
      return yield* setMode(record, input.mode, tools);
    case "freeze":
      return yield* freezeOrdered(record, input.reason, tools);
    case "announce":
      return yield* expect(record, input, tools);
    case "timer":
      return yield* timeOver(record, input.timer, tools);
    case "review":
      return yield* review(record, tools);
    case "turn":
      return yield* captureTurn(record, input.capture, tools);
    case "reserved":
      return yield* captureReserved(record, input);
    case "unanswered":
      // The engine was lost with this capture open; "lost" has booked it.
      if (!record.course.closed) yield announceUnanswered(input.graph, input.error);
      return;
    case "dropped":
      return yield* droppedMemory(record, input.answer, tools);
    case "kept":
      return yield* keptMemory(record, input.graphs, input.reason, tools);
    case "problem":
      return countProblem(record, input.kind, input.count);
  }
}

/** Every message of this engine but `hello` and `goodbye`, which are the controller's. */
function* told(
  record: EngineRecord,
  message: Exclude<EngineMessage, Telemetry>,
  answers: boolean,
  tools: StepTools,
): Inners {
  switch (message.type) {
    case "inventory":
      return yield* inventory(record, message, tools);
    case "ready":
      return yield* ready(record, message, tools);
    case "result":
      return yield* result(record, message, answers, tools);
    // What of it sleeps, and which graphs are left, the inventory before `slept` has told.
    case "slept":
    case "dropped": {
      const { epoch, ranks } = record;
      setRanks(record, message.ranks.length > 0 ? message.ranks : ranks, message.epoch);
      return yield* resyncUnlessNext(record, message, epoch, tools);
    }
    case "edge": {
      if (record.state === undefined) return;
      const { state, running, waiting } = message;
      bookState(record, { idle: state === "idle", running, waiting });
      if (state === "busy") record.course.announced.came(tools.now(), running + waiting);
      yield { type: "ask", happening: { type: state } };
      return;
    }
    case "heartbeat":
      if (message.ranks !== undefined) {
        setRanks(record, message.ranks);
        yield* heartbeatMemory(record, tools);
      }
      return yield* pulse(record, message, tools);
    case "problem":
      countProblem(record, "reported", 1);
      yield announceProblem(message.code, message.message);
  }
}

function* timeOver(record: EngineRecord, timer: Timer, tools: StepTools): Inners {
  switch (timer) {
    case "tick":
      yield { type: "ask", happening: { type: "tick" } };
      return;
    case "settle":
      return yield* settleOver(record, tools);
    case "review":
      return yield* reviewDue(record);
    case "forget":
      return forgetMemory(record);
  }
}

// ------------------------------------------------------------------ its connection

function* joined(record: EngineRecord, reconnected: boolean): Inners {
  // What was sent over another connection may not have come; who has begun ignores it.
  remember(record, { started: false });
  yield { type: "welcome", mode: record.mode, orders: record.orders };
  yield announceJoin(record, reconnected);
}

function* lost(record: EngineRecord, error: LazygraphError): Inners {
  if (!record.connected) return;
  const { code, message } = error;
  book(record, { connected: false, lostReason: message });
  // No wait of the policy's is to end meanwhile.
  yield { type: "cancel", timer: "tick" };
  yield* lostMemory(record);
  const { state } = record;
  const open = state?.capturing;
  bookState(record, { capturing: undefined });
  // A graph that once took longer than any capture may is not tried again. Of any other one only
  // the next inventory tells what became of it.
  const late = code === "ERR_LAZYGRAPH_ENGINE_TIMEOUT" && open !== undefined;
  if (late && state?.graphs.get(open)?.status === "planned") {
    bookGraph(record, open, "failed", message);
  }
  yield announceLost(record, error);
}

function* closed(record: EngineRecord): Inners {
  remember(record, { closed: true });
  // Nothing is lost, and nothing is told; but who asks the closed controller must not route by it.
  if (record.connected) {
    book(record, { connected: false, lostReason: "Its controller was closed." });
  }
  yield { type: "cancel", timer: "tick" };
  yield { type: "cancel", timer: "settle" };
  yield* closeMemory(record);
  record.course.plan?.end();
}

// ------------------------------------------------------------------ what it told

function* inventory(record: EngineRecord, message: Inventory, tools: StepTools): Inners {
  if (message.epoch < record.epoch) {
    // It was overtaken by what it doesn't know of yet.
    yield* resync(record, tools);
    return;
  }
  const before = record.state;
  const { asleep } = record;
  const slept = asleep.length > 0;
  const held = before === undefined ? 0 : capturedGraphs(before).length;
  const unknown = applyInventory(record, message);
  const sleeps = record.asleep.length > 0;
  if ((sleeps || slept) && message.captured.length < held)
    remember(record, { droppedAsleep: true });
  if (String(record.asleep) !== String(asleep)) yield announceAsleep(record);
  if (record.state !== before) yield* newPlan(record, message, tools);
  if (before === undefined) adoptCourse(record, message, tools);
  applyRules(record, tools.rules);
  yield* inventoryMemory(record, message, record.course.plan?.bytes, tools);
  // Asking again would bring the same inventory: report, and go on with what is known.
  if (unknown.length > 0) yield* unknownGraphs(record, unknown, "inventory");
  if (message.phase === "stock" || message.phase === "stopping") return;
  // Read only now: who listens to what was published above may have set the mode.
  const { state, frozenReason } = record;
  if (frozenReason !== undefined || state?.settled === true) {
    // The order itself may have been lost.
    const orders = record.orders.frozen === undefined ? undefined : record.orders;
    yield freezeMessage(frozenReason ?? CAPTURES_ENDED, orders);
  } else if (record.course.modeSet || message.frozen !== undefined) {
    // The welcome told the mode, but not that it has lifted a freeze; or that was lost.
    yield modeMessage(record, tools);
  }
  yield* inventoryTold(record, tools);
  if (slept && !sleeps) yield* woke(record);
}

/** Graphs that were dropped for a sleep come back as any missing graph does. */
function* woke(record: EngineRecord): Inners {
  const { droppedAsleep } = record.course;
  remember(record, { droppedAsleep: false });
  const reopens = droppedAsleep && record.state?.settled === true;
  yield reopens ? { type: "reopen" } : { type: "ask", happening: { type: "ready" } };
}

/** Other graphs than before: what a policy and a plan remember is about those. */
function* newPlan(record: EngineRecord, message: Inventory, tools: StepTools): Inners {
  const { state } = record;
  remember(record, { policy: undefined });
  record.course.plan?.end();
  remember(record, { plan: undefined });
  // An engine that runs as stock learns nothing.
  if (state === undefined || state.planned.length === 0) return;
  yield* announceUnmatched(record, state, tools.rules);
  yield* recallPlan(record, state, message, tools);
}

function* ready(record: EngineRecord, message: Ready, tools: StepTools): Inners {
  const unknown = applyReady(record, message, tools.now());
  if (unknown.length > 0) yield* unknownGraphs(record, unknown, "ready", tools);
  const { state } = record;
  if (state === undefined) {
    // An engine that is ready before it told its plan: the plan is all that is missing.
    yield* resync(record, tools);
    return;
  }
  yield* readyMemory(record, message.captured, tools);
  yield announceReady(message, state);
  const memory = announceMemory(record, state);
  if (memory !== undefined) {
    book(record, { memoryLine: memory.event.line });
    yield memory;
  }
  yield* settleLater(record, tools);
  yield { type: "ask", happening: { type: "ready" } };
}

function* result(
  record: EngineRecord,
  message: CaptureResult,
  answers: boolean,
  tools: StepTools,
): Inners {
  const { state, epoch } = record;
  const applied = applyResult(record, message);
  yield* resyncUnlessNext(record, message, epoch, tools);
  yield* resultMemory(record, message, answers, tools);
  if (state === undefined || applied === undefined) {
    yield* unknownGraphs(record, [message.graph], "result", tools);
    return;
  }
  // A late answer tells the truth about its graph but ends no other capture under way.
  if (answers && state.capturing === message.graph) bookState(record, { capturing: undefined });
  if (!answers && !applied.changed) return;
  yield announceResult(message, state);
  const { outcome, graph } = message;
  const type = outcome === "already" ? "captured" : outcome;
  yield { type: "ask", happening: { type, graph } };
}

/** The same where something is to be said: of graphs that nobody knows, or to whoever listens. */
function* saying(
  record: EngineRecord,
  message: Telemetry,
  unknown: readonly string[],
  now: number,
  tools: StepTools,
): Effects {
  if (unknown.length > 0) {
    yield* resolved(record, unknownGraphs(record, unknown, "telemetry", tools), tools);
  }
  if (tools.hears("lazygraph:engine:steps")) yield announceSteps(message);
  yield* observed(record, message, now, tools);
}

/** Learns from steps that were reported, and asks what is to be done now. */
function observed(
  record: EngineRecord,
  { steps, waiting }: Telemetry,
  now: number,
  tools: StepTools,
): Iterable<Effect> {
  const regretSeconds = record.course.plan?.observe(steps, waiting, now) ?? 0;
  if (regretSeconds > 0) book(record, { regretSeconds: record.regretSeconds + regretSeconds });
  const advice = askPolicy(record, { type: "demand", steps }, tools);
  if (advice === undefined) return ONLY_CHANGED;
  return stepped(record, followed(record, advice, tools), tools);
}

/** @param tools where a fresh inventory is to be asked for */
function* unknownGraphs(
  record: EngineRecord,
  graphs: readonly string[],
  where: string,
  tools?: StepTools,
): Inners {
  countProblem(record, "unknownGraphs", graphs.length);
  yield announceUnknown(record, graphs, where, tools !== undefined);
  if (tools !== undefined) yield* resync(record, tools);
}
