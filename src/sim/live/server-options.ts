/**
 * What `startSimulatedServer` takes, and the rules of it: a mistake starts no engine and no server.
 */

import * as v from "valibot";
import { checkOptions, type OptionRules, rule, textRule } from "../../base/check-options.ts";
import { oneOf, whole } from "../../base/schema.ts";
import type { Profile } from "../../profile/profile.ts";
import { ENGINE_RULES } from "./engine-rules.ts";
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

const PROFILE = "a profile, or the name or path of one";

const RULES: OptionRules<SimulatedServerOptions> = {
  ...ENGINE_RULES,
  profile: v.union([v.custom<object>(isObject), textRule(PROFILE)], PROFILE),
  host: textRule("a host name or address"),
  port: whole(0, 65_535),
  requestsMax: whole(1, 1_000_000),
  requests: rule("a list of requests", Array.isArray),
  warmUps: oneOf(["first", "all"]),
  marginBytes: whole(0, Number.MAX_SAFE_INTEGER),
  gpu: rule("a simulated GPU", isObject),
  clock: rule("a clock", isObject),
};

/** @throws OptionError that names the first option that is unknown or breaks its rule */
export function checkSimulatedServerOptions(options: SimulatedServerOptions): void {
  checkOptions(options, RULES);
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
