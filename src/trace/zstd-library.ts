/** Decompresses a file of zstd by the library, which checks no checksum. */

import { createReadStream, type PathLike } from "node:fs";
import { isCutShort, ZstdThread, type ZstdThreadOptions } from "../base/zstd-thread.ts";
import { CompressionError } from "./compression-error.ts";

/** One byte of zstd may stand for 32 KiB: what a piece becomes must fit into memory. */
const PIECE_BYTES = 4096;

/** @throws CompressionError while it is read */
export async function* unzstdedByLibrary(
  path: PathLike,
  options?: ZstdThreadOptions,
): AsyncGenerator<Uint8Array> {
  const thread = new ZstdThread(options);
  try {
    const source = createReadStream(path, { highWaterMark: PIECE_BYTES });
    for await (const piece of source) yield* await push(thread, piece as Uint8Array, false);
    yield* await push(thread, new Uint8Array(0), true);
  } finally {
    await thread.close();
  }
}

async function push(
  thread: ZstdThread,
  piece: Uint8Array,
  isLast: boolean,
): Promise<readonly Uint8Array[]> {
  try {
    return await thread.push(piece, isLast);
  } catch (error) {
    throw new CompressionError("zstd", isCutShort(error) ? "cut short" : "damaged", error);
  }
}
