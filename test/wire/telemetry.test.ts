import fc from "fast-check";
import { Packr } from "msgpackr";
import { expect, test } from "vitest";
import { decode, encode } from "../../src/wire/codec.ts";
import { LIMITS, type StepCount, type Telemetry } from "../../src/wire/protocol.ts";
import { readTelemetry } from "../../src/wire/telemetry.ts";
import { FROM_ENGINE } from "../../src/wire/validate.ts";
import { isReadAlike } from "../fuzz/decoders.ts";

const packr = new Packr({ useRecords: false, variableMapSize: true });

const step: StepCount = {
  tokens: 9,
  requests: 9,
  uniform: 1,
  served: "FULL:16",
  count: 3,
  seconds: 0.0165,
  timed: 3,
  contextTokens: 800,
};
const message: Telemetry = {
  type: "telemetry",
  sequence: 300,
  dropped: 0,
  steps: [step, { ...step, tokens: 70_000, served: "", seconds: 0, timed: 0 }],
  running: 9,
  waiting: 0,
};

const whole = (min: number, max: number) => fc.integer({ min, max });
const steps = fc.record({
  tokens: whole(1, LIMITS.tokens),
  requests: whole(0, LIMITS.tokens),
  uniform: whole(0, LIMITS.tokens),
  served: fc.string({ unit: "grapheme-ascii", maxLength: LIMITS.idChars }),
  count: whole(0, 2 ** 32 - 1),
  seconds: fc.double({ min: 0, max: 1e9, noNaN: true }),
  timed: whole(0, 2 ** 32 - 1),
  contextTokens: fc.double({ min: 0, max: 1e9, noNaN: true }),
});

test("telemetry as engines write it is read straight from its frame, and means what it says", () => {
  const messages = fc.record({
    type: fc.constant("telemetry" as const),
    sequence: whole(0, 2 ** 32 - 1),
    dropped: whole(0, 70_000),
    steps: fc.array(steps, { maxLength: 40 }),
    running: whole(0, LIMITS.tokens),
    waiting: whole(0, LIMITS.tokens),
  });
  fc.assert(
    fc.property(messages, (telemetry) => {
      const frame = encode(telemetry);
      expect(readTelemetry(frame)).toEqual(decode(frame, FROM_ENGINE));
      expect(readTelemetry(frame)).toEqual(telemetry);
      expect(isReadAlike(frame)).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test("what is not of the plain form is left to the general way", () => {
  const packed = (telemetry: object): Uint8Array => packr.pack(telemetry);
  const { waiting, ...fewer } = message;
  const others: Record<string, object> = {
    "a case of its own": { ...message, steps: [{ ...step, loras: 2 }] },
    "another order": { waiting, ...fewer },
    "a field too few": fewer,
    "a text that this version doesn't know": { ...message, note: "x" },
    "an integer beyond 32 bits": { ...message, sequence: 2n ** 40n },
    "a name that is no plain text": { ...message, steps: [{ ...step, served: "größer" }] },
    "another message": { ...message, type: "edge" },
    "no steps": { ...message, steps: undefined },
    "a number below zero": { ...message, dropped: -1 },
    "no number": { ...message, steps: [{ ...step, seconds: Number.NaN }] },
    "more than may be": { ...message, running: LIMITS.tokens + 1 },
    "too many steps": { ...message, steps: new Array(LIMITS.stepsPerBatch + 1).fill(step) },
  };
  expect(readTelemetry(packed(message))).toEqual(message);
  expect(readTelemetry(packed({ ...message, at: 0.5, newer: 7 }))).toEqual(message);
  for (const [name, other] of Object.entries(others)) {
    expect(readTelemetry(packed(other)), name).toBeUndefined();
  }
  // Of a field that comes twice the last one counts, as it always did.
  const twice = Buffer.concat([packed(message), packed({ waiting: 5 }).subarray(1)]);
  twice[0] = 0x87;
  expect(readTelemetry(twice)).toBeUndefined();
  expect(decode(twice, FROM_ENGINE)).toEqual({ ...message, waiting: 5 });
});

test("no byte of a frame is taken for another one than it is", () => {
  const frame = encode(message);
  let straight = 0;
  let general = 0;
  for (let place = 0; place < frame.byteLength; place++) {
    for (let byte = 0; byte < 256; byte++) {
      const other = Buffer.from(frame);
      other[place] = byte;
      if (readTelemetry(other) === undefined) general += 1;
      else {
        straight += 1;
        expect(isReadAlike(other), `byte ${byte} at ${place}`).toBe(true);
      }
    }
    expect(readTelemetry(frame.subarray(0, place))).toBeUndefined();
  }
  expect(Math.min(straight, general)).toBeGreaterThan(1000);
});
