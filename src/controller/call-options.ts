/** Arguments of a controller's methods, and their rules. */

import * as v from "valibot";
import {
  checkOption,
  checkOptions,
  type OptionRules,
  rule,
  signal,
} from "../base/check-options.ts";
import { isObject } from "../base/is-object.ts";
import { flag, number, oneOf, type Schema, whole } from "../base/schema.ts";
import type { SleepOptions, WakeOptions } from "../engine/sleep.ts";
import { isId } from "../wire/check.ts";
import { LIMITS, MODES, PHASES } from "../wire/protocol.ts";
import type { WaitOptions } from "./waiters.ts";

/** Requests to come. */
export interface Announcement {
  /** Seconds until they arrive, 0 to 3600. */
  readonly inSeconds: number;
  /** How many, 1 to 1,000,000. @default 1 */
  readonly requests?: number;
}

const REASON = `a text of at most ${LIMITS.textChars} characters`;

export const engineName: Schema<unknown> = rule("the name of an engine, 1 to 128 characters", isId);
const mode = oneOf(MODES);
const reason = v.pipe(v.string(REASON), v.maxLength(LIMITS.textChars, REASON));
const announced = rule("an object such as { inSeconds: 2, requests: 8 }", isObject);
const announcementRules: OptionRules<Announcement> = {
  inSeconds: number(0, 3600),
  requests: whole(1, 1_000_000),
};
const sleepRules: OptionRules<SleepOptions> = {
  level: v.picklist([1, 2], "1 or 2"),
  dropGraphs: flag,
};
const wakeRules: OptionRules<WakeOptions> = { reloadWeights: flag };
const waitRules: OptionRules<WaitOptions> = {
  engine: engineName,
  phase: oneOf(PHASES),
  settled: flag,
  signal,
};

/** @throws OptionError unless it can be an engine's name. */
export function checkEngine(engine: unknown): void {
  checkOption("engine", engine, engineName);
}

/** @throws OptionError unless `mode` is one. */
export function checkMode(given: unknown): void {
  checkOption("mode", given, mode);
}

/** @throws OptionError unless an engine would take it. */
export function checkReason(given: unknown): void {
  checkOption("reason", given, reason);
}

/** @throws OptionError unless `announcement` is one. */
export function checkAnnouncement(announcement: unknown): void {
  checkOption("announcement", announcement, announced);
  const { inSeconds, requests = 1, ...rest } = announcement as Record<string, unknown>;
  checkOptions(rest, announcementRules, "announcement");
  checkOption("inSeconds", inSeconds, announcementRules.inSeconds);
  checkOption("requests", requests, announcementRules.requests);
}

/** @throws OptionError unless these are options of a sleep */
export function checkSleep(options: unknown): void {
  checkOptions(options, sleepRules);
}

/** @throws OptionError unless these are options of a wake */
export function checkWake(options: unknown): void {
  checkOptions(options, wakeRules);
}

/**
 * What nothing can ever fit would wait for ever, and what is misspelt would fit anything.
 *
 * @throws OptionError unless these are options of a wait
 */
export function checkWait(options: unknown): void {
  checkOptions(options, waitRules);
}
