/** Calls of a controller's HTTP side: bounded in time and size, each failure one sentence. */

import { controllerAdvice } from "../base/connection-advice.ts";
import { codeOf, ERROR_CODES, type ErrorCode, LazygraphError } from "../base/errors.ts";
import { askFailure, askHttp } from "../base/http-ask.ts";
import { jsonObject } from "../base/parse-json.ts";

export interface Call {
  readonly method?: "GET" | "PUT" | "POST";
  readonly body?: object;
  /** As `askHttp` has it. */
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
  return answered(base, await callText(base, path, how));
}

export function answered(base: URL, text: string): object {
  const answer = jsonObject(text);
  if (answer === undefined) throw unreachable(base, "an answer that is no controller's");
  return answer;
}

/** As `call`, not parsed yet: that of thousands of engines may be known already. */
export async function callText(base: URL, path: string, how: Call): Promise<string> {
  const { token, ...question } = how;
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const { status, text } = await askHttp(new URL(path, base), { ...question, headers }).catch(
    (cause: unknown) => {
      how.signal?.throwIfAborted();
      throw unreachable(base, askFailure(cause), cause);
    },
  );
  if (status >= 200 && status < 300) return text;
  const answer = jsonObject(text);
  throw refused(answer) ?? unreachable(base, `HTTP status ${status}`, undefined, answer);
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
