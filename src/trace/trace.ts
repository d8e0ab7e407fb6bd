/**
 * Request traces: when requests arrived, how long their prompts and answers were.
 *
 * Read as a stream, so that a trace of any length needs the same memory; only spans, not written in
 * order of arrival, and columns, one line of bounded length, are held. The first request arrives at
 * second 0: it makes a scaled-to-zero engine start. traces/README.md lists the formats.
 */

import { checkOption, textRule } from "../base/check-options.ts";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { object } from "../base/schema.ts";
import { CompressionError, type CompressionFault } from "./compression-error.ts";
import { csvRows, expectedHeader, openRows } from "./csv.ts";
import {
  TIME_UNITS,
  type TimeUnit,
  type TraceEntries,
  type TraceEntry,
  type TraceFormat,
  type TraceRow,
  type TraceSkip,
} from "./entry.ts";
import { traceError } from "./error.ts";
import { openJsonLines } from "./json-lines.ts";
import { SkipCounts } from "./skips.ts";
import { openTraceBytes } from "./source.ts";

export type { TimeUnit, TraceFormat, TraceSkip } from "./entry.ts";

export interface TraceRequest {
  /** Seconds after the first request of the trace, divided by `speed`. */
  readonly atSeconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /**
   * One id for each block of the prompt, where the trace tells: prompts whose lists begin alike
   * begin alike.
   */
  readonly hashIds?: readonly number[];
}

/** What a file turned out to be. */
export interface TraceAbout {
  readonly format: TraceFormat;
  /** Tokens of one block of `hashIds`, in formats that have them. */
  readonly blockTokens?: number;
}

export interface TraceOptions {
  /** Divides all times: 2 replays twice as fast. @default 1 */
  readonly speed?: number;
  /** Arrivals after this many seconds are left out; applied after `speed`. @default none */
  readonly seconds?: number;
  /** At most this many requests. @default none */
  readonly requests?: number;
  /** Refuses blank lines and failed requests, otherwise skipped. @default false */
  readonly strict?: boolean;
  /** Holds all requests and sorts them by arrival instead of refusing a trace. @default false */
  readonly sort?: boolean;
  /**
   * What `timestamp` counts in JSON lines.
   * @default what the format's own files count: Mooncake's ms, Bailian's and vLLM's s
   */
  readonly timeUnit?: TimeUnit;
  /** Told once, before the first request. */
  readonly onFormat?: (about: TraceAbout) => void;
  /** Told of every line or span left out. */
  readonly onSkip?: (skip: TraceSkip, line: number) => void;
}

/** More would not fit into memory. */
const SORTED_MAX = 5_000_000;
/** Ten years. A time of 1970 or 9999 stands for none, and a replay would wait for it. */
const SPAN_SECONDS_MAX = 10 * 366 * 24 * 3600;

/**
 * Reads a trace request by request: a file's, or a shipped one by its name without `.json.xz`.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` with file, line and expectation: a file that can't
 * be read, no known format, a hole, unsorted or negative times, compressed bytes cut short.
 * @throws OptionError for an option out of range.
 */
export async function* readTrace(
  file: string,
  options: TraceOptions = {},
): AsyncGenerator<TraceRequest, void, void> {
  checkOption("file", file, textRule("the path of a trace, or the name of a shipped one"));
  checkOption("options", options, object);
  const speed = positive("speed", options.speed ?? 1);
  const secondsMax = positive("seconds", options.seconds ?? Number.POSITIVE_INFINITY);
  const requestsMax = positive("requests", options.requests ?? Number.POSITIVE_INFINITY);
  checkTimeUnit(options.timeUnit);
  const place = { line: 1 };
  const skipped = new SkipCounts();
  try {
    const { entries, ordered, ...about } = await openEntries(file, options.timeUnit);
    options.onFormat?.(about);
    const onSkip: TraceOptions["onSkip"] = (skip, line) => {
      skipped.add(skip);
      options.onSkip?.(skip, line);
    };
    const requests = rowsOf(file, entries, { ...options, onSkip }, place);
    const inOrder = ordered && options.sort !== true ? requests : sorted(file, requests);
    let count = 0;
    for await (const request of fromZero(file, inOrder, place)) {
      count++;
      const atSeconds = request.atSeconds / speed;
      if (atSeconds > secondsMax) return;
      yield { ...request, atSeconds };
      if (count >= requestsMax) return;
    }
    if (count === 0) {
      const got = ["the end of file", skipped.text()].filter((part) => part !== "").join(" after ");
      throw traceError(file, place.line + 1, "at least one request", got);
    }
  } catch (error) {
    throw asTraceError(error, file, place.line);
  }
}

/** The last line read. */
interface ReadPlace {
  line: number;
}

async function openEntries(file: string, unit: TimeUnit | undefined): Promise<TraceEntries> {
  const bytes = await openTraceBytes(file);
  const first = await bytes.next();
  if (first.done === true) throw traceError(file, 1, expectedHeader(), "an empty file");
  const all = chained(first.value, bytes);
  switch (firstCharacter(first.value)) {
    case "{":
      return openJsonLines(file, all, unit);
    case "[":
      throw traceError(
        file,
        1,
        "one JSON object a line",
        "a list (`jq -c '.[]'` makes lines of it)",
      );
    default:
      return openRows(file, csvRows(file, all));
  }
}

async function* chained(
  first: Uint8Array,
  rest: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

/** After a byte order mark and blanks. */
function firstCharacter(bytes: Uint8Array): string | undefined {
  return /^\uFEFF?\s*(\S)/.exec(Buffer.from(bytes.subarray(0, 256)).toString("utf8"))?.[1];
}

async function* rowsOf(
  file: string,
  entries: AsyncIterable<TraceEntry>,
  { strict = false, onSkip }: TraceOptions,
  place: ReadPlace,
): AsyncGenerator<TraceRow> {
  for await (const entry of entries) {
    place.line = entry.line;
    if ("row" in entry) {
      yield entry.row;
      continue;
    }
    if (strict && entry.skip !== "other span") {
      throw traceError(file, entry.line, "a request that was answered", `a ${entry.skip}`);
    }
    onSkip?.(entry.skip, entry.line);
  }
}

async function* sorted(file: string, rows: AsyncIterable<TraceRow>): AsyncGenerator<TraceRow> {
  const held: TraceRow[] = [];
  for await (const row of rows) {
    held.push(row);
    if (held.length <= SORTED_MAX) continue;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_TRACE",
      `Expected ${file} to have at most ${SORTED_MAX} requests to sort, got more: divide it.`,
    );
  }
  yield* held.sort((one, other) => one.seconds - other.seconds);
}

/** Counted from the first request; refuses times that fall, and those far from the first. */
async function* fromZero(
  file: string,
  rows: AsyncIterable<TraceRow>,
  place: ReadPlace,
): AsyncGenerator<TraceRequest> {
  let first: number | undefined;
  let last = Number.NEGATIVE_INFINITY;
  for await (const { seconds, ...request } of rows) {
    first ??= seconds;
    if (seconds < last) {
      const expected = "times that never fall (`lazygraph trace convert --sort` orders them)";
      throw traceError(
        file,
        place.line,
        expected,
        `one ${Number((last - seconds).toPrecision(6))} s before the last`,
      );
    }
    last = seconds;
    const atSeconds = seconds - first;
    if (atSeconds > SPAN_SECONDS_MAX) {
      const expected = "times of at most ten years after the first request's";
      throw traceError(file, place.line, expected, `one ${Math.round(atSeconds)} s after it`);
    }
    yield { atSeconds, ...request };
  }
}

const FAULTS: Readonly<Record<CompressionFault, string>> = {
  "cut short": "is cut short after it",
  damaged: "is damaged after it",
  checksum: "is not what was written, by its checksum: copy it anew",
};

function asTraceError(error: unknown, file: string, line: number): unknown {
  if (!(error instanceof CompressionError)) return error;
  const { compression, fault } = error;
  const got = `${compression} that ${FAULTS[fault]}`;
  return traceError(file, line, `a whole ${compression} file up to its end`, got, error.cause);
}

function checkTimeUnit(unit: TimeUnit | undefined): void {
  if (unit === undefined || TIME_UNITS.includes(unit)) return;
  throw new OptionError("timeUnit", `Expected timeUnit to be ms or s, got ${String(unit)}.`);
}

function positive(option: string, value: number): number {
  if (value > 0) return value;
  throw new OptionError(option, `Expected ${option} to be a number above 0, got ${value}.`);
}
