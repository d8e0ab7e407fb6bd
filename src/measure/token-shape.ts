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
const QUOTE = '"';
const BACKSLASH = 0x5c;

export class TokenShape {
  readonly #before: string;
  readonly #after: string;

  private constructor(before: string, after: string) {
    this.#before = before;
    this.#after = after;
  }

  /**
   * @param event one whole event as it came, in Latin 1: a character a byte
   * @param content the only content in it
   * @returns undefined where the text can't be told from the rest for certain
   */
  static of(event: string, content: string): TokenShape | undefined {
    if (!PLAIN.test(content) || !event.endsWith("\n\n")) return undefined;
    const quoted = `${QUOTE}${content}${QUOTE}`;
    const at = event.indexOf(quoted);
    if (at === -1 || event.indexOf(quoted, at + 1) !== -1) return undefined;
    if (!CONTENT_KEY.test(event.slice(0, at))) return undefined;
    return new TokenShape(event.slice(0, at + 1), event.slice(at + 1 + content.length));
  }

  /** Whether it is an event of this shape, with a text that is not empty. In Latin 1. */
  fits(event: string): boolean {
    const from = this.#before.length;
    const to = event.length - this.#after.length;
    return (
      to > from &&
      event.startsWith(this.#before) &&
      event.endsWith(this.#after) &&
      // The first quote after the beginning of the text is the one that ends it.
      event.indexOf(QUOTE, from) === to &&
      event.charCodeAt(to - 1) !== BACKSLASH
    );
  }
}
