/** Requests as rows of the formats that we write. */

import type { TraceRequest } from "./trace.ts";

/** Our own, which every command reads, and Mooncake's, which most other tools do. */
export const WRITTEN_FORMATS = ["lazygraph", "mooncake"] as const;
export type WrittenFormat = (typeof WRITTEN_FORMATS)[number];

const BLOCK_TOKENS = 512;
/** Of requests without blocks among those with some: far from any id that a trace counts up to. */
const FRESH_ID_MIN = 2 ** 52;

/** Makes rows, each with its line end; one writer a file. */
export class TraceWriter {
  readonly #format: WrittenFormat;
  readonly #blockTokens: number | undefined;
  #nextId: number;

  /** @param blockTokens tokens of a block of the ids that come; undefined where none come */
  constructor(format: WrittenFormat, blockTokens: number | undefined) {
    this.#format = format;
    this.#blockTokens = blockTokens;
    this.#nextId = blockTokens === undefined ? 0 : FRESH_ID_MIN;
  }

  row(request: TraceRequest): string {
    const { atSeconds, promptTokens, outputTokens } = request;
    if (this.#format === "lazygraph") {
      return `${decimal(atSeconds)},${promptTokens},${outputTokens}\n`;
    }
    return `${JSON.stringify({
      timestamp: Math.round(atSeconds * 1000),
      input_length: promptTokens,
      output_length: outputTokens,
      hash_ids: this.#hashIds(request),
    })}\n`;
  }

  /**
   * A block is 512 tokens there, whatever it was here: a new block is named by its last part, which
   * stands for all before it. Prompts of which nothing is known share nothing.
   */
  #hashIds({ promptTokens, hashIds }: TraceRequest): readonly number[] {
    const wanted = Math.ceil(promptTokens / BLOCK_TOKENS);
    if (hashIds === undefined || this.#blockTokens === undefined) {
      return Array.from({ length: wanted }, () => this.#nextId++);
    }
    if (this.#blockTokens === BLOCK_TOKENS) return hashIds;
    const parts = BLOCK_TOKENS / this.#blockTokens;
    return Array.from(
      { length: Math.ceil(hashIds.length / parts) },
      (_, block) => hashIds[Math.min((block + 1) * parts, hashIds.length) - 1] as number,
    );
  }
}

/** Microseconds are what the finest of the traces tell; no exponent, which not all tools read. */
function decimal(seconds: number): string {
  return seconds.toFixed(6).replace(/\.?0+$/, "");
}
