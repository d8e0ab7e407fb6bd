/** A load as a specification or the command line gives it, checked. */

import * as v from "valibot";
import { exactFields, number, oneOf, type Schema, whole } from "../base/schema.ts";
import { fieldError, words } from "./fields.ts";
import { ARRIVALS, type Load, RATE_MAX, STARTS } from "./load.ts";

export const SECONDS_MAX: number = 86_400 * 7;
export const tokens: Schema<number> = whole(1, 1 << 20);
const rate = v.exactOptional(number(1e-4, RATE_MAX));
const LENGTH = "a number of tokens, or a list of the fewest and the most";
const length = v.exactOptional(
  v.union(
    [
      tokens,
      v.pipe(
        v.strictTuple([tokens, tokens], LENGTH),
        v.check(([min, max]) => min <= max, LENGTH),
      ),
    ],
    LENGTH,
  ),
);

export const loadSchema: Schema<Load> = exactFields({
  arrivals: oneOf(ARRIVALS),
  requestRate: rate,
  burstiness: v.exactOptional(number(0.01, 1000)),
  rampUpStrategy: v.exactOptional(oneOf(["linear", "exponential"])),
  rampUpStartRps: rate,
  rampUpEndRps: rate,
  trace: v.exactOptional(words),
  speed: v.exactOptional(number(1e-3, 1000)),
  shareGpt: v.exactOptional(words),
  inputLen: length,
  outputLen: length,
  inputLenMax: v.exactOptional(tokens),
  outputLenMax: v.exactOptional(tokens),
  numPrompts: v.exactOptional(whole(1, 1_000_000)),
  seconds: v.exactOptional(number(0.001, SECONDS_MAX)),
  seed: v.exactOptional(whole(0, 2 ** 32 - 1)),
  start: v.exactOptional(oneOf(STARTS)),
});

/** @throws OptionError for fields that need or exclude each other */
export function checkLoad(load: Load, path: string): void {
  const { arrivals, numPrompts, seconds } = load;
  if (arrivals === "trace" && load.trace === undefined) {
    throw fieldError(`${path}.trace`, "given for arrivals of kind trace", undefined);
  }
  if (arrivals === "ramp") {
    const { rampUpStartRps, rampUpEndRps } = load;
    if (rampUpStartRps === undefined || rampUpEndRps === undefined) {
      throw fieldError(path, "given with rampUpStartRps and rampUpEndRps for a ramp", load);
    }
  } else if (arrivals !== "trace" && load.requestRate === undefined) {
    throw fieldError(`${path}.requestRate`, "given: arrivals a second", undefined);
  }
  if (arrivals !== "trace" && numPrompts === undefined && seconds === undefined) {
    throw fieldError(path, "given with numPrompts or seconds, else it never ends", load);
  }
}
