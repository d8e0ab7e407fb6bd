/**
 * An engine's heartbeat says in a few words how it stands. Where that is not what this side takes it
 * for, a message got lost on a connection that held: what floods is dropped unread, what doesn't fit
 * into a queue is left out. Twice in a row, and the engine is asked for its inventory, which brings
 * both sides together again.
 */

import { capturedGraphs } from "../../schedule/state.ts";
import type { Heartbeat } from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import { bookState, remember } from "./booking.ts";
import { ask } from "./decided.ts";
import type { Inner, StepTools } from "./effects.ts";
import { modeMessage } from "./orders.ts";
import { resync } from "./resync.ts";

type Inners = Generator<Inner, void, undefined>;

/** What was sent just before a heartbeat is still to be answered: one alone says nothing. */
const DOUBTS_MIN = 2;
/** An engine that stays in another opinion is asked ever more rarely. */
const DOUBTS_MAX = 64;

export function* pulse(record: EngineRecord, told: Heartbeat, tools: StepTools): Inners {
  const { state, course } = record;
  const { doubts, doubtsMax } = course;
  const inDoubt = differs(record, told);
  const isIdle = told.state === "idle";
  const missesEdge = told.state !== undefined && state?.ready === true && state.idle !== isIdle;
  if (!inDoubt && !missesEdge) {
    remember(record, { doubts: 0, doubtsMax: DOUBTS_MIN });
    return;
  }
  remember(record, { doubts: doubts + 1 });
  if (doubts + 1 < doubtsMax) return;
  remember(record, { doubts: 0, doubtsMax: Math.min(DOUBTS_MAX, 2 * doubtsMax) });
  if (inDoubt) {
    // With all orders. It lifts the end of captures, which the inventory's answer tells once more.
    if (missesOrders(record, told)) yield modeMessage(record, tools);
    yield* resync(record, tools);
    return;
  }
  bookState(record, { idle: isIdle });
  yield ask({ type: isIdle ? "idle" : "busy" });
}

function missesOrders({ mode, orders }: EngineRecord, told: Heartbeat): boolean {
  const { serial = 0 } = orders;
  return (told.mode ?? mode) !== mode || (told.orders ?? serial) !== serial;
}

function differs(record: EngineRecord, told: Heartbeat): boolean {
  const { phase, epoch, state, asleep } = record;
  // An older engine tells nothing.
  if (told.phase === undefined || told.phase === "stock" || phase === "stock") return false;
  if (missesOrders(record, told)) return true;
  if ((told.phase === "serving") !== (phase === "serving")) return true;
  if (told.phase !== "serving") return false;
  if (state === undefined) return true;
  const ended = state.frozen || state.settled;
  return (
    told.epoch !== epoch ||
    told.captured !== capturedGraphs(state).length ||
    (told.frozen === true) !== ended ||
    (told.asleep === true) !== asleep.length > 0
  );
}
