/**
 * How many tokens an answer of an OpenAI-compatible server tells it had, read from its bytes as
 * they pass. Nothing of the content is kept but the last kilobyte, until the next piece comes.
 */

/** A `usage` object with its details is far smaller; one that is cut in two is found again. */
const CARRY_CHARS = 1024;
const USAGE = /"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})/g;
/** One event of a stream with something in it; the last one is `data: [DONE]`. */
const EVENT = "data: {";

export interface TokenCounts {
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** True where a count was not told and had to be guessed from bytes or events. */
  readonly estimated: boolean;
}

export class UsageReader {
  #carry = "";
  #events = 0;
  #prompt: number | undefined;
  #output: number | undefined;

  push(bytes: Uint8Array): void {
    // Latin 1 has a character for every byte, so that a cut inside one of UTF-8 does no harm.
    const { buffer, byteOffset, length } = bytes;
    const text = this.#carry + Buffer.from(buffer, byteOffset, length).toString("latin1");
    const from = Math.max(0, this.#carry.length - (EVENT.length - 1));
    for (let at = text.indexOf(EVENT, from); at !== -1; at = text.indexOf(EVENT, at + 1)) {
      this.#events++;
    }
    if (text.includes('"usage"')) this.#find(text);
    this.#carry = text.slice(-CARRY_CHARS);
  }

  /**
   * @param bodyBytes of the request: a token has about four of them
   * @returns undefined when nothing was generated, as far as can be told
   */
  counts(bodyBytes: number): TokenCounts | undefined {
    const outputTokens = this.#output ?? this.#events;
    if (outputTokens < 1) return undefined;
    return {
      promptTokens: this.#prompt ?? Math.max(1, Math.round(bodyBytes / 4)),
      outputTokens,
      estimated: this.#prompt === undefined || this.#output === undefined,
    };
  }

  /** The last one counts: some servers tell usage with every event. */
  #find(text: string): void {
    for (const [, json] of text.matchAll(USAGE)) {
      const usage = parsed(json ?? "");
      this.#prompt = tokens(usage["prompt_tokens"]) ?? this.#prompt;
      this.#output = tokens(usage["completion_tokens"]) ?? this.#output;
    }
  }
}

function parsed(json: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(json) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function tokens(value: unknown): number | undefined {
  return Number.isInteger(value) && (value as number) >= 1 ? (value as number) : undefined;
}
