/**
 * Server-sent events out of the bytes of one response body, however the body was cut on its way.
 *
 * The grammar is eventsource-parser's. What is added: bytes may end inside a character, a line that
 * ends in CR alone is told at once (a parser has to wait whether LF follows, and a token would get
 * the time of the next one), and a last event without its blank line counts.
 */

import { createParser, type EventSourceParser } from "eventsource-parser";

/** An event larger than this is no token. */
const EVENT_CHARS_MAX = 1 << 20;

export interface EventSink {
  event(data: string, name: string | undefined): void;
  /** A line that is no field of the format, such as a proxy's error in place of an event. */
  strayLine(line: string): void;
}

export class EventStream {
  readonly #decoder = new TextDecoder();
  readonly #parser: EventSourceParser;
  /** The beginning of a line whose end has not come. */
  #rest = "";
  #eventChars = 0;
  #endedInCr = false;
  #atBoundary = true;
  /** An event was too large: nothing of the rest is read or kept. */
  #isOver = false;

  constructor(sink: EventSink) {
    this.#parser = createParser({
      onEvent: ({ data, event }) => {
        this.#eventChars = 0;
        sink.event(data, event);
      },
      onError: ({ type, line }) => {
        if (type === "unknown-field" && line !== undefined) sink.strayLine(line);
      },
    });
  }

  /** Between two events: what comes next begins one. */
  get atBoundary(): boolean {
    return this.#atBoundary;
  }

  /** @throws RangeError for an event of more than 1,048,576 characters */
  push(bytes: Uint8Array): void {
    this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  /** No more bytes come. @throws RangeError as `push` */
  end(): void {
    this.#take(`${this.#decoder.decode()}\n\n`);
  }

  #take(decoded: string): void {
    if (this.#isOver) return;
    const text = this.#withLineFeeds(decoded);
    if (text === "") return;
    const end = text.lastIndexOf("\n") + 1;
    this.#eventChars += text.length;
    if (end > 0) {
      this.#parser.feed(this.#rest + text.slice(0, end));
      // A blank line ends whatever was there, be it an event or only comments.
      if (text.endsWith("\n\n")) this.#eventChars = 0;
      this.#rest = text.slice(end);
    } else this.#rest += text;
    this.#atBoundary = text.endsWith("\n\n");
    if (this.#eventChars > EVENT_CHARS_MAX) {
      this.#isOver = true;
      this.#rest = "";
      this.#parser.reset();
      throw new RangeError(`An event of the stream has over ${EVENT_CHARS_MAX} characters.`);
    }
  }

  /** CR LF and CR become LF; the LF of a pair that was cut in two is left out. */
  #withLineFeeds(decoded: string): string {
    const text = this.#endedInCr && decoded.startsWith("\n") ? decoded.slice(1) : decoded;
    if (decoded !== "") this.#endedInCr = decoded.endsWith("\r");
    return text.includes("\r") ? text.replaceAll(/\r\n?/g, "\n") : text;
  }
}
