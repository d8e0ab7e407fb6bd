/**
 * Telemetry read straight from its frame: ten frames a second come from every engine, and reading
 * one in general takes four passes over it (its shape, its values, their checks, a clean copy).
 *
 * Only the plainest form is read here, as the plugin writes it: fields in the order of protocol.ts,
 * numbers in the forms that msgpack has for theirs. For every other frame, sound or not, nothing
 * comes, and whoever asked reads it in general. So no rule is loosened, no error is another one, and
 * what comes is what the general way would have made of it: a test holds the two together.
 */

import { LIMITS, type StepCount, type Telemetry } from "./protocol.ts";

/** Texts as they stand in a frame, with the byte of their length. */
const TYPE = field("type");
const TELEMETRY = field("telemetry");
const SEQUENCE = field("sequence");
const DROPPED = field("dropped");
const STEPS = field("steps");
const RUNNING = field("running");
const WAITING = field("waiting");
const TOKENS = field("tokens");
const REQUESTS = field("requests");
const UNIFORM = field("uniform");
const SERVED = field("served");
const COUNT = field("count");
const SECONDS = field("seconds");
const TIMED = field("timed");
const CONTEXT_TOKENS = field("contextTokens");
const STEP_FIELDS = 8;
const KNOWN: ReadonlySet<string> = new Set([
  "type",
  "sequence",
  "dropped",
  "steps",
  "running",
  "waiting",
]);

function field(text: string): Uint8Array {
  return Uint8Array.of(0xa0 + text.length, ...Buffer.from(text, "latin1"));
}

/** Names of graphs that were read before: each is made once, and found by its bytes from then on. */
const NAMES_MAX = 4096;
const names: (string | undefined)[] = new Array(NAMES_MAX).fill(undefined);

const double = new Float64Array(1);
const doubleBytes = new Uint8Array(double.buffer);
double[0] = -1;
const isLittleEndian = doubleBytes[7] !== 0;

/** Where the next value of the frame begins; beyond its end: it is not of the plain form. */
let at = 0;
const NEVER = 2 ** 30 - 1;

/** @returns undefined where the frame is to be read in general */
export function readTelemetry(frame: Uint8Array): Telemetry | undefined {
  const head = frame[0] ?? 0;
  // Six fields, and maybe some that this version doesn't know.
  if (head < 0x86 || head > 0x8f) return undefined;
  at = 1;
  skip(frame, TYPE);
  skip(frame, TELEMETRY);
  if (at === NEVER) return undefined;
  skip(frame, SEQUENCE);
  const sequence = whole(frame);
  skip(frame, DROPPED);
  const dropped = whole(frame);
  skip(frame, STEPS);
  const steps = stepsOf(frame);
  skip(frame, RUNNING);
  const running = whole(frame);
  skip(frame, WAITING);
  const waiting = whole(frame);
  if (running > LIMITS.tokens || waiting > LIMITS.tokens) return undefined;
  for (let more = head - 0x86; more > 0; more--) skipUnknown(frame);
  if (at !== frame.byteLength || steps === undefined) return undefined;
  return { type: "telemetry", sequence, dropped, steps, running, waiting };
}

function stepsOf(frame: Uint8Array): StepCount[] | undefined {
  const head = frame[at++] ?? 0;
  let length = head & 0x0f;
  if (head === 0xdc) {
    length = ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
    at += 2;
  } else if (head >> 4 !== 0x9) return undefined;
  if (length > LIMITS.stepsPerBatch) return undefined;
  const steps: StepCount[] = [];
  for (; length > 0; length--) {
    const step = stepOf(frame);
    if (step === undefined) return undefined;
    steps.push(step);
  }
  return steps;
}

function stepOf(frame: Uint8Array): StepCount | undefined {
  // One with a case of its own, as with active adapters, is rare.
  if (frame[at++] !== 0x80 + STEP_FIELDS) return undefined;
  skip(frame, TOKENS);
  const tokens = whole(frame);
  skip(frame, REQUESTS);
  const requests = whole(frame);
  skip(frame, UNIFORM);
  const uniform = whole(frame);
  skip(frame, SERVED);
  const served = name(frame);
  skip(frame, COUNT);
  const count = whole(frame);
  skip(frame, SECONDS);
  const seconds = amount(frame);
  skip(frame, TIMED);
  const timed = whole(frame);
  skip(frame, CONTEXT_TOKENS);
  const contextTokens = amount(frame);
  if (at > frame.byteLength || served === undefined) return undefined;
  const { tokens: most } = LIMITS;
  if (tokens < 1 || tokens > most || requests > most || uniform > most) return undefined;
  return { tokens, requests, uniform, served, count, seconds, timed, contextTokens };
}

/** Goes past these bytes; where others stand, nothing after them is read. */
function skip(frame: Uint8Array, bytes: Uint8Array): void {
  const { length } = bytes;
  for (let index = 0; index < length; index++) {
    if (frame[at + index] !== bytes[index]) {
      at = NEVER;
      return;
    }
  }
  at += length;
}

/** An integer from 0 on, of at most 32 bits: what is larger is read in general. */
function whole(frame: Uint8Array): number {
  const head = frame[at++] ?? 0xc1;
  if (head <= 0x7f) return head;
  const bytes = head === 0xcc ? 1 : head === 0xcd ? 2 : head === 0xce ? 4 : 0;
  if (bytes === 0) {
    at = NEVER;
    return 0;
  }
  let value = 0;
  for (const end = at + bytes; at < end; at++) value = value * 256 + (frame[at] ?? 0);
  return value;
}

/** A finite number from 0 on. */
function amount(frame: Uint8Array): number {
  if (frame[at] !== 0xcb) return whole(frame);
  for (let byte = 0; byte < 8; byte++) {
    doubleBytes[isLittleEndian ? 7 - byte : byte] = frame[at + 1 + byte] ?? 0;
  }
  at += 9;
  const value = double[0] ?? 0;
  if (value >= 0 && value < Number.POSITIVE_INFINITY) return value + 0;
  at = NEVER;
  return 0;
}

/** A graph's name in visible ASCII, as nearly all are, or nothing. */
function name(frame: Uint8Array): string | undefined {
  const head = frame[at++] ?? 0;
  let length = head & 0x1f;
  if (head === 0xd9) length = frame[at++] ?? 0;
  else if (head >> 5 !== 0x5) return undefined;
  const end = at + length;
  if (end > frame.byteLength || length > LIMITS.idChars) return undefined;
  let hash = length;
  for (let index = at; index < end; index++) {
    const unit = frame[index] ?? 0;
    if (unit < 0x20 || unit > 0x7e) return undefined;
    hash = (Math.imul(hash, 31) + unit) | 0;
  }
  const place = (hash ^ (hash >>> 12)) & (NAMES_MAX - 1);
  let known = names[place];
  if (known === undefined || !stands(known, frame, length)) {
    known = Buffer.from(frame.buffer, frame.byteOffset + at, length).toString("latin1");
    names[place] = known;
  }
  at = end;
  return known;
}

function stands(text: string, frame: Uint8Array, length: number): boolean {
  if (text.length !== length) return false;
  for (let index = 0; index < length; index++) {
    if (text.charCodeAt(index) !== frame[at + index]) return false;
  }
  return true;
}

/** A field of a newer engine's, if it is a mere number: dropped, as all unknown ones are. */
function skipUnknown(frame: Uint8Array): void {
  const key = name(frame);
  // One that comes twice is read in general.
  if (key === undefined || KNOWN.has(key)) at = NEVER;
  else if (frame[at] === 0xcb) at += 9;
  else whole(frame);
}
