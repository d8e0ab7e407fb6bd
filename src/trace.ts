/**
 * Request traces: when requests arrived, how long their prompts and answers were.
 *
 * CSV, optionally gzipped, read as a stream, so that a trace of any length needs the same memory.
 * The first request arrives at second 0: it is the one that makes a scaled-to-zero engine start.
 */

import { constants, createReadStream, existsSync } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { CsvError, type Parser, parse } from "csv-parse";
import { codeOf, LazygraphError, OptionError } from "./errors.ts";

export interface TraceRequest {
  /** Seconds after the first request of the trace, divided by `speed`. */
  readonly atSeconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export interface TraceOptions {
  /** Divides all times: 2 replays twice as fast. @default 1 */
  readonly speed?: number;
  /** Arrivals after this many seconds are left out; applied after `speed`. @default none */
  readonly seconds?: number;
  /** At most this many requests. @default none */
  readonly requests?: number;
}

const TRACES = new URL("../traces/", import.meta.url);
const TOKENS_MAX = 1 << 20;
/** Seconds since 1970 fit; far beyond, the fractions of a second get lost. */
const SECONDS_MAX = 1e11;
/** `Number` would take `0x10` as well. */
const DECIMAL = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i;
const RECORD_CHARS_MAX = 4096;

type Clock = "timestamp" | "seconds";
const HEADERS: Readonly<Record<string, Clock>> = {
  "TIMESTAMP,ContextTokens,GeneratedTokens": "timestamp",
  "seconds,prompt_tokens,output_tokens": "seconds",
};

/**
 * Reads a trace request by request: that of a file, or one that is shipped, by its name without
 * `.csv.gz`.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` with file, line and expectation: a file that can't
 * be read, a wrong header, a hole, unsorted or negative times, zero tokens, gzip cut short.
 * @throws OptionError for a speed or a number of seconds or requests out of range.
 */
export async function* readTrace(
  file: string,
  options: TraceOptions = {},
): AsyncGenerator<TraceRequest, void, void> {
  const speed = positive("speed", options.speed ?? 1);
  const secondsMax = positive("seconds", options.seconds ?? Number.POSITIVE_INFINITY);
  const requestsMax = positive("requests", options.requests ?? Number.POSITIVE_INFINITY);
  const parser = await openRows(file);
  let reader: RowReader | undefined;
  let line = 1;
  try {
    for await (const row of parser as AsyncIterable<Row>) {
      line = row.info.lines;
      if (reader === undefined) {
        reader = new RowReader(file, clockOf(file, row.record));
        continue;
      }
      const request = reader.read(row.record, line);
      const atSeconds = request.atSeconds / speed;
      if (atSeconds > secondsMax) return;
      yield { ...request, atSeconds };
      if (reader.requests >= requestsMax) return;
    }
  } catch (error) {
    throw asTraceError(error, file, line);
  }
  if (reader === undefined) throw traceError(file, 1, expectedHeader(), "an empty file");
  if (reader.requests === 0) throw traceError(file, 2, "at least one request", "the end of file");
}

interface Row {
  readonly record: readonly string[];
  readonly info: { readonly lines: number };
}

async function openRows(file: string): Promise<Parser> {
  const magic = new Uint8Array(2);
  const path = pathOf(file);
  try {
    // A pipe is gone once it has been read, and each policy reads anew; nobody waits for one.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const about = await handle.stat();
      if (!about.isFile() && !about.isDirectory()) {
        throw new LazygraphError(
          "ERR_LAZYGRAPH_TRACE",
          `Expected ${file} to be a trace file, got a pipe or a device of that name.`,
        );
      }
      await handle.read(magic, 0, 2, 0);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof LazygraphError) throw error;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_TRACE",
      `Expected ${file} to be a readable trace file, got ${codeOf(error) ?? String(error)}.`,
      { cause: error },
    );
  }
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    max_record_size: RECORD_CHARS_MAX,
  });
  // The errors of all stages reach the reader through the parser, which pipeline destroys.
  const done = (): void => {};
  const source = createReadStream(path);
  if (magic[0] === 0x1f && magic[1] === 0x8b) pipeline(source, createGunzip(), parser, done);
  else pipeline(source, parser, done);
  return parser;
}

/** Names are those of files in `traces/`; what is none of them is a path. */
function pathOf(nameOrPath: string): string | URL {
  if (!/^[a-z0-9-]+$/.test(nameOrPath)) return nameOrPath;
  const shipped = new URL(`${nameOrPath}.csv.gz`, TRACES);
  return existsSync(shipped) ? shipped : nameOrPath;
}

function clockOf(file: string, header: readonly string[]): Clock {
  const text = header.map((name) => name.trim()).join(",");
  const clock = Object.hasOwn(HEADERS, text) ? HEADERS[text] : undefined;
  if (clock === undefined) throw traceError(file, 1, expectedHeader(), quote(text));
  return clock;
}

function expectedHeader(): string {
  return `the header ${Object.keys(HEADERS).join(" or ")}`;
}

/** Checks one row after the other; keeps what a row must be compared with. */
class RowReader {
  requests = 0;
  readonly #file: string;
  readonly #clock: Clock;
  #firstSeconds = 0;
  #lastSeconds = Number.NEGATIVE_INFINITY;

  constructor(file: string, clock: Clock) {
    this.#file = file;
    this.#clock = clock;
  }

  read(row: readonly string[], line: number): TraceRequest {
    if (row.length !== 3 || row.some((cell) => cell.trim() === "")) {
      throw traceError(this.#file, line, "three values and no hole", quote(row.join(",")));
    }
    const seconds = this.#seconds(row[0] ?? "", line);
    if (seconds < this.#lastSeconds) {
      throw traceError(this.#file, line, "times that never fall", quote(row[0] ?? ""));
    }
    if (this.requests === 0) this.#firstSeconds = seconds;
    this.#lastSeconds = seconds;
    this.requests++;
    return {
      atSeconds: seconds - this.#firstSeconds,
      promptTokens: this.#tokens(row[1] ?? "", line),
      outputTokens: this.#tokens(row[2] ?? "", line),
    };
  }

  #seconds(cell: string, line: number): number {
    if (this.#clock === "timestamp") {
      const seconds = timestampSeconds(cell);
      if (seconds !== undefined) return seconds;
      throw traceError(this.#file, line, "a time like 2023-11-16 18:15:46.68", quote(cell));
    }
    const seconds = numberOf(cell);
    if (seconds >= 0 && seconds <= SECONDS_MAX) return seconds;
    const expected =
      seconds > SECONDS_MAX ? `at most ${SECONDS_MAX} seconds` : "a number of seconds from 0 up";
    throw traceError(this.#file, line, expected, quote(cell));
  }

  #tokens(cell: string, line: number): number {
    const tokens = numberOf(cell);
    if (Number.isInteger(tokens) && tokens >= 1 && tokens <= TOKENS_MAX) return tokens;
    throw traceError(this.#file, line, `tokens from 1 to ${TOKENS_MAX}`, quote(cell));
  }
}

function numberOf(cell: string): number {
  return DECIMAL.test(cell) ? Number(cell) : Number.NaN;
}

const TIMESTAMP = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z|[+-]00:?00)?$/;

/** By hand, because `Date` cuts the seven digits of these traces to milliseconds. */
function timestampSeconds(cell: string): number | undefined {
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
  // Date.UTC rolls a 31st of February over instead of refusing it.
  if (date.getUTCDate() !== day || date.getUTCMinutes() !== minute || hour > 23 || second > 59) {
    return undefined;
  }
  return date.getTime() / 1000 + Number(match[7] ?? 0);
}

function asTraceError(error: unknown, file: string, line: number): unknown {
  if (error instanceof LazygraphError) return error;
  if (error instanceof CsvError) {
    return traceError(file, Number(error["lines"] ?? line), "plain CSV", error.code, error);
  }
  const code = codeOf(error);
  if (code === "Z_BUF_ERROR" || code === "Z_DATA_ERROR") {
    const after = `gzip that is ${code === "Z_BUF_ERROR" ? "cut short" : "damaged"}`;
    return traceError(file, line, "a whole gzip file up to its end", `${after} after it`, error);
  }
  return error;
}

function traceError(
  file: string,
  line: number,
  expected: string,
  got: string,
  cause?: unknown,
): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_TRACE",
    `${file}, line ${line}: expected ${expected}, got ${got}.`,
    cause === undefined ? undefined : { cause },
  );
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

function positive(option: string, value: number): number {
  if (value > 0) return value;
  throw new OptionError(option, `Expected ${option} to be a number above 0, got ${value}.`);
}
