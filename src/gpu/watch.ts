/** What a watch is, whoever reads: its options, its events, and the end of it. */

import { type LazygraphError, OptionError } from "../base/errors.ts";
import { shown } from "../base/shown.ts";
import type { GpuReading } from "./device.ts";
import { canonicalUuid, checkUuid } from "./device.ts";

export interface GpuWatchOptions {
  /** The device, `GPU-…` or `MIG-…`. */
  readonly uuid: string;
  /** Milliseconds between readings, 10 to 60,000. nvidia-smi is asked once a second at most. */
  readonly intervalMs: number;
  /** Calls back when free memory falls below this; at most the device's total. */
  readonly belowBytes: number;
  /**
   * How far over `belowBytes` free memory has to rise before the fall counts as over.
   * @default 64 MiB, or what fits below the total
   */
  readonly hysteresisBytes?: number;
  /**
   * Calls back as well when free memory, at its present slope, will be used up within so many
   * seconds; 0 turns that off, 86,400 is the most.
   * @default 0
   */
  readonly withinSeconds?: number;
  /** Ends the watch. */
  readonly signal?: AbortSignal;
  /**
   * Gets what the callback threw, or rejected with. Without it the first such error of a watch
   * becomes a process warning, and the watch goes on.
   */
  readonly onCallbackError?: (error: unknown) => void;
}

/**
 * - `below`: free memory fell below the threshold.
 * - `above`: it rose again, by the hysteresis at least.
 * - `draining`: at the present slope it will be used up within `withinSeconds`.
 * - `restored`: readings work again after a `fault`.
 * - `fault`: a reading failed; the watch goes on trying, every 5 seconds or `intervalMs` if longer.
 */
export type GpuWatchEvent =
  | {
      readonly kind: "below" | "above" | "draining" | "restored";
      readonly uuid: string;
      readonly reading: GpuReading;
      /** Slope of free memory over the last 16 readings, negative while it falls. */
      readonly bytesPerSecond?: number;
      /** Free bytes over the slope; absent while free memory does not fall. */
      readonly secondsToExhaustion?: number;
      /** Earlier events that this one replaced, because the event loop was too busy for them. */
      readonly replaced: number;
    }
  | {
      readonly kind: "fault";
      readonly uuid: string;
      readonly error: LazygraphError;
      readonly replaced: number;
    };

/** A watch under way. It never keeps the process alive. */
export interface GpuWatch extends AsyncDisposable {
  /** The interval in effect. */
  readonly intervalMs: number;
  /** Settles when the watch has ended and its thread is gone. */
  readonly closed: Promise<void>;
  /** Ends the watch; no callback runs after this call. The same promise as `closed`. */
  close(): Promise<void>;
}

/** Options after checking, with their defaults. */
export interface WatchPlan {
  readonly uuid: string;
  readonly intervalMs: number;
  readonly belowBytes: number;
  readonly hysteresisBytes: number;
  readonly withinSeconds: number;
}

const INTERVAL_MS_MIN = 10;
const INTERVAL_MS_MAX = 60_000;
const WITHIN_SECONDS_MAX = 86_400;
const HYSTERESIS_BYTES = 64 * 1024 * 1024;
const OPTION_NAMES = new Set([
  "uuid",
  "intervalMs",
  "belowBytes",
  "hysteresisBytes",
  "withinSeconds",
  "signal",
  "onCallbackError",
]);

/** Checks everything that can be checked without the device. Throws OptionError. */
export function checkWatchOptions(
  options: GpuWatchOptions,
  callback: (event: GpuWatchEvent) => unknown,
): void {
  if (typeof options !== "object" || options === null) {
    throw new OptionError("options", `expected watch options as an object, got ${shown(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (!OPTION_NAMES.has(name)) {
      const known = [...OPTION_NAMES].join(", ");
      throw new OptionError(name, `expected one of ${known} as an option, got \`${name}\``);
    }
  }
  checkUuid(options.uuid);
  const { intervalMs, belowBytes, hysteresisBytes, withinSeconds, signal } = options;
  checkRange("intervalMs", intervalMs, INTERVAL_MS_MIN, INTERVAL_MS_MAX, true);
  checkRange("belowBytes", belowBytes, 0, Number.MAX_SAFE_INTEGER, true);
  if (hysteresisBytes !== undefined) {
    checkRange("hysteresisBytes", hysteresisBytes, 0, Number.MAX_SAFE_INTEGER, true);
  }
  if (withinSeconds !== undefined) {
    checkRange("withinSeconds", withinSeconds, 0, WITHIN_SECONDS_MAX, false);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError(
      "signal",
      `expected \`signal\` to be an AbortSignal, got ${shown(signal)}`,
    );
  }
  const { onCallbackError } = options;
  if (onCallbackError !== undefined && typeof onCallbackError !== "function") {
    throw new OptionError(
      "onCallbackError",
      `expected \`onCallbackError\` to be a function, got ${shown(onCallbackError)}`,
    );
  }
  if (typeof callback !== "function") {
    throw new OptionError("callback", `expected a function as callback, got ${shown(callback)}`);
  }
}

/** The rest of the checks, which need the device's total. Throws OptionError. */
export function planWatch(options: GpuWatchOptions, totalBytes: number): WatchPlan {
  const { belowBytes } = options;
  if (belowBytes > totalBytes) {
    throw new OptionError(
      "belowBytes",
      `expected \`belowBytes\` to be at most the device's ${totalBytes} bytes, got ${belowBytes}`,
    );
  }
  const hysteresisBytes =
    options.hysteresisBytes ?? Math.min(HYSTERESIS_BYTES, totalBytes - belowBytes);
  if (belowBytes + hysteresisBytes > totalBytes) {
    throw new OptionError(
      "hysteresisBytes",
      `expected \`belowBytes\` + \`hysteresisBytes\` to be at most the device's ${totalBytes} ` +
        `bytes, got ${belowBytes} + ${hysteresisBytes}, which free memory can never reach`,
    );
  }
  return {
    uuid: canonicalUuid(options.uuid),
    intervalMs: options.intervalMs,
    belowBytes,
    hysteresisBytes,
    withinSeconds: options.withinSeconds ?? 0,
  };
}

/**
 * Ties a running reader to its handle: a callback that fails harms nobody, nothing is delivered
 * after the close, and the signal closes.
 */
export function holdWatch(
  options: GpuWatchOptions,
  intervalMs: number,
  callback: (event: GpuWatchEvent) => unknown,
  start: (deliver: (event: GpuWatchEvent) => void) => { close(): void; closed: Promise<void> },
): GpuWatch {
  let open = true;
  const fail = callbackErrors(options.onCallbackError);
  const running = start((event) => {
    if (!open) return;
    try {
      const result = callback(event);
      if (result instanceof Promise) result.catch(fail);
    } catch (error) {
      fail(error);
    }
  });
  const close = (): Promise<void> => {
    if (open) {
      open = false;
      options.signal?.removeEventListener("abort", onAbort);
      running.close();
    }
    return running.closed;
  };
  const onAbort = (): void => void close();
  options.signal?.addEventListener("abort", onAbort, { once: true });
  // An abort during the first reading came before there was anything to listen with.
  if (options.signal?.aborted) void close();
  return { intervalMs, closed: running.closed, close, [Symbol.asyncDispose]: close };
}

/** A watch that was aborted before it began. */
export function closedWatch(intervalMs: number): GpuWatch {
  const closed = Promise.resolve();
  return { intervalMs, closed, close: () => closed, [Symbol.asyncDispose]: () => closed };
}

function callbackErrors(handler: ((error: unknown) => void) | undefined): (error: unknown) => void {
  let warned = false;
  return (error) => {
    let last = error;
    if (handler !== undefined) {
      try {
        handler(error);
        return;
      } catch (second) {
        last = second;
      }
    }
    if (warned) return;
    warned = true;
    const message = last instanceof Error ? (last.stack ?? last.message) : String(last);
    process.emitWarning(`a GPU watch callback failed; the watch goes on: ${message}`, {
      type: "LazygraphWarning",
      code: "LAZYGRAPH_GPU_CALLBACK",
    });
  };
}

function checkRange(name: string, value: unknown, low: number, high: number, whole: boolean): void {
  const fits =
    typeof value === "number" &&
    value >= low &&
    value <= high &&
    (whole ? Number.isSafeInteger(value) : Number.isFinite(value));
  if (fits) return;
  const noun = whole ? "a whole number" : "a number";
  throw new OptionError(
    name,
    `expected \`${name}\` to be ${noun} from ${low} to ${high}, got ${shown(value)}`,
  );
}
