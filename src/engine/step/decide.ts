/**
 * What is decided for one engine, by its policy, by the gateway or by the clock: sent to the
 * engine, booked in its record, and published with its reason.
 */

import { messageOf } from "../../base/errors.ts";
import type { ExplainingPolicy } from "../../schedule/choice.ts";
import type { Decision, EngineEvent } from "../../schedule/policy.ts";
import type { EngineState } from "../../schedule/state.ts";
import { LIMITS, type Mode, PROTOCOL_VERSION_MIN } from "../../wire/protocol.ts";
import { spokenVersion } from "../../wire/version.ts";
import type { DecisionEvent } from "../events.ts";
import type { EngineRecord } from "../record.ts";
import { applyMode, book, bookCapture, bookState, noteDecision, remember } from "./booking.ts";
import type { CaptureEffect, EngineInput, Happening, Inner, StepTools } from "./effects.ts";
import { flawOf } from "./flaws.ts";
import { letGo, reserve, startMemory } from "./memory.ts";
import { applyRules, hasEnded, moreFor, rulesAlone } from "./rules.ts";
import { announceCapture, announceDecision, announceProblem, announceSettled } from "./tell.ts";

const WAIT_SECONDS_MAX = 3600;

type Inners = Generator<Inner, void, undefined>;

// ------------------------------------------------------------------ by the gateway

/**
 * The mode that it has already lifts a freeze and asks again for what was refused, maybe by an
 * engine that an earlier controller froze. Else what the policy remembers is kept.
 */
export function* setMode(record: EngineRecord, mode: Mode, tools: StepTools): Inners {
  if (mode === record.mode && !hasEnded(record)) return;
  applyMode(record, mode);
  applyRules(record, tools.rules);
  remember(record, { policy: undefined, modeSet: true, settling: false });
  yield { type: "cancel", timer: "settle" };
  yield { type: "send", message: { type: "mode", mode } };
  yield* decided(record, { decision: "mode", reason: `the mode is ${mode} now` }, tools);
  if (record.state?.ready !== true) return;
  yield* settleLater(record, tools);
  yield ask({ type: "ready" });
}

export function* freeze(record: EngineRecord, why: string, tools: StepTools): Inners {
  if (record.frozenReason !== undefined) return;
  const reason = sentence(why);
  book(record, { frozenReason: reason });
  // Without a plan there is nothing to end yet: the engine is told when its inventory comes.
  if (record.state !== undefined) {
    bookState(record, { frozen: true });
    yield { type: "send", message: { type: "freeze", reason } };
  }
  yield* decided(record, { decision: "freeze", reason }, tools);
  yield ask({ type: "tick" });
}

export function* expect(
  record: EngineRecord,
  arrival: { readonly inSeconds: number; readonly requests: number },
  tools: StepTools,
): Inners {
  if (record.state === undefined) record.course.early.add(tools.now(), arrival);
  else yield ask({ type: "announce", ...arrival });
}

// ------------------------------------------------------------------ by the policy

function ask(happening: Happening): Inner {
  return { type: "ask", happening };
}

/** The engine told its graphs: from now on there is a policy to hear of what is to come. */
export function* inventoryTold(record: EngineRecord, tools: StepTools): Inners {
  const { state } = record;
  if (state?.ready === true) {
    yield* tellRules(state, tools);
    yield* settleLater(record, tools);
  }
  for (const arrival of record.course.early.take(tools.now())) {
    yield ask({ type: "announce", ...arrival });
  }
  yield ask({ type: "inventory" });
}

/** An engine that began without us, or missed the start: it can still learn what to leave. */
function* tellRules(state: EngineState, { rules }: StepTools): Inners {
  const alone = rulesAlone(state, rules);
  if (Object.keys(alone).length === 0) return;
  yield { type: "send", message: { type: "start", graphs: [], ...alone } };
}

/**
 * Asks the policy, and carries out what it decides. The policy may be the user's: what it throws,
 * and decisions that are none, are told as a problem of it; a fault in carrying out is ours.
 */
export function* askPolicy(record: EngineRecord, happening: Happening, tools: StepTools): Inners {
  const { state, phase, course, asleep } = record;
  // Whatever it decided, the engine would put off.
  if (asleep.length > 0) return;
  if (state === undefined || course.closed || phase === "stock" || phase === "stopping") return;
  const event = { ...happening, atSeconds: tools.now() } as EngineEvent;
  let policy: ExplainingPolicy;
  let decisions: readonly Decision[];
  try {
    policy = course.policy ?? makePolicy(record, tools);
    decisions = [...policy.decide(state, event)];
  } catch (error) {
    yield policyProblem(event, messageOf(error));
    return;
  }
  for (const decision of decisions) {
    // A listener may have changed the mode, and with it who decides.
    if (course.policy !== policy) return;
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

/** What was decided is remembered too, for whoever asks later. */
export function* decided(
  record: EngineRecord,
  decision: Pick<DecisionEvent, "decision" | "graph" | "reason">,
  tools: StepTools,
): Inners {
  noteDecision(record, { atUnixMs: tools.unixMs(), ...decision });
  yield announceDecision(decision);
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

/** Starts the time in which captures may happen, once: no return of the engine puts its end off. */
export function* settleLater(record: EngineRecord, tools: StepTools): Inners {
  const { settleWithinSeconds } = tools;
  if (settleWithinSeconds === undefined || record.state?.settled === true) return;
  if (record.course.settling) return;
  if (settleWithinSeconds === 0) {
    yield* settleOver(record, tools);
    return;
  }
  remember(record, { settling: true });
  yield { type: "wait", timer: "settle", seconds: settleWithinSeconds };
}

/** The time in which captures may happen is over. */
export function settleOver(record: EngineRecord, tools: StepTools): Inners {
  return freeze(record, `settleWithinSeconds (${tools.settleWithinSeconds}) is over`, tools);
}

/** Captures had ended before a tier was given up; with room for it again they go on. */
export function* reopen(record: EngineRecord): Inners {
  const { state, mode, frozenReason } = record;
  if (state === undefined || frozenReason !== undefined) return;
  bookState(record, { settled: false });
  remember(record, { policy: undefined });
  yield { type: "send", message: { type: "mode", mode } };
  yield ask({ type: "ready" });
}

/** Text of the user's or of a policy's as the protocol takes it: bounded, and well-formed. */
function sentence(text: string): string {
  return Buffer.from(String(text).slice(0, LIMITS.textChars)).toString();
}
