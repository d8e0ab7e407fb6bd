/**
 * What is decided for one engine, by its policy, by the gateway or by the clock: sent to the
 * engine, booked in its record, and published with its reason.
 */

import { messageOf } from "../../base/errors.ts";
import type { ExplainingPolicy } from "../../schedule/choice.ts";
import type { Decision, EngineEvent } from "../../schedule/policy.ts";
import type { EngineState } from "../../schedule/state.ts";
import { PROTOCOL_VERSION_MIN } from "../../wire/protocol.ts";
import { spokenVersion } from "../../wire/version.ts";
import type { EngineRecord } from "../record.ts";
import { book, bookCapture, bookState, remember } from "./booking.ts";
import { ask, decided, sentence } from "./decided.ts";
import type { CaptureEffect, EngineInput, Happening, Inner, StepTools } from "./effects.ts";
import { flawOf } from "./flaws.ts";
import { letGo, reserve, startMemory } from "./memory.ts";
import { expect, expectAgain, settleLater } from "./orders.ts";
import { moreFor, rulesAlone } from "./rules.ts";
import { announceCapture, announceProblem, announceSettled } from "./tell.ts";

const WAIT_SECONDS_MAX = 3600;

type Inners = Generator<Inner, void, undefined>;

// ------------------------------------------------------------------ by the policy

/** The engine told its graphs: from now on there is a policy to hear of what comes. */
export function* inventoryTold(record: EngineRecord, tools: StepTools): Inners {
  const { state } = record;
  if (state?.ready === true) {
    yield* tellRules(state, tools);
    yield* settleLater(record, tools);
  }
  if (record.course.policy === undefined) yield* expectAgain(record, tools);
  const early = record.asleep.length > 0 ? [] : record.course.early.take(tools.now());
  for (const arrival of early) yield* expect(record, arrival, tools);
  yield ask({ type: "inventory" });
}

/** An engine that began without us, or missed the start: it can still learn what to leave. */
function* tellRules(state: EngineState, { rules }: StepTools): Inners {
  const alone = rulesAlone(state, rules);
  if (Object.keys(alone).length === 0) return;
  yield { type: "send", message: { type: "start", graphs: [], ...alone } };
}

/** What a policy decided on an event; or what it threw. */
export interface Advice {
  readonly event: EngineEvent;
  readonly state: EngineState;
  readonly policy: ExplainingPolicy | undefined;
  readonly decisions: readonly Decision[];
  /** As the end of a sentence. */
  readonly fault?: string;
}

/** @returns undefined where nothing comes of it */
export function askPolicy(
  record: EngineRecord,
  happening: Happening,
  tools: StepTools,
): Advice | undefined {
  const { state, phase, course, asleep } = record;
  // Whatever it decided, the engine would put off.
  if (asleep.length > 0) return undefined;
  if (state === undefined || course.closed || phase === "stock" || phase === "stopping") {
    return undefined;
  }
  const event = eventOf(happening, tools.now());
  let { policy } = course;
  try {
    policy ??= makePolicy(record, tools);
    const decisions = [...policy.decide(state, event)];
    return decisions.length === 0 ? undefined : { event, state, policy, decisions };
  } catch (error) {
    return { event, state, policy, decisions: [], fault: messageOf(error) };
  }
}

function eventOf(happening: Happening, atSeconds: number): EngineEvent {
  // Ten a second of every engine: a spread takes longer than all that comes of most of them.
  return happening.type === "demand" && happening.steps !== undefined
    ? { type: "demand", steps: happening.steps, atSeconds }
    : ({ ...happening, atSeconds } as EngineEvent);
}

/**
 * Carries out what a policy decided. It may be the user's: what it throws, and decisions that are
 * none, are told as a problem of it; a fault in carrying out is ours.
 */
export function* followed(record: EngineRecord, advice: Advice, tools: StepTools): Inners {
  const { event, state, policy, decisions, fault } = advice;
  if (fault !== undefined) yield policyProblem(event, fault);
  for (const decision of decisions) {
    // A listener may have changed the mode, and with it who decides.
    if (record.course.policy !== policy) return;
    const flaw = flawOf(decision);
    if (flaw !== undefined) {
      yield policyProblem(event, flaw);
      return;
    }
    yield* carryOut(record, decision, state, tools);
  }
}

function policyProblem({ type }: EngineEvent, why: string): Inner {
  return announceProblem(
    "ERR_LAZYGRAPH_POLICY",
    `Expected the policy to decide on "${type}", but it threw: ${why}.`,
  );
}

function makePolicy(record: EngineRecord, tools: StepTools): ExplainingPolicy {
  const policy = tools.policy(record.mode, record.course.plan?.context);
  const { state } = record;
  const { explain } = policy;
  remember(record, { policy });
  book(record, {
    policy: policy.name,
    explain:
      explain && state && ((id) => explained(() => explain.call(policy, state, id, tools.now()))),
  });
  return policy;
}

/** A snapshot is everybody's: a policy that throws must not take that away. */
function explained(explain: () => string): string {
  try {
    return explain();
  } catch (error) {
    return `the policy threw: ${messageOf(error)}`;
  }
}

function* carryOut(
  record: EngineRecord,
  decision: Decision,
  state: EngineState,
  tools: StepTools,
): Inners {
  const { reason } = decision;
  switch (decision.type) {
    case "start": {
      if (record.course.started || state.ready) return;
      const more = moreFor(decision, spokenVersion(record.hello) ?? PROTOCOL_VERSION_MIN);
      remember(record, { started: true });
      const first = yield* startMemory(record, decision.graphs, tools);
      const message = {
        type: "start",
        ...first,
        ...rulesAlone(state, tools.rules),
        ...more,
      } as const;
      yield { type: "send", message };
      break;
    }
    case "dispatch":
      yield { type: "send", message: { type: "dispatch", ...decision.table } };
      break;
    case "capture":
      yield* capture(record, decision, state, tools);
      return;
    case "settled":
      yield* settled(record, reason, state, tools);
      break;
    case "wait": {
      const seconds = Math.min(WAIT_SECONDS_MAX, Math.max(0.001, decision.seconds));
      yield { type: "wait", timer: "tick", seconds };
      break;
    }
  }
  yield* decided(record, { decision: decision.type, reason }, tools);
}

function* settled(
  record: EngineRecord,
  reason: string,
  state: EngineState,
  tools: StepTools,
): Inners {
  if (state.settled) return;
  bookState(record, { settled: true });
  yield { type: "cancel", timer: "settle" };
  const { readyAtSeconds, readyToSettledSeconds } = record;
  if (readyAtSeconds !== undefined && readyToSettledSeconds === undefined) {
    book(record, { readyToSettledSeconds: tools.now() - readyAtSeconds });
  }
  if (!state.frozen) yield { type: "send", message: { type: "freeze", reason: sentence(reason) } };
  record.course.plan?.settled();
  yield announceSettled(record, reason, state);
}

// ------------------------------------------------------------------ captures

function* capture(
  record: EngineRecord,
  { graph, whenIdle, reason }: Extract<Decision, { type: "capture" }>,
  state: EngineState,
  tools: StepTools,
): Inners {
  const breach = captureBreach(state, state.graphs.get(graph.id)?.status);
  if (breach !== undefined) {
    const sentence = `Expected the policy to capture a planned graph, got ${graph.id}, ${breach}.`;
    yield announceProblem("ERR_LAZYGRAPH_POLICY", sentence);
    return;
  }
  if (!record.connected) return;
  bookCapture(record, graph.id, reason);
  yield* decided(record, { decision: "capture", graph: graph.id, reason }, tools);
  yield { type: "capture", graph, whenIdle, reason };
}

/** A capture's turn in the queue of commands: its memory is reserved, or it is refused. */
export function* captureTurn(
  record: EngineRecord,
  { graph }: CaptureEffect,
  tools: StepTools,
): Inners {
  const { course, state } = record;
  // Meanwhile the engine may have left, or come back and be asked for another graph.
  if (course.closed || state === undefined || state.capturing !== graph.id) return;
  const needBytes = yield* reserve(record, graph, tools);
  if (needBytes !== undefined) yield { type: "granted", needBytes };
}

/** Sent with what was reserved for it, unless the engine has left, or captures have ended. */
export function* captureReserved(
  record: EngineRecord,
  input: Extract<EngineInput, { type: "reserved" }>,
): Inners {
  const { course, state } = record;
  const { graph, whenIdle, reason } = input.capture;
  if (course.closed || state === undefined || !input.open || state.capturing !== graph.id) {
    letGo(record);
    return;
  }
  if (state.frozen) {
    letGo(record);
    bookState(record, { capturing: undefined });
    yield ask({ type: "tick" });
    return;
  }
  yield announceCapture({ graph: graph.id, whenIdle, reason });
  yield { type: "command", graph: graph.id, whenIdle, needBytes: input.needBytes };
}

/** Why a policy may not capture now, as the end of a sentence. */
function captureBreach(state: EngineState, status: string | undefined): string | undefined {
  if (status === undefined) return "which is not in the inventory";
  if (status !== "planned") return `which is ${status}`;
  if (state.capturing !== undefined) return `while ${state.capturing} is being captured`;
  if (state.frozen || state.settled) return "after captures have ended";
  return state.ready ? undefined : "before the engine is ready";
}

// ------------------------------------------------------------------ by the clock, and by memory

/** Captures had ended before a tier was given up; with room for it again they go on. */
export function* reopen(record: EngineRecord, tools: StepTools): Inners {
  const { state, mode, frozenReason } = record;
  if (state === undefined || frozenReason !== undefined) return;
  bookState(record, { settled: false });
  remember(record, { policy: undefined, settling: false });
  yield { type: "send", message: { type: "mode", mode } };
  yield* settleLater(record, tools);
  yield* expectAgain(record, tools);
  yield ask({ type: "ready" });
}
