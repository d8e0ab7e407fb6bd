/** Rules of the options of `startSimulatedEngine`, so that a mistake starts no process. */

import {
  checkOptions,
  functionRule,
  numberRule,
  type OptionRule,
  textRule,
} from "../check-options.ts";
import { loadProfile } from "../profile/load.ts";
import { isCurveKey } from "../wire/curve.ts";
import { checkEndpoint } from "../wire/endpoint.ts";
import { MODES } from "../wire/protocol.ts";
import type { SimulatedEngineOptions } from "./child.ts";

const TRACE_RULES: {
  readonly [K in keyof Required<SimulatedEngineOptions>["trace"]]-?: OptionRule;
} = {
  file: textRule("a path"),
  speed: numberRule(1e-6, 1e6),
  seconds: numberRule(1e-6, 86_400),
  requests: numberRule(1, 100_000, "whole"),
};

const RULES: { readonly [K in keyof SimulatedEngineOptions]-?: OptionRule } = {
  endpoint(value) {
    if (typeof value !== "string") return "an endpoint such as tcp://127.0.0.1:5757";
    checkEndpoint("endpoint", value);
    return undefined;
  },
  engine(value) {
    const sound = typeof value === "string" && /^\P{Cc}{1,128}$/u.test(value);
    return sound ? undefined : "1 to 128 characters without control characters";
  },
  mode: (value) =>
    MODES.some((mode) => mode === value) ? undefined : `one of ${MODES.join(", ")}`,
  profile: textRule("the name of a shipped profile or a path"),
  speed: numberRule(0.001, 1000),
  trace(value) {
    checkOptions(value, TRACE_RULES, "trace");
    const { file } = value as { readonly file?: unknown };
    return file === undefined ? "an object such as { file: 'trace.csv' }" : undefined;
  },
  handshakeMs: numberRule(0, 60_000),
  jitter: numberRule(0, 1),
  seed: numberRule(0, 2 ** 32 - 1, "whole"),
  http(value) {
    const match =
      typeof value === "string" && /^(?:\[[\da-fA-F:.]+\]|[^:\s/]+):(\d{1,5})$/.exec(value);
    return match && Number(match[1]) <= 65_535 ? undefined : "HOST:PORT such as 127.0.0.1:0";
  },
  model: textRule("a name"),
  sizes(value) {
    const sound =
      Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size > 0);
    return sound ? undefined : "a list of whole numbers above 0";
  },
  curve(value) {
    const { serverKey, publicKey, secretKey } = Object(value);
    const sound = [serverKey, publicKey, secretKey].every(isCurveKey);
    if (sound) return undefined;
    return "an object with serverKey, publicKey and secretKey, each 40 characters of Z85";
  },
  freeBytes: numberRule(0, Number.MAX_SAFE_INTEGER, "whole"),
  gpuUuid: textRule("a name"),
  signal: (value) => (value instanceof AbortSignal ? undefined : "an AbortSignal"),
  onEvent: functionRule,
};

/**
 * @throws OptionError that names the first option that is unknown or breaks its rule;
 *   LazygraphError `ERR_LAZYGRAPH_PROFILE` for a profile that can't be used
 */
export function checkSimulatedEngineOptions(options: SimulatedEngineOptions): void {
  checkOptions(options, RULES);
  if (options.profile !== undefined) loadProfile(options.profile);
}
