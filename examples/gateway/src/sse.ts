/** Server-sent events as bytes: unchanged, but never half of one. */

const EVENT_BYTES_MAX = 1 << 20;
const END = Buffer.from("\n\n");
const END_CRLF = Buffer.from("\r\n\r\n");

/**
 * Lets whole events pass and keeps the beginning of the next one back until it is whole. So an
 * error can be told in an event of its own when the engine dies in the middle of one.
 */
export class WholeEvents {
  #rest: Buffer = Buffer.alloc(0);

  /** What may be passed on now; may be empty. */
  push(bytes: Buffer): Buffer {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const end = Math.max(after(all, END), after(all, END_CRLF));
    // Whatever this is, it is not held without bounds.
    const cut = end === 0 && all.length > EVENT_BYTES_MAX ? all.length : end;
    this.#rest = all.subarray(cut);
    return all.subarray(0, cut);
  }

  /** What a stream that ended by itself ended with. */
  rest(): Buffer {
    return this.#rest;
  }
}

function after(bytes: Buffer, end: Buffer): number {
  const at = bytes.lastIndexOf(end);
  return at === -1 ? 0 : at + end.length;
}

/** As OpenAI's clients expect it: they raise it as an error of the stream. */
export function errorEvent(document: object): string {
  return `data: ${JSON.stringify(document)}\n\n`;
}

export function errorDocument(status: number, type: string, message: string): object {
  return { error: { message, type, param: null, code: status } };
}
