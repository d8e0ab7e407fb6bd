/** Options of a controller: their types, defaults and rules. */

import { OptionError } from "./errors.ts";
import { nearMiss } from "./near-miss.ts";
import { createPolicy } from "./schedule/modes.ts";
import type { Policy } from "./schedule/policy.ts";
import { type CurveOptions, isCurveKey } from "./wire/curve.ts";
import { checkEndpoint } from "./wire/endpoint.ts";
import { LIMITS, MODES, type Mode } from "./wire/protocol.ts";

export interface ControllerOptions {
  /**
   * When engines capture: everything before ready, what traffic earns, or that and the rest while
   * idle. Applies to every engine that joins, whatever it was started with.
   * @default "idle"
   */
  readonly mode?: Mode;
  /**
   * Where engines connect: `tcp://HOST:PORT` or `ipc://PATH`. Port 0 picks a free one, which
   * `controller.endpoint` then tells. What other machines may reach needs `curve`.
   * @default "tcp://127.0.0.1:0"
   */
  readonly endpoint?: string;
  /**
   * Milliseconds between heartbeats, 10 to 600,000; an engine silent for five is lost.
   * @default 1000
   */
  readonly heartbeatMs?: number;
  /**
   * Milliseconds an engine may take to answer a capture command, 1 to 3,600,000.
   * @default 60000
   */
  readonly captureTimeoutMs?: number;
  /**
   * Seconds after ready in which captures may happen; then the engine is frozen.
   * @default undefined: no end
   */
  readonly settleWithinSeconds?: number;
  /**
   * Makes the policy of one engine, called for each session and each change of its mode.
   * @default the policy of the mode
   */
  readonly policy?: (mode: Mode) => Policy;
  /**
   * Engines served at once, 1 to 1024; one more is refused with a reason.
   * @default 64
   */
  readonly enginesMax?: number;
  /**
   * CURVE keys. Without them only this machine may connect.
   * @default undefined
   */
  readonly curve?: CurveOptions;
  /**
   * Closes the controller when aborted.
   * @default undefined
   */
  readonly signal?: AbortSignal;
}

type Required = "mode" | "endpoint" | "heartbeatMs" | "captureTimeoutMs" | "policy" | "enginesMax";

/** Options after validation: complete but for those whose absence means something. */
export type ResolvedOptions = Readonly<
  { [K in Required]-?: NonNullable<ControllerOptions[K]> } & Omit<ControllerOptions, Required>
>;

const RULES: { readonly [K in keyof ControllerOptions]-?: (value: unknown) => string | undefined } =
  {
    mode: (value) => oneOf(MODES, value),
    endpoint(value) {
      if (typeof value !== "string") return "an endpoint such as tcp://127.0.0.1:0";
      checkEndpoint("endpoint", value);
      return undefined;
    },
    heartbeatMs: (value) => within(value, LIMITS.heartbeatMsMin, LIMITS.heartbeatMsMax, true),
    captureTimeoutMs: (value) => within(value, 1, 3_600_000, true),
    settleWithinSeconds: (value) => within(value, 0, 31_536_000, false),
    policy: (value) => (typeof value === "function" ? undefined : "a function that makes a policy"),
    enginesMax: (value) => within(value, 1, 1024, true),
    curve: curveRule,
    signal: (value) => (value instanceof AbortSignal ? undefined : "an AbortSignal"),
  };

const DEFAULTS = {
  mode: "idle",
  endpoint: "tcp://127.0.0.1:0",
  heartbeatMs: 1000,
  captureTimeoutMs: 60_000,
  policy: createPolicy,
  enginesMax: 64,
} as const;

/** @throws OptionError that names the first option that breaks its rule. */
export function resolveOptions(options: ControllerOptions): ResolvedOptions {
  if (typeof options !== "object" || options === null) {
    throw new OptionError("options", `Expected options to be an object, got ${show(options)}.`);
  }
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(RULES, name)) throw unknownOption(name);
    const expected = RULES[name as keyof ControllerOptions](value);
    if (expected !== undefined) {
      throw new OptionError(name, `Expected ${name} to be ${expected}, got ${show(value)}.`);
    }
  }
  return Object.freeze({ ...DEFAULTS, ...Object.fromEntries(given) }) as ResolvedOptions;
}

/** @throws OptionError unless `mode` is one. */
export function checkMode(mode: unknown): void {
  const expected = oneOf(MODES, mode);
  if (expected === undefined) return;
  throw new OptionError("mode", `Expected mode to be ${expected}, got ${show(mode)}.`);
}

function oneOf(values: readonly string[], value: unknown): string | undefined {
  return values.some((known) => known === value) ? undefined : `one of ${values.join(", ")}`;
}

function within(value: unknown, min: number, max: number, whole: boolean): string | undefined {
  const kind = whole ? Number.isInteger(value) : Number.isFinite(value);
  if (kind && (value as number) >= min && (value as number) <= max) return undefined;
  return `${whole ? "an integer" : "a number"} from ${min} to ${max}`;
}

function curveRule(value: unknown): string | undefined {
  const expected = "an object with publicKey and secretKey, each 40 characters of Z85";
  if (typeof value !== "object" || value === null) return expected;
  const { publicKey, secretKey, allowedClients, ...rest } = value as Record<string, unknown>;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw unknownOption(unknown, "curve");
  if (!isCurveKey(publicKey) || !isCurveKey(secretKey)) return expected;
  if (allowedClients === undefined) return undefined;
  const sound = Array.isArray(allowedClients) && allowedClients.every(isCurveKey);
  return sound ? undefined : "with allowedClients, a list of keys of 40 characters of Z85";
}

/** Keys are never shown: an error message ends up in logs. */
function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 100));
  if (typeof value === "object" && value !== null) return "an object that breaks this rule";
  if (typeof value === "function") return "a function";
  return `${String(value)} (${typeof value})`;
}

function unknownOption(name: string, inside?: string): OptionError {
  const names =
    inside === undefined ? Object.keys(RULES) : ["publicKey", "secretKey", "allowedClients"];
  const near = nearMiss(name, names);
  const hint = near === undefined ? `known are ${names.join(", ")}` : `did you mean ${near}`;
  const where = inside === undefined ? "" : ` of ${inside}`;
  const mark = near === undefined ? "." : "?";
  return new OptionError(
    name,
    `Expected a known option${where}, got ${show(name)}: ${hint}${mark}`,
  );
}
