/** The bytes of a trace file, decompressed: gzip, xz and zstd are told by their first bytes. */

import { constants, createReadStream, existsSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import xz from "xz-decompress";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { nearMiss } from "../base/near-miss.ts";
import { unreadable } from "../base/read-file.ts";
import { CompressionError } from "./compression-error.ts";
import { checksZstd, unzstded } from "./zstd.ts";
import { hasChecksum } from "./zstd-frames.ts";

const TRACES = new URL("../../traces/", import.meta.url);

const NAME = /^[a-z0-9-]+$/;

const COMPRESSIONS = ["gzip", "xz", "zstd"] as const;
type Compression = (typeof COMPRESSIONS)[number];
const MAGIC: Readonly<Record<Compression, readonly number[]>> = {
  gzip: [0x1f, 0x8b],
  xz: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
  zstd: [0x28, 0xb5, 0x2f, 0xfd],
};
/** Of the first frame, behind the magic. */
const ZSTD_DESCRIPTOR_AT = 4;
/** What xz-decompress answers when its input ends too early. */
const XZ_CUT_SHORT = "error code 8";

/**
 * Opens a file, or a trace that is shipped, by its name without `.json.xz`.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for what can't be opened or is no file; reading on
 *   throws a CompressionError for bytes that can't be decompressed
 */
export async function openTraceBytes(file: string): Promise<AsyncGenerator<Uint8Array>> {
  const path = pathOf(file);
  const head = await headOf(file, path);
  switch (compressionOf(head)) {
    case "gzip":
      return gunzipped(path);
    case "xz":
      return unxzed(path);
    case "zstd":
      if (!checksZstd && hasChecksum(head[ZSTD_DESCRIPTOR_AT] ?? 0)) warnUnchecked(file);
      return unzstded(path);
    case undefined:
      return plain(path);
  }
}

/** Names are those of files in `traces/`; what is none of them is a path. */
function pathOf(nameOrPath: string): string | URL {
  if (!NAME.test(nameOrPath)) return nameOrPath;
  const shipped = new URL(`${nameOrPath}.json.xz`, TRACES);
  return existsSync(shipped) ? shipped : nameOrPath;
}

/** Of what may be a shipped trace's name, misspelt. */
async function shippedHint(file: string): Promise<string> {
  if (!NAME.test(file)) return ".";
  const files = await readdir(TRACES).catch(() => []);
  const names = files.flatMap((name) => /^(.+)\.json\.xz$/.exec(name)?.[1] ?? []);
  const meant = nearMiss(file, names);
  return meant === undefined ? "." : `: did you mean ${meant}, which is shipped?`;
}

async function headOf(file: string, path: string | URL): Promise<Uint8Array> {
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
    const got = unreadable(error);
    throw new LazygraphError(
      "ERR_LAZYGRAPH_TRACE",
      `Expected ${file} to be a readable trace file, got ${got}${await shippedHint(file)}`,
      { cause: error },
    );
  }
  return head;
}

function compressionOf(head: Uint8Array): Compression | undefined {
  return COMPRESSIONS.find((name) => MAGIC[name].every((byte, index) => head[index] === byte));
}

let hasWarned = false;

/** Once: a simulation reads its trace anew for every policy. */
function warnUnchecked(file: string): void {
  if (hasWarned) return;
  hasWarned = true;
  process.emitWarning(
    `${file} is read without a look at its zstd checksum, which Node ${process.versions.node} ` +
      "can't check: use Node 22.15 or later to find damage that leaves it readable",
    { type: "LazygraphWarning", code: "LAZYGRAPH_ZSTD_UNCHECKED" },
  );
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
    throw new CompressionError("gzip", code === "Z_BUF_ERROR" ? "cut short" : "damaged", error);
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
    const isCutShort = messageOf(error).endsWith(XZ_CUT_SHORT);
    throw new CompressionError("xz", isCutShort ? "cut short" : "damaged", error);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
