/**
 * What the processes of a start wrote of it: JSON lines in a folder, two files for each process, of
 * what has ended and of what has begun.
 * Seconds are those of CLOCK_MONOTONIC, which all processes of a host share, this one included.
 */

import { appendFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { jsonObject } from "../base/parse-json.ts";
import { readRegularFile } from "../base/read-file.ts";

/** Names the folder to the plugin, and to the simulated engine. */
export const FOLDER_VARIABLE = "LAZYGRAPH_STARTUP_DIR";

export interface Span {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
  readonly pid: number;
  /** Bytes, a loader, whether it was simulated. */
  readonly detail: Readonly<Record<string, unknown>>;
}

const FILES_MAX = 256;
const BYTES_MAX = 1 << 28;
const SPANS_MAX = 100_000;
const NAME_CHARS_MAX = 64;

/** Everything in a folder; what is no span is left out, as the last line of a process that died. */
export async function readSpans(folder: string): Promise<Span[]> {
  const spans = await readLines(folder, /^spans-\d+\.jsonl$/, spanOf);
  return spans.sort((a, b) => a.begin - b.begin || b.end - a.end);
}

/** A span that has begun, and may have ended since. */
export type Begun = Pick<Span, "name" | "begin" | "pid">;

/** What has begun, by all processes of a folder. */
export async function readBegun(folder: string): Promise<Begun[]> {
  return readLines(folder, /^begun-\d+\.jsonl$/, begunOf);
}

/** Of one kind of file, each of which has its process's number in its name. */
async function readLines<T>(
  folder: string,
  names: RegExp,
  parse: (line: string, pid: number) => T | undefined,
): Promise<T[]> {
  const files = (await readdir(folder)).filter((name) => names.test(name));
  const found: T[] = [];
  for (const file of files.slice(0, FILES_MAX)) {
    const pid = Number(/\d+/.exec(file)?.[0]);
    for (const line of readRegularFile(join(folder, file), BYTES_MAX).toString().split("\n")) {
      const entry = parse(line, pid);
      if (entry !== undefined && found.length < SPANS_MAX) found.push(entry);
    }
  }
  return found;
}

function begunOf(line: string, pid: number): Begun | undefined {
  const { name, begin } = (jsonObject(line) ?? {}) as Record<string, unknown>;
  if (typeof name !== "string" || typeof begin !== "number") return undefined;
  return { name: name.slice(0, NAME_CHARS_MAX), begin, pid };
}

function spanOf(line: string, pid: number): Span | undefined {
  const body = jsonObject(line);
  if (body === undefined) return undefined;
  const { name, begin, end, ...detail } = body as Record<string, unknown>;
  if (typeof name !== "string" || name === "" || name.length > NAME_CHARS_MAX) return undefined;
  if (typeof begin !== "number" || typeof end !== "number" || !(begin <= end)) return undefined;
  return { name, begin, end, pid, detail };
}

export function monotonicSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

export interface SpanWriter {
  /** A span that ends now. */
  ended(name: string, begin: number, detail?: Readonly<Record<string, unknown>>): void;
  /** A span that has begun: who watches a start wants to know before it has ended. */
  begun(name: string, begin: number): void;
}

/** Writes this process's spans if the environment names a folder. */
export function spanWriter(environment: NodeJS.ProcessEnv): SpanWriter {
  const folder = environment[FOLDER_VARIABLE] ?? "";
  const write = (kind: "spans" | "begun", body: object): void => {
    if (folder === "") return;
    try {
      const file = join(folder, `${kind}-${process.pid}.jsonl`);
      appendFileSync(file, `${JSON.stringify(body)}\n`);
    } catch {
      // A folder that can't be written costs the figures, never the engine.
    }
  };
  return {
    ended: (name, begin, detail = {}) =>
      write("spans", { name, begin, end: monotonicSeconds(), ...detail }),
    begun: (name, begin) => write("begun", { name, begin }),
  };
}
