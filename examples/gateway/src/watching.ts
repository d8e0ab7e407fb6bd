/** What is seen of an answer as it passes: by the metrics, and by the recorder of traces. */

import type { IncomingHttpHeaders } from "node:http";
import type { RecordedRequest } from "lazygraph";
import { type AnswerReader, createAnswerReader } from "lazygraph/measure";

/**
 * `left`: by the client; `stopped`: by the gateway; `broken`: in the middle of an answer;
 * `unreachable`: nothing was sent to the client yet, so that another engine may try.
 */
export type Outcome = "done" | "left" | "stopped" | "timeout" | "unreachable" | "broken";

/** Undefined for an encoding that it can't undo. */
export function readerOf(headers: IncomingHttpHeaders): AnswerReader | undefined {
  const contentType = textOf(headers["content-type"]);
  const contentEncoding = textOf(headers["content-encoding"]);
  return createAnswerReader({ contentType, contentEncoding, keepTimes: false });
}

export function textOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header.join(", ") : header;
}

/** What the recorder is told: a length that nobody saw the end of is none. */
export function settle(recorded: RecordedRequest | undefined, outcome: Outcome): void {
  switch (outcome) {
    case "done":
      recorded?.end();
      break;
    case "left":
      recorded?.left();
      break;
    default:
      recorded?.end(outcome);
  }
}
