/**
 * What `startSimulatedEngine` takes and tells, and the rules of its options: a mistake starts no
 * process.
 */

import {
  checkOptions,
  functionRule,
  numberRule,
  type OptionRule,
  textRule,
} from "../../base/check-options.ts";
import { loadProfile } from "../../profile/load.ts";
import { endpointsOf } from "../../wire/endpoint.ts";
import { MODES, type Mode } from "../../wire/protocol.ts";
import { isCurveKey } from "../../wire/z85.ts";
import type { EngineCurve } from "./link.ts";
import type { LiveEvent } from "./live.ts";

export interface StartedEvent {
  readonly type: "started";
  readonly pid: number;
  readonly engine: string;
  readonly session: string;
}

/** Its OpenAI side takes connections; requests are answered 503 until `ready`. */
export interface ListeningEvent {
  readonly type: "listening";
  readonly url: string;
  readonly model: string;
}

export type SimulatedEngineEvent = StartedEvent | ListeningEvent | LiveEvent;

export interface SimulatedEngineOptions {
  /**
   * Of the controller, or of up to eight with commas between them, in order; without one the engine
   * goes by its mode's defaults.
   */
  readonly endpoint?: string;
  /** Logical name. @default "simulated" */
  readonly engine?: string;
  /** What the engine starts with; a controller's `welcome` may change it. @default "idle" */
  readonly mode?: Mode;
  /** Name of a shipped cost profile, or the path of one. @default "llama-3.1-8b-h200" */
  readonly profile?: string;
  /** Simulated seconds per real second. @default 1 */
  readonly speed?: number;
  readonly trace?: {
    readonly file: string;
    /** Divides the trace's times. @default 1 */
    readonly speed?: number;
    /** Cuts later arrivals. */
    readonly seconds?: number;
    /** At most this many. @default 100000 */
    readonly requests?: number;
  };
  /** How long to wait for the controller before the first capture. @default 250 */
  readonly handshakeMs?: number;
  /** Relative standard deviation of all times. @default 0 */
  readonly jitter?: number;
  /** Of the jitter. @default 1 */
  readonly seed?: number;
  /** `HOST:PORT` for an OpenAI-compatible side; port 0: any free one. @default none */
  readonly http?: string;
  /** What the OpenAI-compatible side calls its model. @default the profile's */
  readonly model?: string;
  /** Capture sizes, as vLLM's `cudagraph_capture_sizes`. @default the profile's */
  readonly sizes?: readonly number[];
  readonly curve?: EngineCurve;
  /** Free bytes of each of its GPUs before the first capture. @default the profile's */
  readonly freeBytes?: number;
  /** Its GPUs are `UUID-0`, `UUID-1` and so on, one a rank. @default made up */
  readonly gpuUuid?: string;
  /** Kills the process when aborted. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: SimulatedEngineEvent) => void;
}

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
    endpointsOf("endpoint", value);
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
