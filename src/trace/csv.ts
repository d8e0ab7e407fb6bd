/** Traces in CSV, or its columns in JSON: which each format has, and what its rows mean. */

import { pipeline, Readable } from "node:stream";
import { CsvError, parse } from "csv-parse";
import type { TraceEntries, TraceEntry, TraceFormat } from "./entry.ts";
import { quoted, traceError } from "./error.ts";
import { listOf, type Place, secondsOf, timestampSeconds, tokensOf } from "./values.ts";

const RECORD_CHARS_MAX = 4096;

interface CsvFormat {
  readonly format: TraceFormat;
  /** Whether times are dates; else they are seconds. */
  readonly dated: boolean;
  readonly time: string;
  readonly prompt: string;
  readonly output: string;
  /** Columns that may be there and aren't read. */
  readonly others: readonly string[];
}

const AZURE = {
  dated: true,
  time: "TIMESTAMP",
  prompt: "ContextTokens",
  output: "GeneratedTokens",
} as const;

const FORMATS: readonly CsvFormat[] = [
  {
    format: "lazygraph",
    dated: false,
    time: "seconds",
    prompt: "prompt_tokens",
    output: "output_tokens",
    others: [],
  },
  { ...AZURE, format: "azure", others: [] },
  // Context tokens hold those of the images; what makes them is not replayed.
  { ...AZURE, format: "azure-multimodal", others: ["NumImages"] },
  {
    format: "burstgpt",
    dated: false,
    time: "Timestamp",
    prompt: "Request tokens",
    output: "Response tokens",
    others: ["Session ID", "Elapsed time", "Model", "Total tokens", "Log Type"],
  },
];

interface Row {
  readonly record: readonly string[];
  readonly info: { readonly lines: number };
}

/** Where a format's values stand in this file. */
interface Columns {
  readonly count: number;
  readonly time: number;
  readonly prompt: number;
  readonly output: number;
}

/**
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE`, at once for the header, while it is read for the
 *   rest
 */
export async function openRows(file: string, rows: AsyncGenerator<Row>): Promise<TraceEntries> {
  const first = await rows.next();
  if (first.done === true) throw traceError(file, 1, expectedHeader(), "an empty file");
  const names = first.value.record.map((name) => name.trim());
  const found = formatOf(names);
  if (found === undefined) {
    throw traceError(file, 1, expectedHeader(), quoted(names.join(",")));
  }
  const columns: Columns = {
    count: names.length,
    time: names.indexOf(found.time),
    prompt: names.indexOf(found.prompt),
    output: names.indexOf(found.output),
  };
  return {
    format: found.format,
    ordered: true,
    entries: entriesOf(file, found, columns, rows),
  };
}

export function expectedHeader(): string {
  const headers = FORMATS.filter(({ format }) => format !== "azure-multimodal").map(
    ({ time, prompt, output }) => `${time},${prompt},${output}`,
  );
  return `the header ${headers.join(" or ")}, or JSON lines`;
}

/** Whether its names are the columns of a format. */
export function isColumns(object: object): boolean {
  return formatOf(Object.keys(object)) !== undefined;
}

function formatOf(names: readonly string[]): CsvFormat | undefined {
  return FORMATS.find((format) => matches(format, names));
}

/** All that is needed, nothing unknown, nothing twice. */
function matches({ time, prompt, output, others }: CsvFormat, names: readonly string[]): boolean {
  const needed = [time, prompt, output];
  const known = [...needed, ...others];
  return (
    needed.every((name) => names.includes(name)) &&
    names.every((name) => known.includes(name)) &&
    new Set(names).size === names.length
  );
}

/** The rows of columns in JSON, numbered as a CSV's lines are: the names are line 1. */
export async function* columnRows(file: string, columns: object): AsyncGenerator<Row> {
  const names = Object.keys(columns);
  const lists = names.map((name) => listOf({ file, line: 1 }, columns, name));
  const lengths = [...new Set(lists.map((list) => list.length))];
  if (lengths.length > 1) {
    throw traceError(file, 1, "columns of one length", `${lengths.join(" and ")} values`);
  }
  yield { record: names, info: { lines: 1 } };
  for (let row = 0; row < (lengths[0] ?? 0); row++) {
    yield { record: lists.map((list) => cellOf(list[row])), info: { lines: row + 2 } };
  }
}

function cellOf(value: unknown): string {
  if (value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

export async function* csvRows(
  file: string,
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<Row> {
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    // Else text fails by quotes.
    relax_quotes: true,
    max_record_size: RECORD_CHARS_MAX,
  });
  // Errors of both stages reach the reader through the parser, which pipeline destroys.
  pipeline(Readable.from(bytes), parser, () => undefined);
  let line = 1;
  try {
    for await (const row of parser as AsyncIterable<Row>) {
      line = row.info.lines;
      yield row;
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    const got = error.code.endsWith("SIZE") ? "a long row" : "an open quote";
    const at = Number(error["lines"] ?? line);
    throw traceError(file, at, `plain CSV with ${expectedHeader()}`, got, error);
  }
}

async function* entriesOf(
  file: string,
  { dated }: CsvFormat,
  columns: Columns,
  rows: AsyncIterable<Row>,
): AsyncGenerator<TraceEntry> {
  for await (const { record, info } of rows) {
    const place: Place = { file, line: info.lines };
    if (record.every((cell) => cell.trim() === "")) {
      yield { line: place.line, skip: "blank line" };
      continue;
    }
    const [time, prompt, output] = [columns.time, columns.prompt, columns.output].map(
      (column) => record[column] ?? "",
    ) as [string, string, string];
    const isHoled = [time, prompt, output].some((cell) => cell.trim() === "");
    if (record.length !== columns.count || isHoled) {
      const expected = `${columns.count} values and no hole`;
      throw traceError(file, place.line, expected, quoted(record.join(",")));
    }
    const row = {
      seconds: dated ? datedSeconds(place, time) : secondsOf(place, time),
      promptTokens: tokensOf(place, prompt),
      outputTokens: tokensOf(place, output),
    };
    const isFailed = row.promptTokens === 0 || row.outputTokens === 0;
    yield isFailed ? { line: place.line, skip: "failed request" } : { line: place.line, row };
  }
}

function datedSeconds({ file, line }: Place, cell: string): number {
  const seconds = timestampSeconds(cell);
  if (seconds !== undefined) return seconds;
  throw traceError(file, line, "a time like 2023-11-16 18:15:46.68", quoted(cell));
}
