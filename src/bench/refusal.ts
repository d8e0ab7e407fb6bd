/** Why an answer is no stream of tokens, by its status and beginning. Pure. */

import type { Failure } from "./failure.ts";

export interface RefusedAnswer {
  readonly status: number;
  readonly type: string;
  /** The beginning of its body. */
  readonly text: string;
}

/** Fields that some servers refuse, and the option that leaves each out. */
const FIELDS = [
  ["stream_options", "--no-stream-options"],
  ["ignore_eos", "--stop-at-eos"],
  ["max_tokens", "--no-max-tokens"],
] as const;

export function refusalOf({ status, type, text }: RefusedAnswer): Failure {
  const detail = `${status} ${type}: ${text}`;
  switch (status) {
    case 200:
      return { kind: "not_sse", detail };
    case 401:
    case 403:
      return {
        kind: "unauthorized",
        detail: `${status}: give a key by --api-key or OPENAI_API_KEY. ${text}`,
      };
    case 404:
      return { kind: /model/i.test(text) ? "no_model" : "http_error", detail };
    case 429:
      return { kind: "rate_limited", detail };
    default:
      return { kind: "http_error", detail: `${hintOf(status, text)}${detail}` };
  }
}

function hintOf(status: number, text: string): string {
  if (status !== 400 && status !== 422) return "";
  const [name, option] = FIELDS.find(([field]) => text.includes(field)) ?? [];
  return option === undefined ? "" : `${option} leaves out ${name}. `;
}
