/** One request under the recorder's eyes, from its arrival to the end of its answer. */

import { type AnswerReader, createAnswerReader, headerText } from "../measure/answer-reader.ts";
import { rowOf, type TokenCounts, type UnansweredReason } from "./row.ts";

/** What a request needs to know of its answer before the first byte. */
export interface AnswerHead {
  readonly status: number;
  /** Names in lower case, as Node has them. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

/** One request, from its arrival to the end of its answer. */
export interface RecordedRequest {
  /** Bytes of its body; only their number is used. */
  body(bytes: number): void;
  /** The head of its answer has come. Without it the answer is taken for one of status 200. */
  answer(head: AnswerHead): void;
  /** A piece of its answer, as it passes; counts and ends are read, and nothing of it is kept. */
  chunk(bytes: Uint8Array): void;
  /** The answer has ended; with `cut` before its end, which is no row. */
  end(cut?: string): void;
  /** Its client has left: what was generated so far counts. */
  left(): void;
  /** It had no answer: it is no row. */
  drop(): void;
}

export interface OutcomeSink {
  /** Its answer has ended; what it came to is told as soon as all its bytes are unpacked. */
  ending(): void;
  /** Once. */
  ended(outcome: TokenCounts | UnansweredReason): void;
}

const OK = 200;

export function watchRequest(sink: OutcomeSink): RecordedRequest {
  return new WatchedRequest(sink);
}

/** Of a request that is counted as left out already. */
export const UNWATCHED: RecordedRequest = {
  body() {},
  answer() {},
  chunk() {},
  end() {},
  left() {},
  drop() {},
};

class WatchedRequest implements RecordedRequest {
  readonly #sink: OutcomeSink;
  #reader: AnswerReader | undefined;
  #bodyBytes = 0;
  /** Its outcome is known, or comes as soon as all bytes are unpacked. */
  #over = false;

  constructor(sink: OutcomeSink) {
    this.#sink = sink;
  }

  body(bytes: number): void {
    this.#bodyBytes += bytes;
  }

  answer({ status, headers }: AnswerHead): void {
    if (this.#over || this.#reader !== undefined) return;
    if (status !== OK) this.#tell("http_error");
    else this.#read(headers);
  }

  chunk(bytes: Uint8Array): void {
    if (this.#over) return;
    if (this.#reader === undefined) this.#read({});
    this.#reader?.push(bytes, 0);
  }

  end(cut?: string): void {
    this.#end(false, cut);
  }

  left(): void {
    this.#end(true, "Its client has left.");
  }

  drop(): void {
    if (!this.#over) this.#tell("no_answer");
  }

  #read(headers: AnswerHead["headers"]): void {
    this.#reader = createAnswerReader({
      contentType: headerText(headers["content-type"]),
      contentEncoding: headerText(headers["content-encoding"]),
      keepTimes: false,
    });
    if (this.#reader === undefined) this.#tell("encoding");
  }

  #end(left: boolean, cut: string | undefined): void {
    if (this.#over) return;
    if (this.#reader === undefined) {
      this.#tell(left ? "left" : "no_answer");
      return;
    }
    this.#over = true;
    this.#sink.ending();
    this.#reader.end((answer) => this.#sink.ended(rowOf(answer, this.#bodyBytes, left)), cut);
  }

  #tell(outcome: UnansweredReason): void {
    this.#over = true;
    this.#sink.ended(outcome);
  }
}
