/** Calls of a controller's HTTP side: bounded in time and size, each failure one sentence. */

import { controllerAdvice } from "../base/connection-advice.ts";
import { codeOf, ERROR_CODES, type ErrorCode, LazygraphError } from "../base/errors.ts";
import { askFailure, askHttp, type HttpAnswer } from "../base/http-ask.ts";
import { jsonObject } from "../base/parse-json.ts";

export interface Call {
  readonly method?: "GET" | "PUT" | "POST";
  readonly body?: object;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Bearer token. */
  readonly token?: string;
}

/** Of a user's URL: http or https, a path kept as a prefix; undefined for what is none. */
export function baseUrl(text: unknown): URL | undefined {
  if (typeof text !== "string" || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  if (!/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "")
    return undefined;
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  url.search = "";
  return url;
}

/**
 * @throws LazygraphError with the controller's own code where it refuses,
 *   `ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE` where none answers
 */
export async function call(base: URL, path: string, how: Call): Promise<object> {
  const { method = "GET", body, timeoutMs, signal, token } = how;
  // Looked at below, which also keeps it: Node 20 forgets a timeout that only `any` has.
  const limit = AbortSignal.timeout(timeoutMs);
  let got: HttpAnswer;
  try {
    got = await askHttp(new URL(path, base), {
      method,
      body,
      ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
      signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
    });
  } catch (cause) {
    signal?.throwIfAborted();
    const why = limit.aborted ? `no answer within ${timeoutMs} ms` : askFailure(cause);
    throw unreachable(base, why, cause);
  }
  const answer = jsonObject(got.text);
  const isGood = got.status >= 200 && got.status < 300;
  if (isGood && answer !== undefined) return answer;
  throw refused(answer) ?? unreachable(base, `HTTP status ${got.status}`, undefined, answer);
}

/** What the controller itself said, with its own code where that is one of ours. */
function refused(answer: object | undefined): LazygraphError | undefined {
  const error = answer !== undefined && "error" in answer ? answer.error : undefined;
  const code = ERROR_CODES.find((known) => known === codeOf(error));
  if (code === undefined || typeof error !== "object" || error === null) return undefined;
  const message = "message" in error ? String(error.message) : "refused without a reason";
  return new LazygraphError(code satisfies ErrorCode, message);
}

export function unreachable(
  base: URL,
  got: string,
  cause?: unknown,
  answer?: object,
): LazygraphError {
  const other = "start it there, or give the URL of the one that runs";
  return new LazygraphError(
    "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
    `Expected a controller's HTTP side at ${base.origin}, got ${got}: ` +
      controllerAdvice(got, base, other, answer),
    cause === undefined ? undefined : { cause },
  );
}
