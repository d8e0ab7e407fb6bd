/**
 * A trace file that is whole at every moment: rows are appended in one write each batch, and a
 * gzipped file gets a gzip member for each, so that a killed process leaves nothing half-written.
 */

import { type FileHandle, open, rm, stat } from "node:fs/promises";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { codeOf, LazygraphError } from "../base/errors.ts";

export const TRACE_HEADER = "seconds,prompt_tokens,output_tokens\n";

const compress = promisify(gzip);

export class TraceFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #gzipped: boolean;
  /** That are whole. */
  #bytes = 0;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
    this.#gzipped = path.endsWith(".gz");
  }

  /**
   * Creates the file, readable by its owner alone, and writes the header; empty for none.
   *
   * @throws LazygraphError `ERR_LAZYGRAPH_TRACE`: it is there already, or can't be created;
   *   `ERR_LAZYGRAPH_FILE`: the disk is full
   */
  static async create(path: string, header: string = TRACE_HEADER): Promise<TraceFile> {
    let handle: FileHandle | undefined;
    try {
      // Arrivals and lengths tell something of who sent them.
      handle = await open(path, "wx", 0o600);
      const file = new TraceFile(path, handle);
      if (header !== "") await file.append(header);
      return file;
    } catch (error) {
      // A file that holds nothing would be in the way of the next try.
      if (handle !== undefined) {
        await handle.close();
        await rm(path, { force: true });
      }
      throw traceFileError(path, error);
    }
  }

  async append(text: string): Promise<void> {
    const bytes = this.#gzipped ? await compress(text) : Buffer.from(text);
    try {
      await this.#handle.appendFile(bytes);
    } catch (error) {
      // A disk that fills up takes a part: half a row may be read as another one.
      await this.#handle.truncate(this.#bytes).catch(() => undefined);
      throw error;
    }
    this.#bytes += bytes.length;
  }

  /** Whether its path still names it, with all that was written and nothing else. */
  async isInPlace(): Promise<boolean> {
    const there = await stat(this.#path).catch(() => undefined);
    const { dev, ino, size } = await this.#handle.stat();
    return there?.ino === ino && there.dev === dev && size === this.#bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

const GOT: Readonly<Record<string, string>> = {
  EEXIST: "one that is there already: give another name",
  ENOENT: "ENOENT: there is no such folder, so check its name",
};

/** A disk that takes no more is no fault of the name. */
const FULL: readonly string[] = ["ENOSPC", "EDQUOT"];

export function traceFileError(path: string, cause: unknown): LazygraphError {
  const code = codeOf(cause) ?? String(cause);
  if (FULL.includes(code)) {
    const sentence = `Expected ${path} to take all that is written, got ${code}: make room, or give another path.`;
    return new LazygraphError("ERR_LAZYGRAPH_FILE", sentence, { cause });
  }
  const got = GOT[code] ?? code;
  return new LazygraphError(
    "ERR_LAZYGRAPH_TRACE",
    `Expected ${path} to be a new file that can be written, got ${got}.`,
    { cause },
  );
}
