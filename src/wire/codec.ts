/**
 * Messages to frames and back. Nothing leaves and nothing enters unchecked: see validate.ts for
 * what a message must look like and scan.ts for what a frame must look like.
 */

import { type Options, Packr, Unpackr } from "msgpackr";
import { LazygraphError } from "../base/errors.ts";
import { type Check, Mismatch, show } from "./check.ts";
import { writeDispatch } from "./dispatch-frame.ts";
import { type FromEngine, LIMITS, type ToEngine } from "./protocol.ts";
import { scanFrame } from "./scan.ts";
import { readTelemetry } from "./telemetry.ts";
import { type Checks, FROM_ENGINE, TO_ENGINE } from "./validate.ts";

// `skipValues` and `int64AsType: "auto"` work but are missing from msgpackr's types.
const OPTIONS = {
  useRecords: false,
  moreTypes: false,
  variableMapSize: true,
  int64AsType: "auto",
  skipValues: [undefined],
  encodeUndefinedAsNil: true,
} as unknown as Options;

const packr = new Packr(OPTIONS);
const unpackr = new Unpackr(OPTIONS);

const ADVICE = "use versions of lazygraph and lazygraph-vllm that fit each other";

/**
 * Packs a message into one frame, fields in the order of protocol.ts.
 *
 * @throws LazygraphError ERR_LAZYGRAPH_PROTOCOL_FRAME when the message breaks a rule or a limit.
 */
export function encode(message: FromEngine | ToEngine): Buffer {
  // What is written straight has passed the same checks.
  const straight = message.type === "dispatch" ? writeDispatch(message) : undefined;
  return straight ?? encodeInGeneral(message);
}

/** Of any message; for one that is also written straight, what that has to come to. */
export function encodeInGeneral(message: FromEngine | ToEngine): Buffer {
  const table = message.type in TO_ENGINE ? TO_ENGINE : FROM_ENGINE;
  const check = checkOf(table, message.type);
  if (check === undefined) throw frameError(`no message has the type ${show(message.type)}`);
  const clean = checked(check, message, message.type);
  const frame = Buffer.from(packr.pack(widen(clean)));
  if (frame.byteLength > LIMITS.frameBytes) throw tooLarge(message.type, frame.byteLength);
  return frame;
}

/**
 * Reads a frame of the side whose messages `checks` are for. Unknown fields are dropped.
 *
 * @returns undefined for a sound frame of a type this version doesn't know: count it and go on.
 * @throws LazygraphError ERR_LAZYGRAPH_PROTOCOL_FRAME for anything else that is not a message.
 */
export function decode<M extends { readonly type: string }>(
  frame: Uint8Array,
  checks: Checks<M>,
): M | undefined {
  // Nearly all frames are telemetry; what is read straight has passed the same checks.
  const straight = (checks as object) === FROM_ENGINE ? readTelemetry(frame) : undefined;
  if (straight !== undefined) return straight as unknown as M;
  if (frame.byteLength > LIMITS.frameBytes) throw tooLarge("a frame", frame.byteLength);
  const fault = scanFrame(frame);
  if (fault !== undefined) throw frameError(`Expected a frame to be one msgpack map, but ${fault}`);
  let value: unknown;
  try {
    value = unpackr.unpack(frame);
  } catch (error) {
    throw frameError("Expected a frame to be one msgpack map, but it can't be read", error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw frameError(`Expected a frame to be one msgpack map, got ${show(value)}`);
  }
  const type = "type" in value ? value.type : undefined;
  if (typeof type !== "string") {
    throw frameError(`Expected the field type to be text, got ${show(type)}`);
  }
  const check = checkOf(checks, type);
  return check === undefined ? undefined : (checked(check, value, type) as M);
}

function checkOf(table: object, type: string): Check<object> | undefined {
  return Object.hasOwn(table, type) ? table[type as keyof typeof table] : undefined;
}

function checked(check: Check<object>, value: unknown, type: string): object {
  try {
    return check(value, type);
  } catch (error) {
    if (error instanceof Mismatch) throw frameError(error.message);
    throw error;
  }
}

/** msgpackr writes integers from 2³² up as floats unless they are BigInts; msgspec refuses floats. */
function widen(value: unknown): unknown {
  if (typeof value === "number") {
    const fits32 = value < 2 ** 32 && value >= -(2 ** 31);
    return Number.isSafeInteger(value) && !fits32 ? BigInt(value) : value;
  }
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    // Nearly all lists are texts: what has nothing to widen is left as it is.
    let copy: unknown[] | undefined;
    for (let at = 0; at < value.length; at++) {
      const wide = widen(value[at]);
      if (wide === value[at]) continue;
      copy ??= [...value];
      copy[at] = wide;
    }
    return copy ?? value;
  }
  const source = value as Readonly<Record<string, unknown>>;
  let copy: Record<string, unknown> | undefined;
  for (const key in source) {
    const wide = widen(source[key]);
    if (wide === source[key]) continue;
    copy ??= { ...source };
    copy[key] = wide;
  }
  return copy ?? source;
}

function tooLarge(what: string, bytes: number): LazygraphError {
  return frameError(`Expected ${what} to have at most ${LIMITS.frameBytes} bytes, got ${bytes}`);
}

function frameError(message: string, cause?: unknown): LazygraphError {
  const options = cause === undefined ? {} : { cause };
  return new LazygraphError("ERR_LAZYGRAPH_PROTOCOL_FRAME", `${message}; ${ADVICE}.`, options);
}
