/** Server-sent events as bytes: unchanged, but never half of one. */

const EVENT_BYTES_MAX = 1 << 20;
const LF = 0x0a;
const CR = 0x0d;

/**
 * Lets whole events pass and keeps the beginning of the next one back until it is whole. So an
 * error can be told in an event of its own when the engine dies in the middle of one.
 */
export class WholeEvents {
  #rest: Buffer = Buffer.alloc(0);

  /** What may be passed on now; may be empty. */
  push(bytes: Buffer): Buffer {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const end = afterBlankLine(all);
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

/** Where the last blank line ends, 0 without one; lines end in CR LF, LF or CR, as servers like. */
function afterBlankLine(bytes: Buffer): number {
  for (let at = bytes.length - 1; at > 0; at--) {
    if (bytes[at] !== LF && bytes[at] !== CR) continue;
    const isPair = bytes[at] === LF && bytes[at - 1] === CR;
    const before = bytes[isPair ? at - 2 : at - 1];
    // Half of CR LF, as far as can be told yet.
    if (bytes[at] === CR && before === LF && at === bytes.length - 1) continue;
    if (before === LF || before === CR) return at + 1;
  }
  return 0;
}

/** As OpenAI's clients expect it: they raise it as an error of the stream. */
export function errorEvent(document: object): string {
  return `data: ${JSON.stringify(document)}\n\n`;
}

export function errorDocument(status: number, type: string, message: string): object {
  return { error: { message, type, param: null, code: status } };
}
