/**
 * What the gateway orders for one engine, and the time in which it may capture. The engine keeps
 * both, and tells them to a controller that was not there: a restart of either side changes neither.
 */

import {
  type Inventory,
  LIMITS,
  type Mode,
  type Orders,
  type SetMode,
} from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import { applyMode, book, bookState, nextOrders, remember } from "./booking.ts";
import { ask, decided, sentence } from "./decided.ts";
import type { Inner, StepTools } from "./effects.ts";
import { applyRules, hasEnded } from "./rules.ts";

export const CAPTURES_ENDED = "captures had ended before";

type Inners = Generator<Inner, void, undefined>;

export function* expect(
  record: EngineRecord,
  arrival: { readonly inSeconds: number; readonly requests: number },
  tools: StepTools,
): Inners {
  const { state, asleep, course } = record;
  const isHeard = state !== undefined && asleep.length === 0;
  const { inSeconds, requests } = arrival;
  if (!isHeard) return course.early.add(tools.now(), arrival);
  course.announced.add(tools.now(), inSeconds, requests);
  yield ask({ type: "announce", inSeconds, requests });
}

/** Another policy hears of those that are still to come. */
export function* expectAgain(record: EngineRecord, tools: StepTools): Inners {
  const arrivals = record.course.announced.take(tools.now());
  for (const arrival of arrivals) yield* expect(record, arrival, tools);
}

/**
 * The mode that it has already lifts a freeze and asks again for what was refused, maybe by an
 * engine that an earlier controller froze. Else what the policy remembers is kept.
 */
export function* setMode(record: EngineRecord, mode: Mode, tools: StepTools): Inners {
  if (mode === record.mode && !hasEnded(record)) {
    yield* modeKept(record, mode, tools);
    return;
  }
  applyMode(record, mode);
  applyRules(record, tools.rules);
  const ready = record.state?.ready === true;
  remember(record, {
    policy: undefined,
    modeSet: true,
    settling: false,
    settlingAtSeconds: ready ? tools.now() : undefined,
  });
  yield { type: "cancel", timer: "settle" };
  yield modeMessage(record, tools);
  yield* decided(record, { decision: "mode", reason: `the mode is ${mode} now` }, tools);
  yield* expectAgain(record, tools);
  if (record.state?.ready !== true) return;
  yield* settleLater(record, tools);
  yield ask({ type: "ready" });
}

/** It is an order all the same, which the next start and the next controller go by. */
function* modeKept(record: EngineRecord, mode: Mode, tools: StepTools): Inners {
  if (record.orders.mode === mode) return;
  book(record, { orders: nextOrders(record.orders, { mode }) });
  yield modeMessage(record, tools);
  // A mode lifts the end of captures, which nobody asked for.
  if (record.state?.settled === true) yield freezeMessage(CAPTURES_ENDED);
}

/** With all that was ordered: an earlier message of it may have been lost. */
export function modeMessage(record: EngineRecord, tools: StepTools): Inner {
  const { mode, orders } = record;
  const ordered = Object.keys(orders).length > 0 ? { orders } : {};
  const message = { type: "mode", mode, ...ordered, ...settlingSoFar(record, tools) } as const;
  return { type: "send", message };
}

/** How long captures have had their time, where it runs. */
function settlingSoFar(
  { course: { settlingAtSeconds } }: EngineRecord,
  tools: StepTools,
): Pick<SetMode, "settlingSeconds"> {
  if (settlingAtSeconds === undefined) return {};
  const settlingSeconds = Math.min(LIMITS.secondsMax, tools.now() - settlingAtSeconds);
  return { settlingSeconds };
}

export function freezeMessage(reason: string, orders?: Orders): Inner {
  const more = orders === undefined ? {} : { orders };
  return { type: "send", message: { type: "freeze", reason, ...more } };
}

/** By the gateway: it holds over restarts of the engine and of this controller. */
export function* freezeOrdered(record: EngineRecord, why: string, tools: StepTools): Inners {
  if (record.orders.frozen !== undefined) return;
  const reason = sentence(why);
  book(record, { orders: nextOrders(record.orders, { frozen: reason }) });
  // Without a plan there is nothing to end yet, but the order is known: an inventory repeats it.
  yield freezeMessage(reason, record.orders);
  yield* frozen(record, reason, tools);
}

function* frozen(record: EngineRecord, reason: string, tools: StepTools): Inners {
  if (record.frozenReason !== undefined) return;
  book(record, { frozenReason: reason });
  bookState(record, { frozen: true });
  yield* decided(record, { decision: "freeze", reason }, tools);
  yield ask({ type: "tick" });
}

/** What an engine tells of its captures' time to a controller that was not there. */
export function adoptCourse(record: EngineRecord, message: Inventory, tools: StepTools): void {
  const { course, hello, mode } = record;
  const { settlingSeconds, frozen: ended } = message;
  if (course.settlingAtSeconds === undefined && settlingSeconds !== undefined) {
    remember(record, { settlingAtSeconds: tools.now() - settlingSeconds });
  }
  if (ended === undefined || course.modeSet) return;
  // They had come to their end by another mode, or by other rules, which this controller's lift.
  if (hello.mode !== mode || !sameRules(hello.orders, record.orders)) {
    remember(record, { modeSet: true });
    return;
  }
  // With their time over they are ended once more, and by that reason.
  if (leftSeconds(record, tools) > 0) bookState(record, { settled: true });
}

function sameRules(told: Orders | undefined, now: Orders): boolean {
  if (told === undefined) return true;
  const rules = ({ pin, exclude, graphsMax }: Orders): string =>
    JSON.stringify([pin ?? [], exclude ?? [], graphsMax]);
  return rules(told) === rules(now);
}

// ------------------------------------------------------------------ by the clock

/** Starts the time in which captures may happen, once: no return of the engine puts its end off. */
export function* settleLater(record: EngineRecord, tools: StepTools): Inners {
  const { settling, settlingAtSeconds = tools.now() } = record.course;
  remember(record, { settlingAtSeconds });
  if (settling || record.state?.settled === true) return;
  const seconds = leftSeconds(record, tools);
  if (seconds === Number.POSITIVE_INFINITY) return;
  if (seconds <= 0) {
    yield* settleOver(record, tools);
    return;
  }
  remember(record, { settling: true });
  yield { type: "wait", timer: "settle", seconds };
}

function leftSeconds({ course }: EngineRecord, { settleWithinSeconds, now }: StepTools): number {
  if (settleWithinSeconds === undefined) return Number.POSITIVE_INFINITY;
  const { settlingAtSeconds = now() } = course;
  return settlingAtSeconds + settleWithinSeconds - now();
}

/** The time in which captures may happen is over. */
export function* settleOver(record: EngineRecord, tools: StepTools): Inners {
  if (record.frozenReason !== undefined) return;
  const reason = sentence(`settleWithinSeconds (${tools.settleWithinSeconds}) is over`);
  yield freezeMessage(reason);
  yield* frozen(record, reason, tools);
}
