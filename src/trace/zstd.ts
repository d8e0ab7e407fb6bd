/**
 * Decompresses a file of zstd: by Node's decoder, which checks the content's checksum, and before
 * Node 22.15, which has none, by a library that checks no checksum.
 */

import { createReadStream, type PathLike } from "node:fs";
import { pipeline, type Transform } from "node:stream";
import * as zlib from "node:zlib";
import { codeOf } from "../base/errors.ts";
import { CompressionError } from "./compression-error.ts";
import { type FramePart, FrameSplitter } from "./zstd-frames.ts";
import { unzstdedByLibrary } from "./zstd-library.ts";

type CreateDecoder = (options: { readonly params: Record<number, number> }) => Transform;

/** `ZSTD_d_windowLogMax`. The library takes windows as large: `zstd --long=31` writes them. */
const NODE_LIMITS = { params: { 100: 31 } };

/** The types are Node 20's, which has none. */
const nodeDecoder = (zlib as { createZstdDecompress?: CreateDecoder }).createZstdDecompress;

/** Whether a damaged content is told by its checksum, in this version of Node. */
export const checksZstd: boolean = nodeDecoder !== undefined;

/** @throws CompressionError while it is read */
export function unzstded(path: PathLike): AsyncGenerator<Uint8Array> {
  return nodeDecoder === undefined ? unzstdedByLibrary(path) : byNode(path, nodeDecoder);
}

async function* byNode(path: PathLike, create: CreateDecoder): AsyncGenerator<Uint8Array> {
  const parts = partsOf(createReadStream(path));
  try {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      const frame = new Frame(next.value, parts);
      // The errors of both reach the reader through the second, which pipeline destroys.
      const decoder = pipeline(frame.bytes(), create(NODE_LIMITS), () => undefined);
      try {
        for await (const chunk of decoder) yield chunk as Uint8Array;
      } catch (error) {
        throw frame.fault ?? decoderFault(error);
      }
      if (frame.fault !== undefined) throw frame.fault;
    }
  } finally {
    await parts.return();
  }
}

/** One frame of several, and why it ended before its end. */
class Frame {
  fault: unknown;
  readonly #first: FramePart;
  readonly #parts: AsyncGenerator<FramePart, void, void>;

  constructor(first: FramePart, parts: AsyncGenerator<FramePart, void, void>) {
    this.#first = first;
    this.#parts = parts;
  }

  /** Ends at a fault as at a frame's end: what came before it is decoded and handed on. */
  async *bytes(): AsyncGenerator<Uint8Array> {
    let part = this.#first;
    for (;;) {
      yield part.bytes;
      if (part.isLast) return;
      try {
        const next = await this.#parts.next();
        if (next.done === true) return;
        part = next.value;
      } catch (error) {
        this.fault = error;
        return;
      }
    }
  }
}

async function* partsOf(source: AsyncIterable<unknown>): AsyncGenerator<FramePart, void, void> {
  const splitter = new FrameSplitter();
  for await (const piece of source) yield* splitter.push(piece as Uint8Array);
  if (splitter.isBetweenFrames) return;
  throw new CompressionError("zstd", "cut short", new Error("the file ends within a frame"));
}

function decoderFault(error: unknown): unknown {
  const code = codeOf(error);
  if (code === "ZSTD_error_checksum_wrong") return new CompressionError("zstd", "checksum", error);
  // Its others are of blocks; what is none of them is of the file.
  const ofZstd = code?.startsWith("ZSTD_") === true || code === "Z_BUF_ERROR";
  return ofZstd ? new CompressionError("zstd", "damaged", error) : error;
}
