/** Numbers, times and lists as traces write them. */

import { shownWhole } from "../base/shown.ts";
import { quoted, traceError } from "./error.ts";

const TOKENS_MAX = 1 << 20;
/** Seconds since 1970 fit; far beyond, the fractions of a second get lost. */
const SECONDS_MAX = 1e11;
/** `Number` would take `0x10` as well. */
const DECIMAL = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i;

/** Where a value stands. */
export interface Place {
  readonly file: string;
  readonly line: number;
}

/** A value of a CSV cell or of JSON as a number; NaN for what is none. */
export function numberOf(value: unknown): number {
  if (typeof value === "number") return value;
  return typeof value === "string" && DECIMAL.test(value) ? Number(value) : Number.NaN;
}

/**
 * Tokens of a prompt or an answer. 0 is for the caller to judge: it is how failed requests are
 * written down.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for what is no whole number up to 1,048,576
 */
export function tokensOf({ file, line }: Place, value: unknown): number {
  const tokens = numberOf(value);
  if (Number.isInteger(tokens) && tokens >= 0 && tokens <= TOKENS_MAX) return tokens;
  throw traceError(file, line, `tokens from 1 to ${TOKENS_MAX}`, cellText(value));
}

/** @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for what is no number from 0 up, in any unit */
export function secondsOf({ file, line }: Place, value: unknown, perSecond = 1): number {
  const seconds = numberOf(value) / perSecond;
  if (seconds >= 0 && seconds <= SECONDS_MAX) return seconds;
  const unit = perSecond === 1 ? "seconds" : "milliseconds";
  const expected =
    seconds > SECONDS_MAX ? `at most ${SECONDS_MAX} seconds` : `a number of ${unit} from 0 up`;
  throw traceError(file, line, expected, cellText(value));
}

function cellText(value: unknown): string {
  return quoted(typeof value === "string" ? value : shownWhole(value));
}

const TIMESTAMP =
  /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(Z|[+-]\d\d(?::?\d\d)?)?$/;

/**
 * Seconds since 1970 of a date and time; without a zone it is UTC. By hand, because `Date` cuts the
 * seven digits of these traces to milliseconds.
 */
export function timestampSeconds(cell: string): number | undefined {
  const match = TIMESTAMP.exec(cell.trim());
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  // Date.UTC rolls a 31st of February and a 13th month over, and takes years below 100 for 1900 on.
  const isDate = date.getUTCMonth() === month - 1 && date.getUTCFullYear() === year;
  if (!isDate || hour > 23 || minute > 59 || second > 59) return undefined;
  const offset = offsetSeconds(match[8]);
  return offset === undefined ? undefined : date.getTime() / 1000 - offset + Number(match[7] ?? 0);
}

/** Of `+02:00`, `-0330` or `+02`; zones reach from −12 to +14 hours. */
function offsetSeconds(zone = "Z"): number | undefined {
  if (zone === "Z") return 0;
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(3).replace(":", "") || 0);
  if (hours > 14 || minutes > 59) return undefined;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 3600 + minutes * 60);
}

/** @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for what is there and no list */
export function listOf({ file, line }: Place, holder: unknown, name: string): readonly unknown[] {
  const list = field(holder, name) ?? [];
  if (Array.isArray(list)) return list;
  throw traceError(file, line, `"${name}" to be a list`, quoted(JSON.stringify(list)));
}

/** Undefined for what has no fields. */
export function field(holder: unknown, name: string): unknown {
  if (typeof holder !== "object" || holder === null) return undefined;
  return (holder as Record<string, unknown>)[name];
}
