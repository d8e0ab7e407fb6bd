/**
 * The folder of a benchmark: one head and one file of raw samples for each run of a cell.
 *
 *   FOLDER/bench.json                     title, baseline, limits for goodput
 *   FOLDER/schedules/LOAD.csv             what was sent when, as a trace
 *   FOLDER/runs/MODE~LOAD~N.json          head of a run
 *   FOLDER/runs/MODE~LOAD~N.ndjson.gz     its raw samples, one JSON object a line
 *   FOLDER/runs/MODE~LOAD~N.log           what the engine printed
 *
 * Samples are written as they come: what a killed run measured is kept, and counts as partial.
 */

import { createReadStream, createWriteStream, type WriteStream } from "node:fs";
import { readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import * as v from "valibot";
import { codeOf, LazygraphError, messageOf, OptionError } from "../base/errors.ts";
import { isObject } from "../base/is-object.ts";
import { makeFolder } from "../base/make-folder.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";
import { replaceFile } from "../base/replace-file.ts";
import { fields, object, oneOf, readBy, type Schema, whole } from "../base/schema.ts";
import type {
  CaptureRecord,
  CellRun,
  MemoryRecord,
  RequestRecord,
  RunHead,
  SampleLine,
  StepsRecord,
} from "./samples.ts";
import type { CellName, Goodput } from "./spec.ts";

/** What a report needs besides the runs. */
export interface BenchFacts {
  readonly format: 1;
  readonly title: string;
  readonly baseline: string;
  readonly goodput: Goodput;
  /** Modes in the order of the specification. */
  readonly modes: readonly string[];
}

const label = v.string("a text");
const objects = v.array(object, "a list of objects");
/** What a report takes from a head without asking whether it is there. */
const HEAD = fields({
  cell: fields({ mode: label, load: label, run: whole(1) }),
  status: oneOf(["running", "complete", "partial"]),
  startedAt: label,
  host: fields({ name: label, gpus: v.array(label, "a list of texts") }),
  mode: object,
  load: object,
  times: object,
  engine: v.optional(fields({ graphs: objects })),
});
const number = v.number("a number");
/** The same of a sample, by its type. */
const SAMPLES: Readonly<Record<SampleLine["type"], Schema<object>>> = {
  request: fields({
    dueSeconds: number,
    sentSeconds: number,
    firstSeconds: v.optional(number),
    lastSeconds: v.optional(number),
    // Not one by one: there is one for each token.
    itlMicros: v.custom(Array.isArray),
  }),
  capture: fields({ graph: label, startSeconds: number, endSeconds: number, ms: number }),
  steps: fields({ atSeconds: number, steps: objects }),
  memory: fields({ atSeconds: number }),
};

const HEAD_BYTES_MAX = 64 << 20;
const SCHEDULE_BYTES_MAX = 1 << 30;
const GZIP_LEVEL = 3;

export function runFile(folder: string, cell: CellName, extension: string): string {
  return join(folder, "runs", `${runName(cell)}.${extension}`);
}

export function runName({ mode, load, run }: CellName): string {
  return `${mode}~${load}~${run}`;
}

export function scheduleFile(folder: string, load: string): string {
  return join(folder, "schedules", `${load}.csv`);
}

/** Undefined where there is none. */
export async function readSchedule(folder: string, load: string): Promise<string | undefined> {
  try {
    return readRegularFile(scheduleFile(folder, load), SCHEDULE_BYTES_MAX).toString();
  } catch {
    return undefined;
  }
}

/** @throws OptionError when the folder can't be made or written */
export async function openFolder(folder: string): Promise<void> {
  const probe = join(folder, "runs", `.${process.pid}.tmp`);
  try {
    await makeFolder(join(folder, "runs"));
    await makeFolder(join(folder, "schedules"));
    await writeFile(probe, "");
    await rm(probe);
  } catch (error) {
    const expected = "Expected --out to be a folder that can be made and written";
    const got = `got ${JSON.stringify(folder)} (${codeOf(error) ?? String(error)})`;
    throw new OptionError("--out", `${expected}, ${got}.`);
  }
}

export async function writeDocument(file: string, document: object): Promise<void> {
  await writeWhole(file, `${JSON.stringify(document, undefined, 1)}\n`);
}

export async function writeWhole(file: string, content: string | Uint8Array): Promise<void> {
  await writable(file, replaceFile(file, content));
}

/** @throws LazygraphError `ERR_LAZYGRAPH_BENCH` that names the file */
export async function writable(file: string, writing: Promise<void>): Promise<void> {
  return writing.catch((cause: unknown) => {
    throw folderError(file, "a file that can be written", codeOf(cause) ?? messageOf(cause));
  });
}

export async function readFacts(folder: string): Promise<BenchFacts> {
  const file = join(folder, "bench.json");
  const facts = await readJson(file, "what `lazygraph bench --out` writes");
  const { format, title, baseline, goodput, modes } = (facts ?? {}) as Partial<BenchFacts>;
  if (format !== 1) throw folderError(file, "of format 1", String(format));
  const texts = typeof title === "string" && typeof baseline === "string";
  if (!texts || !isObject(goodput) || !Array.isArray(modes)) {
    throw folderError(file, "whole: title, baseline, goodput and modes", "a part of it");
  }
  return facts as BenchFacts;
}

/** Heads of all runs, in order of load, mode and number. */
export async function readHeads(folder: string): Promise<RunHead[]> {
  const names = await readdir(join(folder, "runs")).catch((error: unknown) => {
    throw folderError(folder, "a folder of `lazygraph bench`", codeOf(error) ?? String(error));
  });
  const heads: RunHead[] = [];
  for (const name of names.filter((entry) => entry.endsWith(".json")).sort()) {
    const file = join(folder, "runs", name);
    heads.push(await headOf(file));
  }
  return heads.sort(
    (a, b) =>
      a.cell.load.localeCompare(b.cell.load) ||
      a.cell.mode.localeCompare(b.cell.mode) ||
      a.cell.run - b.cell.run,
  );
}

/** The head of one run, if it has been started. */
export async function readHead(folder: string, cell: CellName): Promise<RunHead | undefined> {
  const file = runFile(folder, cell, "json");
  if ((await stat(file).catch(() => undefined)) === undefined) return undefined;
  return headOf(file);
}

async function headOf(file: string): Promise<RunHead> {
  const head = (await readJson(file, "the head of a run")) as RunHead | null;
  if (head?.format !== 1) throw folderError(file, "of format 1", String(head?.format));
  readBy(HEAD, head, (place, expected, got) =>
    folderError(file, `the head of a run, with ${place} ${expected}`, got),
  );
  return head;
}

/** A run with its samples; one that is still marked as running was killed, and is partial. */
export async function readRun(folder: string, head: RunHead): Promise<CellRun> {
  const requests: RequestRecord[] = [];
  const captures: CaptureRecord[] = [];
  const steps: StepsRecord[] = [];
  const memory: MemoryRecord[] = [];
  const killed = head.status === "running";
  let damage: string | undefined;
  try {
    for await (const line of sampleLines(folder, head.cell, killed)) {
      if (line.type === "request") requests.push(line.value);
      else if (line.type === "capture") captures.push(line.value);
      else if (line.type === "steps") steps.push(line.value);
      else memory.push(line.value);
    }
  } catch (error) {
    // One damaged file must not cost the report of all the others.
    damage = `${messageOf(error)} What came before counts.`;
  }
  requests.sort((a, b) => a.dueSeconds - b.dueSeconds || a.index - b.index);
  const reason = damage ?? (killed ? "The benchmark was killed." : undefined);
  return {
    ...head,
    ...(reason === undefined ? {} : { status: "partial", reason }),
    requests,
    captures,
    steps,
    memory,
  };
}

/** The samples file that a run has: packed once it ended, plain while it runs or when killed. */
export async function samplesFile(folder: string, cell: CellName): Promise<string | undefined> {
  for (const extension of ["ndjson.gz", "ndjson"]) {
    const file = runFile(folder, cell, extension);
    // A pipe of that name would be waited for.
    if ((await stat(file).catch(() => undefined))?.isFile()) return file;
  }
  return undefined;
}

/** @throws LazygraphError `ERR_LAZYGRAPH_BENCH` for a file that is damaged, or gone */
async function* sampleLines(
  folder: string,
  cell: CellName,
  killed: boolean,
): AsyncGenerator<SampleLine> {
  const file = await samplesFile(folder, cell);
  if (file === undefined) {
    if (killed) return;
    throw folderError(runFile(folder, cell, "ndjson.gz"), "there", "nothing");
  }
  const source = createReadStream(file);
  const unpacked = file.endsWith(".gz") ? source.pipe(createGunzip()) : source;
  // An error of the file itself must reach the reader of the unpacked stream.
  source.on("error", (error) => unpacked.destroy(error));
  let broken: unknown;
  unpacked.on("error", (error: Error) => {
    broken = error;
  });
  let number = 0;
  const lines = createInterface({ input: unpacked, crlfDelay: Infinity });
  try {
    // An error of the stream ends the lines in silence: it is kept for after them.
    for await (const text of lines) {
      number++;
      const line = sampleOf(text);
      // The last line of a killed run may be half a line; nothing comes after it.
      if (line === undefined && killed) return;
      if (line === undefined) {
        throw folderError(file, "whole", `line ${number} that is no sample`);
      }
      yield line;
    }
    if (broken !== undefined) throw broken;
  } catch (error) {
    if (codeOf(error) === "ERR_LAZYGRAPH_BENCH") throw error;
    const why = messageOf(error);
    throw folderError(file, "whole", `${why} after line ${number}`);
  }
}

function sampleOf(text: string): SampleLine | undefined {
  try {
    const line = JSON.parse(text) as SampleLine | null;
    const known = line !== null && Object.hasOwn(SAMPLES, line.type);
    return known && v.is(SAMPLES[line.type], line.value) ? line : undefined;
  } catch {
    return undefined;
  }
}

/** Where a run's samples go while it is under way. */
export class SampleWriter {
  readonly #folder: string;
  readonly #cell: CellName;
  readonly #stream: WriteStream;
  #error: Error | undefined;

  private constructor(folder: string, cell: CellName, stream: WriteStream) {
    this.#folder = folder;
    this.#cell = cell;
    this.#stream = stream;
    stream.on("error", (error) => {
      this.#error ??= error;
    });
  }

  /** Starts the run's files anew: what an earlier attempt left is replaced. */
  static async open(folder: string, head: RunHead): Promise<SampleWriter> {
    for (const extension of ["ndjson.gz", "ndjson", "log"]) {
      const file = runFile(folder, head.cell, extension);
      await writable(file, rm(file, { force: true }));
    }
    await writeDocument(runFile(folder, head.cell, "json"), head);
    const stream = createWriteStream(runFile(folder, head.cell, "ndjson"));
    return new SampleWriter(folder, head.cell, stream);
  }

  keep(line: SampleLine): void {
    if (this.#error === undefined) this.#stream.write(`${JSON.stringify(line)}\n`);
  }

  /**
   * Packs the samples and writes the final head.
   *
   * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` when a sample could not be written
   */
  async close(head: RunHead): Promise<void> {
    await new Promise<void>((resolve) => this.#stream.end(() => resolve()));
    const plain = runFile(this.#folder, this.#cell, "ndjson");
    if (this.#error !== undefined) {
      throw folderError(plain, "writable to the end of a run", this.#error.message);
    }
    const packed = runFile(this.#folder, this.#cell, "ndjson.gz");
    const temporary = `${packed}.tmp`;
    // A fifth of the default level's processor time, which is the benchmark's, for 4% more bytes.
    const gzip = createGzip({ level: GZIP_LEVEL });
    try {
      await pipeline(createReadStream(plain), gzip, createWriteStream(temporary));
      await rename(temporary, packed);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      throw folderError(packed, "writable to the end of a run", codeOf(error) ?? messageOf(error));
    }
    await writeDocument(runFile(this.#folder, this.#cell, "json"), head);
    await writable(plain, rm(plain));
  }
}

async function readJson(file: string, what: string): Promise<unknown> {
  try {
    return JSON.parse(readRegularFile(file, HEAD_BYTES_MAX).toString());
  } catch (error) {
    throw folderError(file, what, unreadable(error));
  }
}

export function folderError(path: string, expected: string, got: string): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_BENCH",
    `Expected ${path} to be ${expected}, got ${got}.`,
  );
}
