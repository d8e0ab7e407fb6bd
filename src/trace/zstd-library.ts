/**
 * The library that decompresses zstd before Node 22.15, on a thread of its own: of some damaged
 * files it never comes back from a piece, and a thread can be ended in the middle of that.
 */

import { once } from "node:events";
import { createReadStream, type PathLike } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { ZstdErrorCode } from "fzstd";
import { CompressionError } from "./compression-error.ts";

/** One byte of zstd may stand for 32 KiB: what a piece becomes must fit into memory. */
const PIECE_BYTES = 4096;
/** A sound piece takes a tenth of a second where all of its bytes stand for 32 KiB each. */
const PIECE_MS_MAX = 20_000;
const LIBRARY = createRequire(import.meta.url).resolve("fzstd");

/** As text, so that it is a thread of Node's whatever has compiled this file. */
const THREAD = `
const { parentPort, workerData } = require("node:worker_threads");
const { Decompress } = require(workerData);
let out = [];
const decompress = new Decompress((data) => out.push(data));
parentPort.on("message", ({ piece, isLast }) => {
  try {
    decompress.push(piece, isLast);
    parentPort.postMessage({ out });
  } catch (error) {
    parentPort.postMessage({ code: error?.code, message: String(error?.message ?? error) });
  }
  out = [];
});
`;

type Answer =
  | { readonly out: readonly Uint8Array[] }
  | { readonly code: unknown; readonly message: string };

export interface LibraryOptions {
  /** CommonJS, with fzstd's `Decompress`. */
  readonly library?: string;
  /** For one piece of the file. */
  readonly pieceMsMax?: number;
}

/** @throws CompressionError while it is read */
export async function* unzstdedByLibrary(
  path: PathLike,
  { library = LIBRARY, pieceMsMax = PIECE_MS_MAX }: LibraryOptions = {},
): AsyncGenerator<Uint8Array> {
  const thread = new Worker(THREAD, { eval: true, workerData: library });
  try {
    const source = createReadStream(path, { highWaterMark: PIECE_BYTES });
    for await (const piece of source) {
      yield* await push(thread, piece as Uint8Array, false, pieceMsMax);
    }
    yield* await push(thread, new Uint8Array(0), true, pieceMsMax);
  } finally {
    await thread.terminate();
  }
}

async function push(
  thread: Worker,
  piece: Uint8Array,
  isLast: boolean,
  msMax: number,
): Promise<readonly Uint8Array[]> {
  const answering = new AbortController();
  const { signal } = answering;
  // Only an answer that is due keeps the process: whoever reads no further may end it.
  thread.ref();
  thread.postMessage({ piece, isLast });
  let answer: Answer;
  try {
    [answer] = (await Promise.race([
      once(thread, "message", { signal }),
      once(thread, "exit", { signal }).then(() => Promise.reject(new Error("its reader ended"))),
      delay(msMax, undefined, { signal }).then(() =>
        Promise.reject(new Error(`no end of a piece after ${msMax / 1000} s`)),
      ),
    ])) as [Answer];
  } catch (error) {
    throw new CompressionError("zstd", "damaged", error);
  } finally {
    thread.unref();
    answering.abort();
  }
  if ("out" in answer) return answer.out;
  const isCutShort = answer.code === ZstdErrorCode.UnexpectedEOF;
  const fault = isCutShort ? "cut short" : "damaged";
  throw new CompressionError("zstd", fault, new Error(answer.message));
}
