/**
 * A shortcut for what nearly all of a stream's reads consist of: chunks of HTTP/1.1's chunked coding
 * that lie whole in what was read. Anything else (a chunk that is cut, one with an extension, the
 * last one) is left to the parser. Pure.
 */

/** Where a chunk's data lies; one object for all, because one a token would be garbage a token. */
export interface ChunkPlace {
  from: number;
  to: number;
  /** Behind the line end that closes the chunk. */
  next: number;
}

/** Digits of a length that no read holds more of. */
const DIGITS_MAX = 6;
const CR = 0x0d;
const LF = 0x0a;

/**
 * @param at where a chunk begins
 * @param end of what was read
 * @param place is set where one lies there whole
 */
export function findWholeChunk(
  bytes: Uint8Array,
  at: number,
  end: number,
  place: ChunkPlace,
): boolean {
  let length = 0;
  let index = at;
  for (; index < end && index - at < DIGITS_MAX; index++) {
    const digit = hexDigit(bytes[index] as number);
    if (digit === -1) break;
    length = length * 16 + digit;
  }
  // The last chunk has no length: trailers may follow it.
  if (length === 0 || !isLineEnd(bytes, index, end)) return false;
  const from = index + 2;
  const to = from + length;
  if (!isLineEnd(bytes, to, end)) return false;
  place.from = from;
  place.to = to;
  place.next = to + 2;
  return true;
}

function isLineEnd(bytes: Uint8Array, at: number, end: number): boolean {
  return at + 2 <= end && bytes[at] === CR && bytes[at + 1] === LF;
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
