/**
 * The library that decompresses zstd before Node 22.15, on a thread of its own: of some damaged
 * bytes it never comes back, and a thread can be ended in the middle of that.
 */

import { once } from "node:events";
import { createRequire } from "node:module";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { ZstdErrorCode } from "fzstd";

/** A sound piece of 4 KiB takes a tenth of a second where each byte of it stands for 32 KiB. */
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

export interface ZstdThreadOptions {
  /** CommonJS, with fzstd's `Decompress`. */
  readonly library?: string;
  /** For one piece. */
  readonly pieceMsMax?: number;
}

export class ZstdThread {
  readonly #thread: Worker;
  readonly #pieceMsMax: number;

  constructor({ library = LIBRARY, pieceMsMax = PIECE_MS_MAX }: ZstdThreadOptions = {}) {
    this.#thread = new Worker(THREAD, { eval: true, workerData: library });
    this.#thread.unref();
    this.#pieceMsMax = pieceMsMax;
  }

  /**
   * Not before the last piece is through.
   *
   * @param isLast whether the bytes have to be whole with this piece
   * @throws Error of what was wrong with them; `isCutShort` tells one sort of it
   */
  async push(piece: Uint8Array, isLast: boolean): Promise<readonly Uint8Array[]> {
    const answering = new AbortController();
    const { signal } = answering;
    const fail = (what: string) => (): Promise<never> => Promise.reject(new Error(what));
    // Only an answer that is due keeps the process: whoever reads no further may end it.
    this.#thread.ref();
    this.#thread.postMessage({ piece, isLast });
    try {
      const [answer] = (await Promise.race([
        once(this.#thread, "message", { signal }),
        once(this.#thread, "exit", { signal }).then(fail("its reader ended")),
        delay(this.#pieceMsMax, undefined, { signal }).then(
          fail(`no end of a piece after ${this.#pieceMsMax / 1000} s`),
        ),
      ])) as [Answer];
      if ("out" in answer) return answer.out;
      throw Object.assign(new Error(answer.message), { code: answer.code });
    } finally {
      this.#thread.unref();
      answering.abort();
    }
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
  }
}

/** Whether an error of `push` says that more bytes were to come. */
export function isCutShort(error: unknown): boolean {
  return (error as { code?: unknown }).code === ZstdErrorCode.UnexpectedEOF;
}
