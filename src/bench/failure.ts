/** How a request can fail, for those who make it and those who count it. */

import type { AnswerFailureKind } from "../measure/answer.ts";

/** As the reports count it. */
const REQUEST_FAILURES = [
  "unreachable",
  "unauthorized",
  "no_model",
  "rate_limited",
  "http_error",
  "not_sse",
  "timeout",
  "aborted",
] as const;

export type FailureKind = (typeof REQUEST_FAILURES)[number] | AnswerFailureKind;

export interface Failure {
  readonly kind: FailureKind;
  readonly detail: string;
}
