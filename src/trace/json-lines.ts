/**
 * Traces of one JSON object a line: Mooncake's, those that `vllm bench serve --dataset-name
 * timed_trace` replays (Alibaba's Bailian among them), and OpenTelemetry's; or all columns of a CSV
 * trace in one object.
 */

import { messageOf } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { columnRows, isColumns, openRows } from "./csv.ts";
import type { TimeUnit, TraceEntries, TraceEntry } from "./entry.ts";
import { quoted, traceError } from "./error.ts";
import { type Line, linesOf } from "./lines.ts";
import { isSpanBatch, spanEntries } from "./otlp.ts";
import { numberOf, type Place, secondsOf, tokensOf } from "./values.ts";

type JsonObject = Readonly<Record<string, unknown>>;

/** Tokens of a block: Mooncake's 512, and 16 in Bailian's and by vLLM's default. */
const MOONCAKE_BLOCK_TOKENS = 512;
const TIMED_BLOCK_TOKENS = 16;
/** Rows that are held until one tells; a trace of nothing else has no prefix that matters. */
const UNTOLD_ROWS_MAX = 1000;
const EXPECTED =
  'an object with "timestamp", "input_length" and "output_length", OpenTelemetry\'s ' +
  '"resourceSpans", or a CSV\'s columns as lists';

interface Parsed {
  readonly line: number;
  /** Undefined of a blank line. */
  readonly object: JsonObject | undefined;
}

/**
 * @param unit what `timestamp` counts; by default what the format's own files count
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE`, at once for the first object, while it is read for
 *   the rest
 */
export async function openJsonLines(
  file: string,
  bytes: AsyncIterable<Uint8Array>,
  unit: TimeUnit | undefined,
): Promise<TraceEntries> {
  const objects = objectsOf(file, linesOf(file, bytes));
  const before: Parsed[] = [];
  const first = await firstObject(before, objects);
  if (first?.object === undefined) throw traceError(file, 1, EXPECTED, "an empty file");
  const { line, object } = first;
  if (isSpanBatch(object)) {
    return { format: "otlp", ordered: false, entries: spanRows(file, chained(before, objects)) };
  }
  if (isColumns(object)) {
    for await (const { line: next, object: more } of objects) {
      if (more !== undefined) throw traceError(file, next, "nothing after the columns", "more");
    }
    return openRows(file, columnRows(file, object));
  }
  if (!("timestamp" in object && "input_length" in object && "output_length" in object)) {
    throw traceError(file, line, EXPECTED, quoted(Object.keys(object).join(", ")));
  }
  const isTimed = await isTimedTrace(object, before, objects);
  return requestEntries(file, isTimed, unit, chained(before, objects));
}

/** What is read goes into `before`. By hand: leaving a `for await` would end the generator. */
async function firstObject(
  before: Parsed[],
  objects: AsyncGenerator<Parsed>,
): Promise<Parsed | undefined> {
  for (let next = await objects.next(); next.done !== true; next = await objects.next()) {
    before.push(next.value);
    if (next.value.object !== undefined) return next.value;
  }
  return undefined;
}

function requestEntries(
  file: string,
  isTimed: boolean,
  unit: TimeUnit | undefined,
  objects: AsyncIterable<Parsed>,
): TraceEntries {
  const perSecond = (unit ?? (isTimed ? "s" : "ms")) === "s" ? 1 : 1000;
  return {
    format: isTimed ? "timed-trace" : "mooncake",
    blockTokens: isTimed ? TIMED_BLOCK_TOKENS : MOONCAKE_BLOCK_TOKENS,
    ordered: true,
    entries: requestRows(file, objects, perSecond),
  };
}

/**
 * Two formats share their names: what differs is the size of a block, and with it the unit. Short
 * prompts have one block of either size, so that a later row may be the first to tell.
 */
async function isTimedTrace(
  first: JsonObject,
  before: Parsed[],
  objects: AsyncGenerator<Parsed>,
): Promise<boolean> {
  let object: JsonObject | undefined = first;
  for (let rows = 1; object !== undefined; rows++) {
    const told = tellsTimedTrace(object);
    if (told !== undefined) return told;
    if (rows >= UNTOLD_ROWS_MAX) break;
    object = (await firstObject(before, objects))?.object;
  }
  return false;
}

function tellsTimedTrace(row: JsonObject): boolean | undefined {
  if ("chat_id" in row) return true;
  const ids = row["hash_ids"];
  const length = numberOf(row["input_length"]);
  if (!Array.isArray(ids) || ids.length === 0 || !(length > 0)) return undefined;
  const mooncake = Math.abs(ids.length - Math.ceil(length / MOONCAKE_BLOCK_TOKENS));
  const timed = Math.abs(ids.length - Math.ceil(length / TIMED_BLOCK_TOKENS));
  return timed === mooncake ? undefined : timed < mooncake;
}

async function* objectsOf(file: string, lines: AsyncIterable<Line>): AsyncGenerator<Parsed> {
  for await (const { number: line, text } of lines) {
    if (text.trim() === "") {
      yield { line, object: undefined };
      continue;
    }
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      // Of a line of megabytes only this says where: Python, for one, writes NaN.
      const got = `${quoted(text)} (${printable(messageOf(error))})`;
      throw traceError(file, line, "one JSON object a line", got, error);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw traceError(file, line, "one JSON object a line", quoted(text));
    }
    yield { line, object: value as JsonObject };
  }
}

async function* chained(
  before: readonly Parsed[],
  rest: AsyncIterable<Parsed>,
): AsyncGenerator<Parsed> {
  yield* before;
  yield* rest;
}

async function* requestRows(
  file: string,
  objects: AsyncIterable<Parsed>,
  perSecond: number,
): AsyncGenerator<TraceEntry> {
  for await (const { line, object } of objects) {
    if (object === undefined) {
      yield { line, skip: "blank line" };
      continue;
    }
    const place: Place = { file, line };
    const hashIds = hashIdsOf(place, object["hash_ids"]);
    const row = {
      seconds: secondsOf(place, object["timestamp"], perSecond),
      promptTokens: tokensOf(place, object["input_length"]),
      outputTokens: tokensOf(place, object["output_length"]),
      ...(hashIds === undefined ? {} : { hashIds }),
    };
    const isFailed = row.promptTokens === 0 || row.outputTokens === 0;
    yield isFailed ? { line, skip: "failed request" } : { line, row };
  }
}

function hashIdsOf({ file, line }: Place, value: unknown): readonly number[] | undefined {
  if (value === undefined || value === null) return undefined;
  if (Array.isArray(value) && value.every((id) => Number.isInteger(id))) return value;
  const expected = '"hash_ids" to be a list of whole numbers';
  throw traceError(file, line, expected, quoted(JSON.stringify(value)));
}

async function* spanRows(file: string, objects: AsyncIterable<Parsed>): AsyncGenerator<TraceEntry> {
  let origin: bigint | undefined;
  for await (const { line, object } of objects) {
    if (object === undefined) {
      yield { line, skip: "blank line" };
      continue;
    }
    if (!isSpanBatch(object)) {
      const expected = 'an object with "resourceSpans"';
      throw traceError(file, line, expected, quoted(Object.keys(object).join(", ")));
    }
    for (const entry of spanEntries({ file, line }, object)) {
      if ("skip" in entry) {
        yield { line, skip: entry.skip };
        continue;
      }
      const { startNanos, ...lengths } = entry;
      // Nanoseconds since 1970 are beyond what a double keeps; since the first span they aren't.
      origin ??= startNanos;
      yield { line, row: { ...lengths, seconds: Number(startNanos - origin) / 1e9 } };
    }
  }
}
