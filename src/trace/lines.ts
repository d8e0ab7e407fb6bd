/** Lines of a byte stream, numbered from 1, each bounded before it is held in memory. */

import { traceError } from "./error.ts";

/** A prompt of a million tokens in blocks of 16 has half a megabyte of ids; span batches more. */
const LINE_CHARS_MAX = 16 * 1024 * 1024;

export interface Line {
  readonly number: number;
  readonly text: string;
}

/**
 * Ends of lines are LF or CRLF; a byte order mark at the start is left out.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` for bytes that are no UTF-8 and lines too long
 */
export async function* linesOf(
  file: string,
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<Line> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let number = 0;
  // Pieces of the line under way, joined once it has ended: joined at every chunk, a long one would
  // cost the square of its length.
  let pieces: string[] = [];
  let chars = 0;
  const decoded = (chunk?: Uint8Array): string => {
    try {
      return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
    } catch (error) {
      throw traceError(file, number + 1, "text in UTF-8", "other bytes in or after it", error);
    }
  };
  for await (const chunk of bytes) {
    const [head = "", ...others] = decoded(chunk).split("\n");
    pieces.push(head);
    chars += head.length;
    for (const other of others) {
      yield { number: ++number, text: pieces.join("").replace(/\r$/, "") };
      pieces = [other];
      chars = other.length;
    }
    if (chars <= LINE_CHARS_MAX) continue;
    const expected = `lines of at most ${LINE_CHARS_MAX} characters`;
    throw traceError(file, number + 1, expected, "a longer one");
  }
  const last = pieces.join("") + decoded();
  if (last !== "") yield { number: ++number, text: last };
}
