/**
 * Reads the answer of a generating server from its bytes as they pass: a stream of events or one
 * JSON document, compressed or not.
 */

import { checkOption } from "../base/check-options.ts";
import { messageOf } from "../base/errors.ts";
import { object } from "../base/schema.ts";
import { type Answer, Tally, type TallyOptions } from "./answer.ts";
import { type ContentDecoder, createContentDecoder } from "./content-decoder.ts";
import { EventStream } from "./event-stream.ts";
import { readDocument, readEvent, readStrayLine } from "./reading.ts";
import { TokenShape } from "./token-shape.ts";

export interface AnswerReaderOptions extends TallyOptions {
  /** Header `content-type`; where it says neither stream nor JSON, the first byte decides. */
  readonly contentType: string | undefined;
  /** Header `content-encoding`: gzip, br, deflate, zstd, or several with commas. */
  readonly contentEncoding?: string | undefined;
}

export interface AnswerReader {
  /** Something went wrong already, and nothing that comes can mend it. */
  readonly failed: boolean;
  /** The end mark has come: how the connection ends is of no interest. */
  readonly done: boolean;
  /**
   * @param bytes are read before it returns, or copied
   * @param atMs when the bytes came, in any clock; that of the content in them
   * @param from where they begin to be the answer's; all of them are without
   */
  push(bytes: Uint8Array, atMs: number, from?: number, to?: number): void;
  /**
   * No more bytes come. Once.
   *
   * @param onAnswer is called at once, or, of compressed bytes, when all are through
   * @param cut why they ended before their end, where they did
   */
  end(onAnswer: (answer: Answer) => void, cut?: string): void;
}

/** An answer that is not streamed may be long, but not without bounds. */
const DOCUMENT_BYTES_MAX = 16 << 20;
const BLANK = 0x20;
const BRACE = 0x7b;

/** A header as Node has it, for `AnswerReaderOptions`. */
export function headerText(header: string | readonly string[] | undefined): string | undefined {
  return typeof header === "string" ? header : header?.join(", ");
}

export function isEventStream(contentType: string | undefined): boolean {
  return typeof contentType === "string" && /^\s*text\/event-stream\b/i.test(contentType);
}

/**
 * @returns undefined for an encoding that is not known: its bytes say nothing
 * @throws OptionError without an object
 */
export function createAnswerReader(options: AnswerReaderOptions): AnswerReader | undefined {
  checkOption("options", options, object);
  const tally = new Tally(options);
  const body = bodyOf(options.contentType, tally);
  const decoder = createContentDecoder(options.contentEncoding, (bytes, atMs) => {
    body.push(bytes, atMs, 0, bytes.length);
  });
  if (decoder === undefined) return undefined;
  return decoder === "identity"
    ? new PlainReader(tally, body)
    : new PackedReader(tally, body, decoder);
}

interface Body {
  push(bytes: Uint8Array, atMs: number, from: number, to: number): void;
  end(): void;
}

function bodyOf(contentType: string | undefined, tally: Tally): Body {
  if (isEventStream(contentType)) return new StreamBody(tally);
  if (/\bjson\b/i.test(contentType ?? "")) return new DocumentBody(tally);
  return new GuessedBody(tally);
}

class PlainReader implements AnswerReader {
  readonly #tally: Tally;
  readonly #body: Body;
  /** Bound once: a call a token. */
  readonly push: AnswerReader["push"];

  constructor(tally: Tally, body: Body) {
    this.#tally = tally;
    this.#body = body;
    this.push = (bytes, atMs, from = 0, to = bytes.length) => body.push(bytes, atMs, from, to);
  }

  get failed(): boolean {
    return this.#tally.failure !== undefined;
  }

  get done(): boolean {
    return this.#tally.done;
  }

  end(onAnswer: (answer: Answer) => void, cut?: string): void {
    this.#body.end();
    onAnswer(this.#tally.end(cut));
  }
}

class PackedReader implements AnswerReader {
  readonly #tally: Tally;
  readonly #body: Body;
  readonly #decoder: ContentDecoder;

  constructor(tally: Tally, body: Body, decoder: ContentDecoder) {
    this.#tally = tally;
    this.#body = body;
    this.#decoder = decoder;
  }

  get failed(): boolean {
    return this.#tally.failure !== undefined;
  }

  get done(): boolean {
    return this.#tally.done;
  }

  push(bytes: Uint8Array, atMs: number, from: number = 0, to: number = bytes.length): void {
    this.#decoder.push(bytes.subarray(from, to), atMs);
  }

  end(onAnswer: (answer: Answer) => void, cut?: string): void {
    void this.#decoder.end().then((damage) => {
      this.#body.end();
      // Bytes that were cut can't be whole either: why they were is the better reason.
      onAnswer(this.#tally.end(cut ?? damage));
    });
  }
}

/** After so many events in a row that fit no shape, shapes are not looked for any more. */
const MISSES_MAX = 16;

class StreamBody implements Body {
  readonly #tally: Tally;
  readonly #events: EventStream;
  #shape: TokenShape | undefined;
  #misses = 0;
  #atMs = 0;
  /** Of the piece under way. */
  #eventsSeen = 0;
  #plainContent: string | undefined;

  constructor(tally: Tally) {
    this.#tally = tally;
    this.#events = new EventStream({
      event: (data, name) => this.#event(data, name),
      strayLine: (line) => tally.add(readStrayLine(line), this.#atMs),
    });
  }

  push(bytes: Uint8Array, atMs: number, from: number, to: number): void {
    const shaped = this.#misses < MISSES_MAX && this.#events.atBoundary && !this.#tally.done;
    if (shaped && this.#shape?.fits(bytes, from, to) === true) {
      this.#misses = 0;
      this.#tally.content(atMs);
      return;
    }
    this.#atMs = atMs;
    this.#eventsSeen = 0;
    this.#plainContent = undefined;
    const own = bytes.subarray(from, to);
    this.#feed(() => this.#events.push(own));
    if (shaped) this.#learn(bufferOf(own));
  }

  end(): void {
    // What comes now is an event without its blank line: whole, or cut off within.
    this.#feed(() => this.#events.end(), true);
  }

  #feed(feed: () => void, isLast = false): void {
    try {
      feed();
    } catch (error) {
      const isCut = isLast && error instanceof SyntaxError;
      if (isCut) this.#tally.fail("cut_off", "The stream ended within an event.");
      else this.#tally.fail("bad_event", messageOf(error));
    }
  }

  #event(data: string, name: string | undefined): void {
    this.#eventsSeen++;
    // Once it has failed only the first reason counts, and what follows may be anything.
    if (this.#tally.failure !== undefined) return;
    const reading = readEvent(data, name);
    this.#tally.add(reading, this.#atMs);
    const { content, ...more } = reading;
    this.#plainContent = Object.keys(more).length === 0 ? content : undefined;
  }

  /** Of a piece that was one whole event with content and nothing else. */
  #learn(raw: Buffer): void {
    if (this.#eventsSeen !== 1 || !this.#events.atBoundary) return;
    if (this.#plainContent === undefined) return;
    this.#misses++;
    this.#shape = TokenShape.of(raw, this.#plainContent) ?? this.#shape;
  }
}

/** JSON begins with a brace, and no event does. */
class GuessedBody implements Body {
  readonly #tally: Tally;
  #body: Body | undefined;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  push(bytes: Uint8Array, atMs: number, from: number, to: number): void {
    if (this.#body === undefined) {
      const first = bytes.subarray(from, to).find((byte) => byte > BLANK);
      if (first === undefined) return;
      this.#body = first === BRACE ? new DocumentBody(this.#tally) : new StreamBody(this.#tally);
    }
    this.#body.push(bytes, atMs, from, to);
  }

  end(): void {
    this.#body?.end();
  }
}

class DocumentBody implements Body {
  readonly #tally: Tally;
  readonly #pieces: Uint8Array[] = [];
  #bytes = 0;
  #atMs = 0;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  push(bytes: Uint8Array, atMs: number, from: number, to: number): void {
    this.#atMs = atMs;
    this.#bytes += to - from;
    // The caller's bytes may be others by the end.
    if (this.#bytes <= DOCUMENT_BYTES_MAX) this.#pieces.push(Buffer.from(bytes.subarray(from, to)));
    else this.#pieces.length = 0;
  }

  end(): void {
    try {
      if (this.#bytes > DOCUMENT_BYTES_MAX) {
        throw new RangeError(`An answer has over ${DOCUMENT_BYTES_MAX} bytes.`);
      }
      const value: unknown = JSON.parse(Buffer.concat(this.#pieces).toString());
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new SyntaxError("Expected an answer to be a JSON object.");
      }
      // A document that is whole is an end; how it ended is in it.
      const reading = readDocument(value as Readonly<Record<string, unknown>>);
      this.#tally.add({ ...reading, done: true }, this.#atMs);
    } catch (error) {
      this.#tally.fail("bad_event", messageOf(error));
    }
  }
}

function bufferOf(bytes: Uint8Array): Buffer {
  if (Buffer.isBuffer(bytes)) return bytes;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
