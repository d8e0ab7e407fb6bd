/** What every frame must come to, whatever it is: a message, a type that isn't known, or a refusal. */

import { isDeepStrictEqual } from "node:util";
import { codeOf, messageOf } from "../../src/base/errors.ts";
import { decode, encode } from "../../src/wire/codec.ts";
import type { FromEngine, ToEngine } from "../../src/wire/protocol.ts";
import { readTelemetry } from "../../src/wire/telemetry.ts";
import { FROM_ENGINE, TO_ENGINE } from "../../src/wire/validate.ts";

export type Side = "from-engine" | "to-engine";

export type Outcome =
  | { readonly type: "message"; readonly name: string }
  | { readonly type: "unknown" }
  /** The sentence without what was quoted: one for each place that can refuse. */
  | { readonly type: "refused"; readonly why: string }
  | { readonly type: "fault"; readonly why: string };

/** A refusal quotes what came, but not all of it. */
const SENTENCE_CHARS_MAX = 1000;

export function outcomeOf(side: Side, frame: Uint8Array): Outcome {
  if (side === "from-engine" && !isReadAlike(frame)) {
    return fault("telemetry means something else where it is read straight from its frame");
  }
  const read = (bytes: Uint8Array): FromEngine | ToEngine | undefined =>
    side === "from-engine" ? decode(bytes, FROM_ENGINE) : decode(bytes, TO_ENGINE);
  let message: ReturnType<typeof read>;
  try {
    message = read(frame);
  } catch (error) {
    const sentence = messageOf(error);
    if (codeOf(error) !== "ERR_LAZYGRAPH_PROTOCOL_FRAME") return fault(`it threw ${sentence}`);
    if (sentence.length > SENTENCE_CHARS_MAX) return fault(`${sentence.length} characters of why`);
    return { type: "refused", why: shapeOf(sentence) };
  }
  if (message === undefined) return { type: "unknown" };
  // What was taken in can be told on, and means the same.
  try {
    const again = read(encode(message));
    if (!isDeepStrictEqual(again, message)) return fault(`${message.type} means something else`);
  } catch (error) {
    return fault(`${message.type} can't be written again: ${messageOf(error)}`);
  }
  return { type: "message", name: message.type };
}

/** Whether telemetry that is read straight from its frame is what the general way makes of it. */
export function isReadAlike(frame: Uint8Array): boolean {
  const straight = readTelemetry(frame);
  if (straight === undefined) return true;
  try {
    // As texts, which tell the order of fields as well.
    return JSON.stringify(straight) === JSON.stringify(decode(inLongForm(frame), FROM_ENGINE));
  } catch {
    return false;
  }
}

/** The same map with a head of three bytes, which is not of the plain form. */
function inLongForm(frame: Uint8Array): Uint8Array {
  return Uint8Array.of(0xde, 0, (frame[0] ?? 0) & 0x0f, ...frame.subarray(1));
}

function fault(why: string): Outcome {
  return { type: "fault", why };
}

function shapeOf(sentence: string): string {
  return sentence
    .replace(/got .*$/s, "got")
    .replace(/\[\d+\]/g, "[]")
    .replace(/\d+/g, "N")
    .slice(0, 160);
}
