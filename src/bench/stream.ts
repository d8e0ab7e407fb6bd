/**
 * One streaming request against an OpenAI-compatible endpoint, with the time of every token. What
 * goes wrong is an outcome, not an exception: a benchmark counts it and goes on.
 */

import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { messageOf } from "../errors.ts";
import { SseParser } from "./sse.ts";

export type Endpoint = "completions" | "chat";

/** How a request can fail, as the reports count it. */
export const FAILURES = [
  "unreachable",
  "no_model",
  "rate_limited",
  "http_error",
  "not_sse",
  "bad_event",
  "no_token",
  "cut_off",
  "timeout",
  "aborted",
] as const;

export type FailureKind = (typeof FAILURES)[number];

export interface Failure {
  readonly kind: FailureKind;
  readonly detail: string;
}

export interface StreamRequest {
  /** Base URL, without `/v1`. */
  readonly url: URL;
  readonly endpoint: Endpoint;
  readonly model: string;
  /** A text, or token ids where the endpoint is completions. */
  readonly prompt: string | readonly number[];
  readonly maxTokens: number;
  /** Generates `maxTokens` whatever the model would say. */
  readonly ignoreEos: boolean;
  readonly timeoutMs: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Milliseconds are of `performance.now()`. */
export interface StreamOutcome {
  readonly sentAtMs: number;
  /** One for each event that carried a token, in order; empty when none came. */
  readonly tokensAtMs: readonly number[];
  /** As the server counted them; undefined when it did not say. */
  readonly promptTokens: number | undefined;
  readonly outputTokens: number | undefined;
  readonly failure: Failure | undefined;
}

/**
 * No limit on connections: a pool that makes late arrivals wait would hide what it measures. A
 * connection idle for two seconds is not used again, because servers close theirs after five.
 */
const POOL = { keepAlive: true, maxFreeSockets: 4096, timeout: 2000 } as const;
const pools = { http: new HttpAgent(POOL), https: new HttpsAgent(POOL) };
const DETAIL_CHARS_MAX = 300;

/** Never rejects. */
export function streamRequest(options: StreamRequest): Promise<StreamOutcome> {
  return new Promise((resolve) => {
    const body = JSON.stringify(bodyOf(options));
    const stream = new Stream(resolve);
    const { url, endpoint, headers, timeoutMs, signal } = options;
    const secure = url.protocol === "https:";
    const path = endpoint === "chat" ? "v1/chat/completions" : "v1/completions";
    const base = url.href.endsWith("/") ? url.href : `${url.href}/`;
    const call = (secure ? httpsRequest : httpRequest)(
      new URL(path, base),
      {
        method: "POST",
        agent: secure ? pools.https : pools.http,
        headers: {
          ...headers,
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
        },
      },
      (response) => receive(response, stream),
    );
    const timer = setTimeout(() => {
      stream.fail("timeout", `No end of the answer within ${timeoutMs} ms.`);
      call.destroy();
    }, timeoutMs);
    const abort = (): void => {
      stream.fail("aborted", "The benchmark was stopped.");
      call.destroy();
    };
    if (signal?.aborted === true) abort();
    signal?.addEventListener("abort", abort, { once: true });
    call.on("error", (error: NodeJS.ErrnoException) => {
      stream.fail(stream.answered ? "cut_off" : "unreachable", error.code ?? error.message);
    });
    call.on("close", () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      stream.end();
    });
    call.end(body);
  });
}

function bodyOf(options: StreamRequest): object {
  const { endpoint, prompt } = options;
  const asked =
    endpoint === "chat" ? { messages: [{ role: "user", content: prompt }] } : { prompt };
  return {
    model: options.model,
    ...asked,
    max_tokens: options.maxTokens,
    temperature: 0,
    ...(options.ignoreEos ? { ignore_eos: true } : {}),
    stream: true,
    stream_options: { include_usage: true },
  };
}

function receive(response: IncomingMessage, stream: Stream): void {
  stream.answered = true;
  const status = response.statusCode ?? 0;
  const type = response.headers["content-type"] ?? "no content type";
  response.on("error", (error: NodeJS.ErrnoException) => {
    stream.fail("cut_off", error.code ?? error.message);
  });
  if (status !== 200 || !type.startsWith("text/event-stream")) {
    refuse(response, stream, status, type);
    return;
  }
  const parser = new SseParser();
  response.setEncoding("utf8");
  response.on("data", (text: string) => {
    const now = performance.now();
    try {
      for (const data of parser.push(text)) stream.event(data, now);
    } catch (error) {
      stream.fail("bad_event", messageOf(error));
    }
    if (stream.failed) response.destroy();
  });
}

/** An answer that is no stream: its beginning says why. */
function refuse(response: IncomingMessage, stream: Stream, status: number, type: string): void {
  let text = "";
  response.setEncoding("utf8");
  response.on("data", (part: string) => {
    if (text.length < DETAIL_CHARS_MAX) text += part;
  });
  response.on("end", () => {
    const detail = `${status} ${type}: ${text}`;
    if (status === 200) stream.fail("not_sse", detail);
    else if (status === 429) stream.fail("rate_limited", detail);
    else if (status === 404 && /model/i.test(text)) stream.fail("no_model", detail);
    else stream.fail("http_error", detail);
  });
}

/** What is known of one request so far; the first failure stands. */
class Stream {
  answered = false;
  readonly #resolve: (outcome: StreamOutcome) => void;
  readonly #sentAtMs = performance.now();
  readonly #tokensAtMs: number[] = [];
  #promptTokens: number | undefined;
  #outputTokens: number | undefined;
  #done = false;
  #failure: Failure | undefined;

  constructor(resolve: (outcome: StreamOutcome) => void) {
    this.#resolve = resolve;
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  fail(kind: FailureKind, detail: string): void {
    if (this.#done) return;
    this.#failure ??= { kind, detail: detail.trim().slice(0, DETAIL_CHARS_MAX) };
  }

  event(data: string, atMs: number): void {
    if (this.#done || this.failed) return;
    if (data === "[DONE]") {
      this.#done = true;
      return;
    }
    const chunk: unknown = JSON.parse(data);
    if (typeof chunk !== "object" || chunk === null) throw new TypeError(`An event is ${data}.`);
    const { choices, usage, error } = chunk as {
      choices?: readonly unknown[];
      usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
      error?: unknown;
    };
    if (error !== undefined) throw new Error(`The server reports ${JSON.stringify(error)}.`);
    if (isToken(choices?.[0])) this.#tokensAtMs.push(atMs);
    if (usage !== undefined && usage !== null) {
      this.#promptTokens = usage.prompt_tokens;
      this.#outputTokens = usage.completion_tokens;
    }
  }

  end(): void {
    if (!this.#done) this.fail("cut_off", "The stream ended before [DONE].");
    else if (this.#tokensAtMs.length === 0 && !this.failed) {
      this.#failure = { kind: "no_token", detail: "The stream ended without a token." };
    }
    this.#resolve({
      sentAtMs: this.#sentAtMs,
      tokensAtMs: this.#tokensAtMs,
      promptTokens: this.#promptTokens,
      outputTokens: this.#outputTokens,
      failure: this.#failure,
    });
  }
}

/** A chat's first event may carry the role alone, which is no token; an empty text may be one. */
function isToken(choice: unknown): boolean {
  if (typeof choice !== "object" || choice === null) return false;
  const { text, delta } = choice as { text?: unknown; delta?: Readonly<Record<string, unknown>> };
  if (typeof text === "string") return true;
  return ["content", "reasoning_content", "reasoning", "tool_calls"].some((name) => {
    const part = delta?.[name];
    return Array.isArray(part) || (typeof part === "string" && part !== "");
  });
}
