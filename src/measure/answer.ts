/** What became of one answer of a generating server, out of what its events said. Pure. */

import { isCompletion, type Reading } from "./reading.ts";

/** How an answer can fail to be a completion. */
export const ANSWER_FAILURES = [
  "server_error",
  "bad_finish",
  "bad_event",
  "cut_off",
  "no_token",
] as const;

export type AnswerFailureKind = (typeof ANSWER_FAILURES)[number];

export interface AnswerFailure {
  readonly kind: AnswerFailureKind;
  /** A sentence, or the server's own words. */
  readonly detail: string;
}

export interface Answer {
  /** When content came, in the order of events and in the caller's own clock; empty unless kept. */
  readonly contentAtMs: readonly number[];
  /** When the first content came: the time to first token counts until then. */
  readonly firstContentAtMs: number | undefined;
  /** Events with content; where nothing else is known, an event is a token. */
  readonly contentEvents: number;
  /** As the server counted them; undefined when it did not say. */
  readonly promptTokens: number | undefined;
  readonly outputTokens: number | undefined;
  /** Why it ended, in the server's word. */
  readonly finishReason: string | undefined;
  /** Undefined: it is a completion. */
  readonly failure: AnswerFailure | undefined;
}

export interface TallyOptions {
  /** Keeps the time of each event with content. @default true */
  readonly keepTimes?: boolean;
  /** The request asked for usage, so that an end without it may be a cut. @default false */
  readonly usageAsked?: boolean;
}

/** Counts what events say, and decides. The first thing that went wrong stands. */
export class Tally {
  readonly #keepTimes: boolean;
  readonly #usageAsked: boolean;
  readonly #contentAtMs: number[] = [];
  #firstContentAtMs: number | undefined;
  #contentEvents = 0;
  #promptTokens: number | undefined;
  #outputTokens: number | undefined;
  #finish: string | undefined;
  #done = false;
  #failure: AnswerFailure | undefined;

  constructor({ keepTimes = true, usageAsked = false }: TallyOptions = {}) {
    this.#keepTimes = keepTimes;
    this.#usageAsked = usageAsked;
  }

  get failure(): AnswerFailure | undefined {
    return this.#failure;
  }

  /** The server has said all that there is: what the connection does then is of no interest. */
  get done(): boolean {
    return this.#done;
  }

  content(atMs: number): void {
    if (this.#contentEvents++ === 0) this.#firstContentAtMs = atMs;
    if (this.#keepTimes) this.#contentAtMs.push(atMs);
  }

  add(reading: Reading, atMs: number): void {
    const { content, finish, error, promptTokens, outputTokens, done } = reading;
    if (error !== undefined) this.fail("server_error", error);
    // Content after the end is none, but an error is one wherever it stands.
    if (this.#done) return;
    if (content !== undefined) this.content(atMs);
    // Some servers tell usage with every event: the last one counts.
    this.#promptTokens = promptTokens ?? this.#promptTokens;
    this.#outputTokens = outputTokens ?? this.#outputTokens;
    this.#finish = finish ?? this.#finish;
    if (finish !== undefined && !isCompletion(finish)) {
      this.fail("bad_finish", `The answer ended for the reason ${JSON.stringify(finish)}.`);
    }
    if (done === true) this.#done = true;
  }

  /** Once all is said, what follows may be anything but an error. */
  fail(kind: AnswerFailureKind, detail: string): void {
    if (!this.#done || kind === "server_error") this.#failure ??= { kind, detail };
  }

  /** @param cut why the bytes ended before their end, where they did */
  end(cut?: string): Answer {
    const whole = this.#done || (this.#isFinished() && cut === undefined);
    if (!whole) this.fail("cut_off", cut ?? "The stream ended before its end mark.");
    if (this.#contentEvents === 0) {
      this.#failure ??= { kind: "no_token", detail: "The answer ended without content." };
    }
    return {
      contentAtMs: this.#contentAtMs,
      firstContentAtMs: this.#firstContentAtMs,
      contentEvents: this.#contentEvents,
      promptTokens: this.#promptTokens,
      outputTokens: this.#outputTokens,
      finishReason: this.#finish,
      failure: this.#failure,
    };
  }

  /** Without an end mark: it said why it ended, and told the usage where it was asked to. */
  #isFinished(): boolean {
    if (this.#finish === undefined) return false;
    return !this.#usageAsked || this.#outputTokens !== undefined;
  }
}
