/** `lazygraph trace convert|inspect|cut`: other people's traces, read, told and cut to size. */

import { OptionError } from "../base/errors.ts";
import { forget, leftover, removeLeftover } from "../base/leftovers.ts";
import { TRACE_HEADER, TraceFile, traceFileError } from "../record/trace-file.ts";
import { TIME_UNITS } from "../trace/entry.ts";
import { SkipCounts } from "../trace/skips.ts";
import { TraceSummarizer } from "../trace/summary.ts";
import {
  readTrace,
  type TraceAbout,
  type TraceOptions,
  type TraceRequest,
} from "../trace/trace.ts";
import { TraceWriter, WRITTEN_FORMATS, type WrittenFormat } from "../trace/write.ts";
import { choice, EXIT, note, usageError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { type OptionSpec, type ParsedOptions, parseOptions } from "./options.ts";
import { summaryDocument, summaryText } from "./trace-text.ts";

const HELP = `Usage: lazygraph trace inspect FILE [--json]
       lazygraph trace convert FILE [--to FORMAT] [--output FILE]
       lazygraph trace cut FILE [--from S] [--seconds N] [--requests N] [--output FILE]

Request traces of others. Read are, told by their content, plain or in gzip, xz or zstd: this
package's CSV, Azure's (2023, 2024 and 2025 with images), BurstGPT's, Mooncake's JSON lines, the
timed traces of \`vllm bench serve\` (Alibaba's Bailian among them), and OpenTelemetry's spans with
gen_ai attributes as the collector's file exporter writes them. CSV may come as one JSON object of
its columns. All commands that take a trace take any of them.

  inspect   format, requests, rates, lengths, and how much of the prompts a prefix cache would hold
  convert   the trace in another format
  cut       a part of it, in Mooncake's format where the trace tells blocks of prompts

Options:
  --to FORMAT      lazygraph (CSV) or mooncake (JSON lines, whole milliseconds, blocks of 512)
  --output FILE    a new file, gzipped where its name ends in .gz (- : stdout)
  --from S         leaves out what arrives in the first S seconds; the rest moves to second 0
  --seconds N      only the N seconds after that, counted after --speed
  --requests N     at most N requests
  --speed X        divides all times, 0.001 to 1000 (1)
  --sort           puts requests in order of arrival, which is refused otherwise
  --strict         refuses blank lines and failed requests instead of leaving them out
  --time-unit U    what JSON lines count: ms or s (Mooncake ms; Bailian and vLLM s)
  --json           one JSON document on stdout
  --help, -h       this text

Exit code: 2 for a usage error or a trace that can't be used; 1 for a failure.

Examples:
  lazygraph trace inspect BurstGPT_1.csv
  lazygraph trace convert toolagent_trace.jsonl --to lazygraph --output toolagent.csv.gz
  lazygraph trace cut AzureLLMInferenceTrace_conv_1week.csv --from 86400 --seconds 3600 \\
    --output tuesday.csv
`;

const COMMANDS = {
  inspect: runInspect,
  convert: (argv: readonly string[]) => runRewrite(argv, {}),
  cut: (argv: readonly string[]) =>
    runRewrite(argv, { from: "string", seconds: "string", requests: "string" }),
} as const;
const NAMES = Object.keys(COMMANDS) as (keyof typeof COMMANDS)[];
const READ_OPTIONS = {
  speed: "string",
  sort: "boolean",
  strict: "boolean",
  "time-unit": "string",
} as const satisfies OptionSpec;
const POSITIONAL = { name: "FILE", min: 1, max: 1 };
const SECONDS_MAX = 1e9;
const REQUESTS_MAX = 1e9;
/** Rows are written together: one gzip member each. */
const ROWS_TOGETHER = 8192;

export async function runTrace(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === "--help" || name === "-h") return help();
  return COMMANDS[choice("the trace command", NAMES, name)](rest);
}

function help(): number {
  process.stdout.write(HELP);
  return EXIT.ok;
}

/** A trace while it is read: what it is, and what was left out. */
interface Reading {
  readonly requests: AsyncIterable<TraceRequest>;
  readonly skipped: SkipCounts;
  about: TraceAbout | undefined;
}

function open(file: string, options: ParsedOptions): Reading {
  const skipped = new SkipCounts();
  const reading: Reading = {
    requests: readTrace(file, {
      ...readOptions(options),
      onFormat: (about) => {
        reading.about = about;
      },
      onSkip: (skip) => skipped.add(skip),
    }),
    skipped,
    about: undefined,
  };
  return reading;
}

function readOptions(options: ParsedOptions): TraceOptions {
  const text = options.strings.get("time-unit");
  const timeUnit = TIME_UNITS.find((unit) => unit === text);
  if (text !== undefined && timeUnit === undefined)
    throw usageError("--time-unit", "ms or s", text);
  return {
    speed: numberOption(options, "speed", { min: 0.001, max: 1000, fallback: 1 }),
    sort: options.flags.has("sort"),
    strict: options.flags.has("strict"),
    ...(timeUnit === undefined ? {} : { timeUnit }),
  };
}

async function runInspect(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, { ...READ_OPTIONS, json: "boolean" }, POSITIONAL);
  if (options.flags.has("help")) return help();
  const file = options.positionals[0] as string;
  const reading = open(file, options);
  const summarizer = new TraceSummarizer();
  for await (const request of reading.requests) summarizer.add(request);
  const about = reading.about as TraceAbout;
  const summary = summarizer.summary();
  if (options.flags.has("json")) {
    const document = summaryDocument(file, about, summary, reading.skipped);
    process.stdout.write(`${JSON.stringify(document)}\n`);
  } else {
    process.stdout.write(`${summaryText(file, about, summary)}\n`);
    noteSkipped(file, reading.skipped);
  }
  return EXIT.ok;
}

/** Which part of a trace is written. */
interface Window {
  readonly from: number;
  readonly seconds: number;
  readonly requests: number;
}

async function runRewrite(argv: readonly string[], window: OptionSpec): Promise<number> {
  const spec = { ...READ_OPTIONS, ...window, to: "string", output: "string" } as const;
  const options = parseOptions(argv, spec, POSITIONAL);
  if (options.flags.has("help")) return help();
  const file = options.positionals[0] as string;
  const to = formatOption(options);
  const part: Window = {
    from: numberOption(options, "from", { min: 0, max: SECONDS_MAX, fallback: 0 }),
    seconds: numberOption(options, "seconds", {
      min: 0.001,
      max: SECONDS_MAX,
      fallback: Number.POSITIVE_INFINITY,
    }),
    requests: numberOption(options, "requests", {
      min: 1,
      max: REQUESTS_MAX,
      fallback: Number.POSITIVE_INFINITY,
      whole: true,
    }),
  };
  const reading = open(file, options);
  const keepsBlocks = "from" in window;
  const written = await rewrite(reading, part, options.strings.get("output") ?? "-", (about) => {
    return to ?? (keepsBlocks && about.blockTokens !== undefined ? "mooncake" : "lazygraph");
  });
  noteSkipped(file, reading.skipped);
  if (written > 0) return EXIT.ok;
  // The trace may have ended before, or have a gap there.
  const end = Number.isFinite(part.seconds) ? ` to ${part.from + part.seconds}` : " on";
  throw new OptionError(
    "--from",
    `Expected --from and --seconds to leave requests, got none of ${file} from second ` +
      `${part.from}${end}: \`lazygraph trace inspect\` tells how long it is.`,
  );
}

function formatOption(options: ParsedOptions): WrittenFormat | undefined {
  const text = options.strings.get("to");
  const format = WRITTEN_FORMATS.find((candidate) => candidate === text);
  if (text === undefined || format !== undefined) return format;
  throw usageError("--to", WRITTEN_FORMATS.join(" or "), text);
}

/** @returns how many requests were written; a file that would be half a trace is removed */
async function rewrite(
  reading: Reading,
  window: Window,
  output: string,
  formatOf: (about: TraceAbout) => WrittenFormat,
): Promise<number> {
  let sink: Sink | undefined;
  let writer: TraceWriter | undefined;
  let count = 0;
  let rows = "";
  try {
    for await (const request of windowed(reading.requests, window)) {
      const about = reading.about as TraceAbout;
      const format = formatOf(about);
      sink ??= await openSink(output, format);
      writer ??= new TraceWriter(format, about.blockTokens);
      rows += writer.row(request);
      count++;
      if (count % ROWS_TOGETHER !== 0) continue;
      await sink.append(rows);
      rows = "";
      // No more is read than somebody takes (`trace convert FILE | head`).
      if (output === "-" && process.stdout.destroyed) break;
    }
    if (rows !== "") await sink?.append(rows);
    await sink?.close();
  } catch (error) {
    await sink?.remove();
    throw error;
  }
  return count;
}

async function* windowed(
  requests: AsyncIterable<TraceRequest>,
  { from, seconds, requests: requestsMax }: Window,
): AsyncGenerator<TraceRequest> {
  let first: number | undefined;
  let count = 0;
  for await (const request of requests) {
    if (request.atSeconds < from) continue;
    if (request.atSeconds - from > seconds) return;
    first ??= request.atSeconds;
    yield { ...request, atSeconds: request.atSeconds - first };
    if (++count >= requestsMax) return;
  }
}

interface Sink {
  append(text: string): Promise<void>;
  close(): Promise<void>;
  remove(): Promise<void>;
}

async function openSink(output: string, format: WrittenFormat): Promise<Sink> {
  const header = format === "lazygraph" ? TRACE_HEADER : "";
  if (output === "-") {
    await toStdout(header);
    const nothing = async (): Promise<void> => {};
    return { append: toStdout, close: nothing, remove: nothing };
  }
  const file = await TraceFile.create(output, header);
  // A part would be read as a whole trace.
  leftover(output);
  return {
    append: (text) =>
      file.append(text).catch((error) => {
        throw traceFileError(output, error);
      }),
    async close() {
      await file.close();
      forget(output);
    },
    async remove() {
      await file.close();
      await removeLeftover(output);
    },
  };
}

/** Waits for a slow reader, so that a long trace is not held in memory. */
function toStdout(text: string): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write(text, () => resolve());
  });
}

function noteSkipped(file: string, skipped: SkipCounts): void {
  const text = skipped.sentence(file);
  if (text !== undefined) note(text);
}
