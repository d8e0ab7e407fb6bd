/** Questions to an OpenAI-compatible server besides the load: its model, its token counts. */

import { within } from "../deadline.ts";
import { LazygraphError, messageOf } from "../errors.ts";
import type { TokenCounter } from "./prompts.ts";
import { type Endpoint, streamRequest } from "./stream.ts";

const ASK_MS_MAX = 30_000;

export interface ServedModel {
  readonly model: string;
  /** Set when the server says that it is a simulated one. */
  readonly simulated: string | undefined;
}

/**
 * The model to ask for: the wanted one, else the first that the server names.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` when none is wanted and the server can't be reached
 *   or names none
 */
export async function servedModel(
  url: URL,
  wanted: string | undefined,
  signal: AbortSignal,
): Promise<ServedModel> {
  return modelOf(await ask(url, "v1/models", undefined, signal), url, wanted);
}

function modelOf(answer: Answer, url: URL, wanted: string | undefined): ServedModel {
  const data = (answer.body as { data?: unknown } | null | undefined)?.data;
  const models = (Array.isArray(data) ? data : []) as ({
    id?: unknown;
    owned_by?: unknown;
  } | null)[];
  const found = models.find((entry) => wanted === undefined || entry?.id === wanted) ?? models[0];
  const simulated =
    found?.owned_by === "simulated" ? `the server at ${url.origin} says so` : undefined;
  if (wanted !== undefined) return { model: wanted, simulated };
  if (typeof found?.id === "string") return { model: found.id, simulated };
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

/**
 * Whether anything answers there, whatever it says, and names a model where none is wanted.
 *
 * @param secondsMax to wait for an answer, at most half a minute
 * @throws LazygraphError `ERR_LAZYGRAPH_BENCH` when not
 */
export async function requireServer(
  url: URL,
  wanted: string | undefined,
  secondsMax: number,
  signal: AbortSignal,
): Promise<void> {
  const timeoutMs = Math.min(ASK_MS_MAX, secondsMax * 1000);
  const answer = await ask(url, "v1/models", undefined, signal, timeoutMs);
  if (signal.aborted) return;
  if (!answer.answered) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BENCH",
      `Expected a server at ${url.href}, got ${answer.what}: start it, or see host and port.`,
    );
  }
  modelOf(answer, url, wanted);
}

interface Answer {
  /** With whatever status. */
  readonly answered: boolean;
  /** Undefined unless it was 200 with JSON. */
  readonly body: unknown;
  readonly what: string;
}

async function ask(
  url: URL,
  path: string,
  body: object | undefined,
  signal: AbortSignal,
  timeoutMs = ASK_MS_MAX,
): Promise<Answer> {
  const base = url.href.endsWith("/") ? url.href : `${url.href}/`;
  let answered = false;
  try {
    const [status, text] = await within(timeoutMs, signal, async (limited) => {
      const response = await fetch(new URL(path, base), {
        signal: limited,
        ...(body === undefined
          ? {}
          : {
              method: "POST",
              headers: { "content-type": "application/json" },
              body: JSON.stringify(body),
            }),
      });
      answered = true;
      return [response.status, await response.text()] as const;
    });
    if (status !== 200) return { answered, body: undefined, what: `status ${status}` };
    return { answered, body: JSON.parse(text), what: text.slice(0, 100) };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const what = messageOf(cause);
    return { answered, body: undefined, what };
  }
}
