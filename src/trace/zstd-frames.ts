/**
 * Where the frames of zstd end (RFC 8878), told from headers alone. Pure: nothing is decompressed.
 *
 * Node's decoder reads a file's first frame and no other up to some versions of Node 24, and takes one that is cut
 * short for a whole one: it is given one frame at a time, whose end is known.
 */

import { CompressionError } from "./compression-error.ts";

const MAGIC = 0xfd2fb528;
/** Of frames that carry no content; the low four bits are the writer's own. */
const SKIPPABLE = 0x184d2a50;
const CHECKSUM_FLAG = 0x04;
const RESERVED_FLAG = 0x08;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
/** A block of one byte, repeated. */
const RLE = 1;
const RESERVED_BLOCK = 3;

export interface FramePart {
  readonly bytes: Uint8Array;
  /** They end the frame; the next part begins another one. */
  readonly isLast: boolean;
}

/** What the layout wants to have next: so many bytes of a header, or to have them passed over. */
type Want = { readonly read: number } | { readonly pass: number } | "frame end";

/** Whether the frame whose descriptor this is ends with a checksum of its content. */
export function hasChecksum(descriptor: number): boolean {
  return (descriptor & CHECKSUM_FLAG) !== 0;
}

/** Divides pieces, however they were cut, at the ends of frames. */
export class FrameSplitter {
  readonly #layout = layout();
  #want: Want;
  /** Of the want under way. */
  #got: number[] = [];
  #passed = 0;

  constructor() {
    this.#want = this.#layout.next().value;
  }

  /** Whether the bytes so far are whole frames. */
  isBetweenFrames = true;

  /** @throws CompressionError at bytes that can't be there, once what came before is yielded */
  *push(piece: Uint8Array): Generator<FramePart, void, void> {
    let start = 0;
    let at = 0;
    for (;;) {
      if (this.#want === "frame end") {
        this.isBetweenFrames = true;
        yield { bytes: piece.subarray(start, at), isLast: true };
        start = at;
        this.#next([]);
        continue;
      }
      const taken = this.#take(piece.subarray(at));
      at += taken;
      if (taken > 0) this.isBetweenFrames = false;
      if (!this.#isMet()) break;
      try {
        this.#next(this.#got);
      } catch (error) {
        yield { bytes: piece.subarray(start, at), isLast: false };
        throw error;
      }
    }
    if (at > start) yield { bytes: piece.subarray(start, at), isLast: false };
  }

  #take(bytes: Uint8Array): number {
    if (this.#want === "frame end") return 0;
    if ("pass" in this.#want) {
      const taken = Math.min(bytes.length, this.#want.pass - this.#passed);
      this.#passed += taken;
      return taken;
    }
    const taken = bytes.subarray(0, this.#want.read - this.#got.length);
    this.#got.push(...taken);
    return taken.length;
  }

  #isMet(): boolean {
    if (this.#want === "frame end") return true;
    return "pass" in this.#want
      ? this.#passed === this.#want.pass
      : this.#got.length === this.#want.read;
  }

  #next(bytes: readonly number[]): void {
    this.#want = this.#layout.next(bytes).value;
    this.#got = [];
    this.#passed = 0;
  }
}

function damaged(why: string): CompressionError {
  return new CompressionError("zstd", "damaged", new Error(why));
}

/** The order of what is in a file of zstd; it is handed what it wanted to read. */
function* layout(): Generator<Want, never, readonly number[]> {
  for (;;) {
    const magic = littleEndian(yield { read: 4 });
    // Bitwise results are signed.
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
      yield { pass: littleEndian(yield { read: 4 }) };
    } else if (magic === MAGIC) {
      yield* frameLayout();
    } else {
      throw damaged(`no frame begins with 0x${magic.toString(16)}`);
    }
    yield "frame end";
  }
}

function* frameLayout(): Generator<Want, void, readonly number[]> {
  const [descriptor = 0] = yield { read: 1 };
  if ((descriptor & RESERVED_FLAG) !== 0) throw damaged("a frame with a reserved flag");
  yield { pass: headerBytes(descriptor) };
  for (let isLast = false; !isLast; ) {
    const header = littleEndian(yield { read: 3 });
    isLast = (header & 1) === 1;
    const type = (header >>> 1) & 3;
    if (type === RESERVED_BLOCK) throw damaged("a block of a reserved type");
    yield { pass: type === RLE ? 1 : header >>> 3 };
  }
  if (hasChecksum(descriptor)) yield { pass: 4 };
}

/** After the descriptor: window, dictionary and size of the content. */
function headerBytes(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const window = isSingleSegment ? 0 : 1;
  const dictionary = DICTIONARY_ID_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3];
  const size = CONTENT_SIZE_BYTES[(descriptor >>> 6) as 0 | 1 | 2 | 3];
  return window + dictionary + (size === 0 && isSingleSegment ? 1 : size);
}

function littleEndian(bytes: readonly number[]): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}
