/**
 * A shortcut for the events that nearly all of a stream consists of: byte for byte the same but for
 * their text. Such an event is recognised by what stands before and after the text, at a tenth of
 * what parsing costs; whatever differs in anything else is parsed.
 */

/** The names under which content stands in an event; before it, so that nothing else is taken. */
const CONTENT_KEY =
  /"(?:text|content|reasoning_content|reasoning|arguments|delta|thinking|partial_json)"\s*:\s*$/;
/** A text that JSON writes as it is. */
const PLAIN = /^[ !#-[\]-~]+$/;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

export class TokenShape {
  readonly #before: Buffer;
  readonly #after: Buffer;

  private constructor(before: Buffer, after: Buffer) {
    this.#before = before;
    this.#after = after;
  }

  /**
   * @param event one whole event as it came
   * @param content the only content in it
   * @returns undefined where the text can't be told from the rest for certain
   */
  static of(event: Buffer, content: string): TokenShape | undefined {
    if (!PLAIN.test(content)) return undefined;
    // Latin 1 has a character for every byte, so that places are those of the bytes.
    const text = event.toString("latin1");
    const quoted = `"${content}"`;
    const at = text.indexOf(quoted);
    if (at === -1 || text.indexOf(quoted, at + 1) !== -1) return undefined;
    if (!text.endsWith("\n\n") || !CONTENT_KEY.test(text.slice(0, at))) return undefined;
    const from = at + 1;
    // Copies: the bytes themselves are a part of what the connection has read.
    return new TokenShape(
      Buffer.from(event.subarray(0, from)),
      Buffer.from(event.subarray(from + content.length)),
    );
  }

  /**
   * Whether what lies between the two places is an event of this shape, with a text that is not
   * empty and has no escapes.
   */
  fits(bytes: Uint8Array, start: number, end: number): boolean {
    const from = start + this.#before.length;
    const to = end - this.#after.length;
    if (to <= from) return false;
    if (this.#before.compare(bytes, start, from) !== 0) return false;
    if (this.#after.compare(bytes, to, end) !== 0) return false;
    for (let at = from; at < to; at++) {
      const byte = bytes[at];
      // With a quote the text ends before, with a backslash maybe later.
      if (byte === QUOTE || byte === BACKSLASH) return false;
    }
    return true;
  }
}
