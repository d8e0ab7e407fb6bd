/**
 * What `startSimulatedServer` takes, and the rules of it: a mistake starts no engine and no server.
 */

import {
  checkOptions,
  functionRule,
  numberRule,
  type OptionRule,
  oneOf,
  textRule,
} from "../../base/check-options.ts";
import type { Profile } from "../../profile/profile.ts";
import { endpointsOf } from "../../wire/endpoint.ts";
import { MODES } from "../../wire/protocol.ts";
import { isCurveKey } from "../../wire/z85.ts";
import type { LiveEngineOptions } from "./live.ts";

export interface SimulatedServerOptions
  extends Omit<LiveEngineOptions, "profile" | "session" | "wire"> {
  /** A cost profile, or the name of a shipped one. @default "llama-3.1-8b-h200" */
  readonly profile?: Profile | string;
  /** Model name that requests must give. @default the profile's model */
  readonly model?: string;
  /** @default "127.0.0.1" */
  readonly host?: string;
  /** 0 asks the system for a free one. @default 0 */
  readonly port?: number;
  /** Requests under way at once; more are answered 429. @default 4096 */
  readonly requestsMax?: number;
}

const RULES: { readonly [K in keyof SimulatedServerOptions]-?: OptionRule } = {
  profile: (value) =>
    isObject(value) ? undefined : textRule("a profile, or the name or path of one")(value),
  model: textRule("a name"),
  host: textRule("a host name or address"),
  port: numberRule(0, 65_535, "whole"),
  requestsMax: numberRule(1, 1_000_000, "whole"),
  endpoint(value) {
    if (typeof value !== "string") return "an endpoint such as tcp://127.0.0.1:5757";
    endpointsOf("endpoint", value);
    return undefined;
  },
  curve(value) {
    const { serverKey, publicKey, secretKey } = Object(value);
    if ([serverKey, publicKey, secretKey].every(isCurveKey)) return undefined;
    return "an object with serverKey, publicKey and secretKey, each 40 characters of Z85";
  },
  engine(value) {
    const sound = typeof value === "string" && /^\P{Cc}{1,128}$/u.test(value);
    return sound ? undefined : "1 to 128 characters without control characters";
  },
  mode: (value) => oneOf(MODES, value),
  speed: numberRule(0.001, 1000),
  requests: (value) => (Array.isArray(value) ? undefined : "a list of requests"),
  handshakeMs: numberRule(0, 60_000),
  jitter: numberRule(0, 1),
  seed: numberRule(0, 2 ** 32 - 1, "whole"),
  warmUps: (value) => oneOf(["first", "all"], value),
  marginBytes: numberRule(0, Number.MAX_SAFE_INTEGER, "whole"),
  gpu: (value) => (isObject(value) ? undefined : "a simulated GPU"),
  clock: (value) => (isObject(value) ? undefined : "a clock"),
  onEvent: functionRule,
};

/** @throws OptionError that names the first option that is unknown or breaks its rule */
export function checkSimulatedServerOptions(options: SimulatedServerOptions): void {
  checkOptions(options, RULES);
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
