/** A stream as a server or a proxy sends it, and what is right. */

import type { AnswerFailureKind } from "../../src/measure/answer.ts";

export interface Shape {
  readonly name: string;
  /** Which server writes it so, as far as its source or documentation says. */
  readonly from: string;
  /** Sent one after the other; the benchmark waits for each before the next one is sent. */
  readonly pieces: readonly (string | Buffer)[];
  readonly contentType?: string;
  readonly contentEncoding?: string;
  /** The connection is cut after the last piece. */
  readonly cut?: true;
  readonly want: {
    /** Index of the piece with the first content. */
    readonly first?: number;
    /** Events with content. */
    readonly content: number;
    readonly prompt?: number;
    readonly output?: number;
    readonly failure?: AnswerFailureKind;
  };
}

/** The first content is in the first piece, or in the second; two events with it, and usage. */
export const two = { first: 0, content: 2, prompt: 7, output: 2 } as const;
export const late = { ...two, first: 1 } as const;

/** One event with content in the first piece, and then something that is no completion. */
export function fails(failure: AnswerFailureKind, content = 1): Shape["want"] {
  return { ...(content > 0 ? { first: 0 } : {}), content, failure };
}
