/** Undoes `content-encoding`, piece by piece, each with the time at which its bytes came. */

import type { Transform } from "node:stream";
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
} from "node:zlib";
import { messageOf } from "../base/errors.ts";
import { ZstdThread, type ZstdThreadOptions } from "../base/zstd-thread.ts";

export interface ContentDecoder {
  push(bytes: Uint8Array, atMs: number): void;
  /** @returns what was wrong with the bytes, if anything; resolves once all are through */
  end(): Promise<string | undefined>;
}

export type DecodedSink = (bytes: Uint8Array, atMs: number) => void;

/** Servers apply one; a chain of many is an attack on whoever undoes it. */
const ENCODINGS_MAX = 3;
/** What one answer may come to: beyond it the rest is left unread. */
const DECODED_BYTES_MAX = 256 << 20;

type Stage = (sink: DecodedSink) => ContentDecoder;

const STAGES: Readonly<Record<string, Stage>> = {
  gzip: (sink) => new Unzipped(createGunzip(syncFlush()), sink),
  "x-gzip": (sink) => new Unzipped(createGunzip(syncFlush()), sink),
  br: (sink) => new Unzipped(createBrotliDecompress(brotliFlush()), sink),
  deflate: (sink) => new Inflated(sink),
  zstd: (sink) => new Unzstd(sink),
};

/**
 * @returns `identity` where nothing is to undo; undefined for an encoding that is not known
 */
export function createContentDecoder(
  contentEncoding: string | undefined,
  sink: DecodedSink,
): ContentDecoder | "identity" | undefined {
  const names = (contentEncoding ?? "")
    .toLowerCase()
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "" && name !== "identity");
  if (names.length === 0) return "identity";
  if (names.length > ENCODINGS_MAX) return undefined;
  const stages = names.map((name) => (Object.hasOwn(STAGES, name) ? STAGES[name] : undefined));
  let next: ContentDecoder | undefined;
  // Named in the order in which they were applied: the last one is undone first.
  for (const stage of stages) {
    if (stage === undefined) return undefined;
    const after = next;
    const target: DecodedSink =
      after === undefined ? limited(sink) : (bytes, atMs) => after.push(bytes, atMs);
    const own = stage(target);
    next = after === undefined ? own : chained(own, after);
  }
  return next;
}

function limited(sink: DecodedSink): DecodedSink {
  let left = DECODED_BYTES_MAX;
  return (bytes, atMs) => {
    left -= bytes.length;
    if (left >= 0) sink(bytes, atMs);
  };
}

function chained(one: ContentDecoder, after: ContentDecoder): ContentDecoder {
  return {
    push: (bytes, atMs) => one.push(bytes, atMs),
    end: async () => (await one.end()) ?? (await after.end()),
  };
}

/** An answer that ends early gives what it had: the end of the packed bytes is not waited for. */
function syncFlush() {
  return { finishFlush: constants.Z_SYNC_FLUSH };
}

function brotliFlush() {
  return { finishFlush: constants.BROTLI_OPERATION_FLUSH };
}

/** A decoder of node:zlib, whose pieces go through a pool of threads one after the other. */
class Unzipped implements ContentDecoder {
  readonly #transform: Transform;
  /** When the pieces under way came; the first is the one that is decoded. */
  readonly #times: number[] = [];
  readonly #ended: Promise<void>;
  #damage: string | undefined;
  #lastMs = 0;

  constructor(transform: Transform, sink: DecodedSink) {
    this.#transform = transform;
    transform.on("data", (bytes: Buffer) => sink(bytes, this.#times[0] ?? this.#lastMs));
    this.#ended = new Promise((resolve) => {
      transform.once("end", resolve);
      transform.once("error", (error) => {
        this.#damage = messageOf(error);
        resolve();
      });
    });
  }

  push(bytes: Uint8Array, atMs: number): void {
    if (this.#damage !== undefined) return;
    this.#times.push(atMs);
    this.#lastMs = atMs;
    // The caller's bytes may be others by the time that they are decoded.
    this.#transform.write(Buffer.from(bytes), () => this.#times.shift());
  }

  async end(): Promise<string | undefined> {
    this.#transform.end();
    await this.#ended;
    return this.#damage;
  }
}

/** RFC 9110 means zlib's format; some servers send bare deflate, as browsers know. */
class Inflated implements ContentDecoder {
  readonly #sink: DecodedSink;
  #decoder: Unzipped | undefined;

  constructor(sink: DecodedSink) {
    this.#sink = sink;
  }

  push(bytes: Uint8Array, atMs: number): void {
    const [first] = bytes;
    if (first === undefined) return;
    // The low four bits of zlib's first byte name its method, which is always 8.
    const transform = (first & 0x0f) === 8 ? createInflate : createInflateRaw;
    this.#decoder ??= new Unzipped(transform(syncFlush()), this.#sink);
    this.#decoder.push(bytes, atMs);
  }

  end(): Promise<string | undefined> {
    return this.#decoder?.end() ?? Promise.resolve(undefined);
  }
}

/** By a library: Node 20 has no zstd, and 22's reads the first of several frames and no more. */
export class Unzstd implements ContentDecoder {
  readonly #thread: ZstdThread;
  readonly #sink: DecodedSink;
  /** Of all pieces so far, one after the other. */
  #read: Promise<void> = Promise.resolve();
  #damage: string | undefined;

  constructor(sink: DecodedSink, options?: ZstdThreadOptions) {
    this.#sink = sink;
    this.#thread = new ZstdThread(options);
  }

  push(bytes: Uint8Array, atMs: number): void {
    if (this.#damage !== undefined) return;
    // The caller's bytes may be others by the time that they are decoded.
    const piece = Uint8Array.from(bytes);
    this.#read = this.#read.then(() => this.#decode(piece, atMs));
  }

  async #decode(piece: Uint8Array, atMs: number): Promise<void> {
    if (this.#damage !== undefined) return;
    try {
      for (const bytes of await this.#thread.push(piece, false)) {
        if (bytes.length > 0) this.#sink(bytes, atMs);
      }
    } catch (error) {
      this.#damage = messageOf(error);
    }
  }

  async end(): Promise<string | undefined> {
    await this.#read;
    await this.#thread.close();
    return this.#damage;
  }
}
