/**
 * Traces of one JSON object a line: Mooncake's, those that `vllm bench serve --dataset-name
 * timed_trace` replays (Alibaba's Bailian among them), and OpenTelemetry's.
 */

import type { TimeUnit, TraceEntries, TraceEntry } from "./entry.ts";
import { quoted, traceError } from "./error.ts";
import { type Line, linesOf } from "./lines.ts";
import { isSpanBatch, spanEntries } from "./otlp.ts";
import { numberOf, type Place, secondsOf, tokensOf } from "./values.ts";

type JsonObject = Readonly<Record<string, unknown>>;

/** Tokens of a block: Mooncake's 512, and 16 in Bailian's and by vLLM's default. */
const MOONCAKE_BLOCK_TOKENS = 512;
const TIMED_BLOCK_TOKENS = 16;
const EXPECTED =
  'an object with "timestamp", "input_length" and "output_length", or OpenTelemetry\'s ' +
  '"resourceSpans"';

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
  // By hand: leaving a `for await` would end the generator.
  for (let next = await objects.next(); next.done !== true; next = await objects.next()) {
    const { line, object } = next.value;
    before.push(next.value);
    if (object === undefined) continue;
    return formatOf(file, line, object, unit, chained(before, objects));
  }
  throw traceError(file, 1, EXPECTED, "an empty file");
}

function formatOf(
  file: string,
  line: number,
  first: JsonObject,
  unit: TimeUnit | undefined,
  objects: AsyncIterable<Parsed>,
): TraceEntries {
  if (isSpanBatch(first)) {
    return { format: "otlp", ordered: false, entries: spanRows(file, objects) };
  }
  if (!("timestamp" in first && "input_length" in first && "output_length" in first)) {
    throw traceError(file, line, EXPECTED, quoted(Object.keys(first).join(", ")));
  }
  const isTimed = isTimedTrace(first);
  const perSecond = (unit ?? (isTimed ? "s" : "ms")) === "s" ? 1 : 1000;
  return {
    format: isTimed ? "timed-trace" : "mooncake",
    blockTokens: isTimed ? TIMED_BLOCK_TOKENS : MOONCAKE_BLOCK_TOKENS,
    ordered: true,
    entries: requestRows(file, objects, perSecond),
  };
}

/** Two formats share their names: what differs is the size of a block, and with it the unit. */
function isTimedTrace(first: JsonObject): boolean {
  if ("chat_id" in first) return true;
  const ids = first["hash_ids"];
  const length = numberOf(first["input_length"]);
  if (!Array.isArray(ids) || ids.length === 0) return false;
  const mooncake = Math.ceil(length / MOONCAKE_BLOCK_TOKENS);
  const timed = Math.ceil(length / TIMED_BLOCK_TOKENS);
  return Math.abs(ids.length - timed) < Math.abs(ids.length - mooncake);
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
      throw traceError(file, line, "one JSON object a line", quoted(text), error);
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
