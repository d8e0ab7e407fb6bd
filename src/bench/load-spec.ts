/** A load as a specification or the command line gives it, checked. */

import { defined, Fields, fieldError, type NumberLimits, numberIn } from "./fields.ts";
import { ARRIVALS, type Length, type Load, RATE_MAX, STARTS } from "./load.ts";

export const SECONDS_MAX: number = 86_400 * 7;
export const TOKENS: NumberLimits = { min: 1, max: 1 << 20, whole: true };
const RATE = { min: 1e-4, max: RATE_MAX } as const;

export function parseLoad(value: unknown, path: string): Load {
  const fields = new Fields(path, value);
  const arrivals = fields.oneOf("arrivals", ARRIVALS);
  if (arrivals === undefined) {
    throw fieldError(`${path}.arrivals`, `one of ${ARRIVALS.join(", ")}`, undefined);
  }
  const load: Load = {
    arrivals,
    ...defined<Omit<Load, "arrivals">>({
      requestRate: fields.number("requestRate", RATE),
      burstiness: fields.number("burstiness", { min: 0.01, max: 1000 }),
      rampUpStrategy: fields.oneOf("rampUpStrategy", ["linear", "exponential"]),
      rampUpStartRps: fields.number("rampUpStartRps", RATE),
      rampUpEndRps: fields.number("rampUpEndRps", RATE),
      trace: fields.text("trace"),
      speed: fields.number("speed", { min: 1e-3, max: 1000 }),
      shareGpt: fields.text("shareGpt"),
      inputLen: parseLength(fields.raw("inputLen"), `${path}.inputLen`),
      outputLen: parseLength(fields.raw("outputLen"), `${path}.outputLen`),
      inputLenMax: fields.number("inputLenMax", TOKENS),
      outputLenMax: fields.number("outputLenMax", TOKENS),
      numPrompts: fields.number("numPrompts", { min: 1, max: 1_000_000, whole: true }),
      seconds: fields.number("seconds", { min: 0.001, max: SECONDS_MAX }),
      seed: fields.number("seed", { min: 0, max: 2 ** 32 - 1, whole: true }),
      start: fields.oneOf("start", STARTS),
    }),
  };
  fields.done();
  checkLoad(load, path);
  return load;
}

function parseLength(value: unknown, path: string): Length | undefined {
  if (value === undefined || value === null) return undefined;
  if (!Array.isArray(value)) return numberIn(path, value, TOKENS);
  const [min, max] = value.map((entry) => numberIn(path, entry, TOKENS));
  if (value.length === 2 && min !== undefined && max !== undefined && min <= max) return [min, max];
  throw fieldError(path, "a number of tokens, or a list of the fewest and the most", value);
}

/** Fields that need or exclude each other. */
function checkLoad(load: Load, path: string): void {
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
