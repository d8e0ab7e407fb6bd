/** Asks an engine for its inventory: whatever went wrong, it brings both sides together. */

import type { CaptureResult, Dropped, Slept } from "../../wire/protocol.ts";
import type { EngineRecord } from "../record.ts";
import { remember } from "./booking.ts";
import type { Inner, StepTools } from "./effects.ts";

/** Seconds between two resyncs that this side asks for, however much the engine gets wrong. */
const RESYNC_SECONDS_MIN = 1;

export function* resync(record: EngineRecord, tools: StepTools): Generator<Inner, void, undefined> {
  const now = tools.now();
  if (now - record.course.resyncAtSeconds < RESYNC_SECONDS_MIN) return;
  remember(record, { resyncAtSeconds: now });
  yield { type: "send", message: { type: "resync" } };
}

/**
 * An answer tells of one change of the captured set, or of none. Where more have happened since
 * `epoch`, the rest was told by messages that did not arrive.
 */
export function* resyncUnlessNext(
  record: EngineRecord,
  answer: CaptureResult | Dropped | Slept,
  epoch: number,
  tools: StepTools,
): Generator<Inner, void, undefined> {
  if (answer.epoch > epoch + changesOf(answer)) yield* resync(record, tools);
}

function changesOf(answer: CaptureResult | Dropped | Slept): number {
  switch (answer.outcome) {
    case "captured":
      return 1;
    case "dropped":
      return answer.type === "dropped" ? answer.graphs.length : 0;
    default:
      return 0;
  }
}
