/** The bytes of a trace file, decompressed: gzip, xz and zstd are told by their first bytes. */

import { constants, createReadStream, existsSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { Decompress, ZstdErrorCode } from "fzstd";
import xz from "xz-decompress";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { nearMiss } from "../base/near-miss.ts";

const TRACES = new URL("../../traces/", import.meta.url);

const NAME = /^[a-z0-9-]+$/;

const COMPRESSIONS = ["gzip", "xz", "zstd"] as const;
type Compression = (typeof COMPRESSIONS)[number];
const MAGIC: Readonly<Record<Compression, readonly number[]>> = {
  gzip: [0x1f, 0x8b],
  xz: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
  zstd: [0x28, 0xb5, 0x2f, 0xfd],
};
/** One byte of zstd may stand for 32 KiB: what a piece becomes must fit into memory. */
const ZSTD_PIECE_BYTES = 4096;
/** What the decoder inside xz-decompress answers when its input ends too early. */
const XZ_CUT_SHORT = "error code 8";

/** Compressed bytes that end too early or aren't what their beginning promises. */
export class CompressionError extends Error {
  override readonly name = "CompressionError";
  readonly compression: Compression;
  readonly isCutShort: boolean;

  constructor(compression: Compression, isCutShort: boolean, cause: unknown) {
    super(`${compression}: ${messageOf(cause)}`, { cause });
    this.compression = compression;
    this.isCutShort = isCutShort;
  }
}

/**
 * Opens a file, or a trace that is shipped, by its name without `.csv.gz`.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for what can't be opened or is no file; reading on
 *   throws a CompressionError for bytes that can't be decompressed
 */
export async function openTraceBytes(file: string): Promise<AsyncGenerator<Uint8Array>> {
  const path = pathOf(file);
  const compression = await compressionOf(file, path);
  switch (compression) {
    case "gzip":
      return gunzipped(path);
    case "xz":
      return unxzed(path);
    case "zstd":
      return unzstded(path);
    case undefined:
      return plain(path);
  }
}

/** Names are those of files in `traces/`; what is none of them is a path. */
function pathOf(nameOrPath: string): string | URL {
  if (!NAME.test(nameOrPath)) return nameOrPath;
  const shipped = new URL(`${nameOrPath}.csv.gz`, TRACES);
  return existsSync(shipped) ? shipped : nameOrPath;
}

/** Of what may be the misspelt name of a trace that is shipped. */
async function shippedHint(file: string): Promise<string> {
  if (!NAME.test(file)) return ".";
  const files = await readdir(TRACES).catch(() => []);
  const names = files.flatMap((name) => /^(.+)\.csv\.gz$/.exec(name)?.[1] ?? []);
  const meant = nearMiss(file, names);
  return meant === undefined ? "." : `: did you mean ${meant}, which is shipped?`;
}

async function compressionOf(file: string, path: string | URL): Promise<Compression | undefined> {
  const head = new Uint8Array(6);
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
      await handle.read(head, 0, head.length, 0);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof LazygraphError) throw error;
    const got = codeOf(error) ?? String(error);
    throw new LazygraphError(
      "ERR_LAZYGRAPH_TRACE",
      `Expected ${file} to be a readable trace file, got ${got}${await shippedHint(file)}`,
      { cause: error },
    );
  }
  return COMPRESSIONS.find((name) => MAGIC[name].every((byte, index) => head[index] === byte));
}

async function* plain(path: string | URL): AsyncGenerator<Uint8Array> {
  for await (const chunk of createReadStream(path)) yield chunk as Uint8Array;
}

async function* gunzipped(path: string | URL): AsyncGenerator<Uint8Array> {
  // The errors of both streams reach the reader through the second, which pipeline destroys.
  const gunzip = pipeline(createReadStream(path), createGunzip(), () => undefined);
  try {
    for await (const chunk of gunzip) yield chunk as Uint8Array;
  } catch (error) {
    const code = codeOf(error);
    if (code !== "Z_BUF_ERROR" && code !== "Z_DATA_ERROR") throw error;
    throw new CompressionError("gzip", code === "Z_BUF_ERROR", error);
  }
}

async function* unxzed(path: string | URL): AsyncGenerator<Uint8Array> {
  const compressed = Readable.toWeb(createReadStream(path)) as ReadableStream<Uint8Array>;
  const reader = new xz.XzReadableStream(compressed).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // The library reuses the memory behind what it hands out.
      yield value.slice();
    }
  } catch (error) {
    throw new CompressionError("xz", messageOf(error).endsWith(XZ_CUT_SHORT), error);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function* unzstded(path: string | URL): AsyncGenerator<Uint8Array> {
  let out: Uint8Array[] = [];
  const decompress = new Decompress((data) => out.push(data));
  const push = (piece: Uint8Array, isLast: boolean): Uint8Array[] => {
    try {
      decompress.push(piece, isLast);
    } catch (error) {
      const isCutShort = (error as { code?: unknown }).code === ZstdErrorCode.UnexpectedEOF;
      throw new CompressionError("zstd", isCutShort, error);
    }
    const ready = out;
    out = [];
    return ready;
  };
  const source = createReadStream(path, { highWaterMark: ZSTD_PIECE_BYTES });
  for await (const piece of source) yield* push(piece as Uint8Array, false);
  yield* push(new Uint8Array(0), true);
}
