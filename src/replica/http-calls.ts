/** Calls of a controller's HTTP side: bounded in time and size, each failure one sentence. */

import { controllerAdvice } from "../base/connection-advice.ts";
import { codeOf, ERROR_CODES, type ErrorCode, LazygraphError, messageOf } from "../base/errors.ts";
import { jsonObject } from "../base/parse-json.ts";

/** 64 engines of 102 graphs come to some 4 MiB. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024;
/** How long `fetch` waits until an answer begins. */
const FETCH_PATIENCE_MS = 300_000;
const GLOBAL_DISPATCHER = Symbol.for("undici.globalDispatcher.1");

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
  let response: Response;
  let text: string;
  try {
    response = await fetch(new URL(path, base), {
      method,
      redirect: "error",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
      signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
      ...patient(timeoutMs),
    });
    text = await boundedText(response);
  } catch (cause) {
    signal?.throwIfAborted();
    throw unreachable(base, limit.aborted ? `no answer within ${timeoutMs} ms` : why(cause), cause);
  }
  const answer = jsonObject(text);
  if (response.ok && answer !== undefined) return answer;
  throw refused(answer) ?? unreachable(base, `HTTP status ${response.status}`, undefined, answer);
}

/**
 * What `fetch` uses by itself, without its own limit until an answer begins: a sleep may take
 * longer. Read where it is kept, because importing undici would put another one there.
 */
function patient(headersTimeout: number): Pick<RequestInit, "dispatcher"> {
  const usual: RequestInit["dispatcher"] = Reflect.get(globalThis, GLOBAL_DISPATCHER);
  if (headersTimeout <= FETCH_PATIENCE_MS || usual === undefined) return {};
  const dispatch: typeof usual.dispatch = (options, handler) =>
    usual.dispatch({ ...options, headersTimeout }, handler);
  return { dispatcher: { dispatch } as typeof usual };
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += (chunk as Uint8Array).length;
    if (bytes > ANSWER_BYTES_MAX)
      throw new Error(`an answer of more than ${ANSWER_BYTES_MAX} bytes`);
    text += decoder.decode(chunk as Uint8Array, { stream: true });
  }
  return text + decoder.decode();
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

/** `fetch failed` says nothing; its cause does. */
function why(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return codeOf(cause) ?? (cause === undefined ? messageOf(error) : messageOf(cause));
}
