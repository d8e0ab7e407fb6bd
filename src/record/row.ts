/** What a recorded request comes to: a row, or the reason why it is none. Pure. */

import type { Answer, AnswerFailureKind } from "../measure/answer.ts";

/**
 * Why a request is no row. `no_answer`: the server gave none; `left`: its client went before
 * anything was generated; `encoding`: one that is not known; then what was wrong with the answer.
 */
export type UnansweredReason = "no_answer" | "http_error" | "left" | "encoding" | AnswerFailureKind;

/** Why a request is left out: it took too long, or there is no room, file or open recorder for it. */
export type LeftOutReason = "too_long" | "rows" | "memory" | "file" | "closed";

export type UnrecordedReason = UnansweredReason | LeftOutReason;

export interface TokenCounts {
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** True where a count was not told and had to be guessed from bytes or events. */
  readonly estimated: boolean;
  /** Its client left before the end: the counts are those until then. */
  readonly leftEarly: boolean;
}

/** Of text in JSON; only where the server tells no count. */
const BYTES_PER_TOKEN = 4;

/**
 * @param bodyBytes of the request
 * @param left its client went before the end: what came until then was generated all the same
 */
export function rowOf(
  answer: Answer,
  bodyBytes: number,
  left: boolean,
): TokenCounts | UnansweredReason {
  const { failure, contentEvents } = answer;
  const promptTokens = atLeastOne(answer.promptTokens);
  const outputTokens = atLeastOne(answer.outputTokens) ?? atLeastOne(contentEvents);
  const cutByClient = left && (failure?.kind === "cut_off" || failure?.kind === "no_token");
  // A token may have no text: that it was generated is what counts here.
  const counted = failure?.kind === "no_token" && outputTokens !== undefined;
  if (failure !== undefined && !cutByClient && !counted) return failure.kind;
  if (outputTokens === undefined) return left ? "left" : "no_token";
  return {
    promptTokens: promptTokens ?? Math.max(1, Math.round(bodyBytes / BYTES_PER_TOKEN)),
    outputTokens,
    estimated: promptTokens === undefined || atLeastOne(answer.outputTokens) === undefined,
    leftEarly: cutByClient,
  };
}

function atLeastOne(count: number | undefined): number | undefined {
  return count !== undefined && count >= 1 ? count : undefined;
}
