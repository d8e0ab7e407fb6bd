/** Questions to an OpenAI-compatible server besides the load: its model, its token counts. */

import { LazygraphError } from "../errors.ts";
import type { TokenCounter } from "./prompts.ts";
import { type Endpoint, streamRequest } from "./stream.ts";

const ASK_MS_MAX = 30_000;

/**
 * The first model that the server names.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` when it can't be reached or names none
 */
export async function firstModel(url: URL, signal: AbortSignal): Promise<string> {
  const answer = await ask(url, "v1/models", undefined, signal);
  const data = (answer.body as { data?: readonly { id?: unknown }[] } | undefined)?.data;
  const id = data?.[0]?.id;
  if (typeof id === "string") return id;
  throw new LazygraphError(
    "ERR_LAZYGRAPH_BENCH",
    `Expected ${url.href} to name a model at /v1/models, got ${answer.what}: name one, or see ` +
      "whether the server runs.",
  );
}

export interface CounterOptions {
  readonly url: URL;
  readonly endpoint: Endpoint;
  readonly model: string;
  readonly signal: AbortSignal;
}

export function createTokenCounter(options: CounterOptions): TokenCounter {
  const { url, endpoint, model, signal } = options;
  return {
    async tokenize(text) {
      const body = { model, prompt: text, add_special_tokens: false };
      const answer = await ask(url, "tokenize", body, signal);
      const { tokens } = (answer.body ?? {}) as { tokens?: unknown };
      const sound = Array.isArray(tokens) && tokens.every((id) => Number.isInteger(id));
      return sound ? (tokens as number[]) : undefined;
    },
    async promptTokens(text) {
      const outcome = await streamRequest({
        url,
        endpoint,
        model,
        prompt: text,
        maxTokens: 1,
        ignoreEos: false,
        timeoutMs: ASK_MS_MAX,
        signal,
      });
      return outcome.promptTokens;
    },
  };
}

interface Answer {
  /** Undefined unless it was 200 with JSON. */
  readonly body: unknown;
  readonly what: string;
}

async function ask(
  url: URL,
  path: string,
  body: object | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const base = url.href.endsWith("/") ? url.href : `${url.href}/`;
  try {
    const response = await fetch(new URL(path, base), {
      signal: AbortSignal.any([signal, AbortSignal.timeout(ASK_MS_MAX)]),
      ...(body === undefined
        ? {}
        : {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(body),
          }),
    });
    const text = await response.text();
    if (response.status !== 200) return { body: undefined, what: `status ${response.status}` };
    return { body: JSON.parse(text), what: text.slice(0, 100) };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { body: undefined, what: cause instanceof Error ? cause.message : String(cause) };
  }
}
