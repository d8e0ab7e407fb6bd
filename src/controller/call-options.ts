/** Arguments of a controller's methods: their types and rules. */

import { checkOptions, flagRule, numberRule, oneOf, unknownOption } from "../base/check-options.ts";
import { OptionError } from "../base/errors.ts";
import { shown } from "../base/shown.ts";
import type { SleepOptions, WakeOptions } from "../engine/sleep.ts";
import { LIMITS, MODES, PHASES } from "../wire/protocol.ts";
import type { WaitOptions } from "./waiters.ts";

/** Requests that a gateway expects. */
export interface Announcement {
  /** Seconds until they arrive, 0 to 3600. */
  readonly inSeconds: number;
  /** How many, 1 to 1,000,000. @default 1 */
  readonly requests?: number;
}

/** @throws OptionError unless it is a text: which engine is there is the caller's to look up. */
export function checkEngine(engine: unknown): void {
  check("engine", engine, engineRule(engine));
}

/** @throws OptionError unless `mode` is one. */
export function checkMode(mode: unknown): void {
  check("mode", mode, oneOf(MODES, mode));
}

/** @throws OptionError unless an engine would take it. */
export function checkReason(reason: unknown): void {
  const sound = typeof reason === "string" && reason.length <= LIMITS.textChars;
  check("reason", reason, sound ? undefined : `a text of at most ${LIMITS.textChars} characters`);
}

/** @throws OptionError unless `announcement` is one. */
export function checkAnnouncement(announcement: unknown): void {
  const expected = "an object such as { inSeconds: 2, requests: 8 }";
  check("announcement", announcement, isObject(announcement) ? undefined : expected);
  const { inSeconds, requests = 1, ...rest } = announcement as Record<string, unknown>;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) {
    throw unknownOption(unknown, ["inSeconds", "requests"], "announcement");
  }
  check("inSeconds", inSeconds, numberRule(0, 3600)(inSeconds));
  check("requests", requests, numberRule(1, 1_000_000, "whole")(requests));
}

const SLEEP_RULES: {
  readonly [K in keyof SleepOptions]-?: (value: unknown) => string | undefined;
} = {
  level: (value) => (value === 1 || value === 2 ? undefined : "1 or 2"),
  dropGraphs: flagRule,
};

const WAKE_RULES: {
  readonly [K in keyof WakeOptions]-?: (value: unknown) => string | undefined;
} = { reloadWeights: flagRule };

/** @throws OptionError unless these are options of a sleep */
export function checkSleep(options: unknown): void {
  checkOptions(options, SLEEP_RULES);
}

/** @throws OptionError unless these are options of a wake */
export function checkWake(options: unknown): void {
  checkOptions(options, WAKE_RULES);
}

const WAIT_RULES: {
  readonly [K in keyof WaitOptions]-?: (value: unknown) => string | undefined;
} = {
  engine: engineRule,
  phase: (value) => oneOf(PHASES, value),
  settled: flagRule,
  signal: (value) => (value instanceof AbortSignal ? undefined : "an AbortSignal"),
};

/**
 * What nothing can ever fit would wait for ever, and what is misspelt would fit anything.
 *
 * @throws OptionError unless these are options of a wait
 */
export function checkWait(options: unknown): void {
  checkOptions(options, WAIT_RULES);
}

function engineRule(value: unknown): string | undefined {
  const sound = typeof value === "string" && value !== "";
  return sound ? undefined : "the name of an engine";
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function check(name: string, value: unknown, expected: string | undefined): void {
  if (expected === undefined) return;
  throw new OptionError(name, `Expected ${name} to be ${expected}, got ${shown(value)}.`);
}
