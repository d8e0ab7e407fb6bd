/** Questions to an OpenAI-compatible server besides the load: its model, its token counts. */

import { connectionAdvice } from "../base/connection-advice.ts";
import { within } from "../base/deadline.ts";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { askServer, connectionFailure, proxyVariable } from "../measure/http-client.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import type { TokenCounter } from "./prompts.ts";
import { type Endpoint, type RequestFields, streamRequest } from "./stream.ts";

const ASK_MS_MAX = 30_000;
const MODELS = "/v1/models";
const UNAUTHORIZED: ReadonlySet<number> = new Set([401, 403]);
const SHOWN_CHARS_MAX = 100;

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
  server: ServerAddress,
  wanted: string | undefined,
  signal: AbortSignal,
): Promise<ServedModel> {
  return modelOf(await ask(server, MODELS, undefined, signal), server, wanted);
}

function modelOf(answer: Asked, server: ServerAddress, wanted: string | undefined): ServedModel {
  const data = (answer.body as { data?: unknown } | null | undefined)?.data;
  const models = (Array.isArray(data) ? data : []) as ({
    id?: unknown;
    owned_by?: unknown;
  } | null)[];
  const found = models.find((entry) => wanted === undefined || entry?.id === wanted) ?? models[0];
  const simulated =
    found?.owned_by === "simulated" ? `the server at ${server.origin} says so` : undefined;
  if (wanted !== undefined) return { model: wanted, simulated };
  if (typeof found?.id === "string") return { model: found.id, simulated };
  const advice = UNAUTHORIZED.has(answer.status ?? 0)
    ? "give its key by --api-key or OPENAI_API_KEY"
    : "name one by --model, or see whether the server runs";
  throw new LazygraphError(
    "ERR_LAZYGRAPH_BENCH",
    `Expected ${server.shown} to name a model at ${MODELS}, got ${answer.what}: ${advice}.`,
  );
}

export interface CounterOptions extends RequestFields {
  readonly server: ServerAddress;
  readonly endpoint: Endpoint;
  readonly model: string;
  readonly signal: AbortSignal;
}

export function createTokenCounter(options: CounterOptions): TokenCounter {
  const { server, model, signal } = options;
  return {
    async tokenize(text) {
      const body = { model, prompt: text, add_special_tokens: false };
      const answer = await ask(server, "/tokenize", body, signal);
      const { tokens } = (answer.body ?? {}) as { tokens?: unknown };
      const sound = Array.isArray(tokens) && tokens.every((id) => Number.isInteger(id));
      return sound ? (tokens as number[]) : undefined;
    },
    async promptTokens(text) {
      const outcome = await streamRequest({
        ...options,
        prompt: text,
        maxTokens: 1,
        ignoreEos: false,
        timeoutMs: ASK_MS_MAX,
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
  server: ServerAddress,
  wanted: string | undefined,
  secondsMax: number,
  signal: AbortSignal,
): Promise<void> {
  const timeoutMs = Math.min(ASK_MS_MAX, secondsMax * 1000);
  const answer = await ask(server, MODELS, undefined, signal, timeoutMs);
  if (signal.aborted) return;
  if (answer.status === undefined) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BENCH",
      `Expected a server at ${server.shown}, got ${answer.what}: ${adviceOn(answer.what, server)}.`,
    );
  }
  modelOf(answer, server, wanted);
}

function adviceOn(failure: string, { origin }: ServerAddress): string {
  const proxy = proxyVariable(origin);
  const way = proxy === undefined ? "" : `, or the proxy that ${proxy} names`;
  return connectionAdvice(failure, new URL(origin)) ?? `start it, or see its URL${way}`;
}

interface Asked {
  /** Undefined: nothing answered. */
  readonly status: number | undefined;
  /** Undefined unless it was 200 with JSON. */
  readonly body: unknown;
  readonly what: string;
}

async function ask(
  server: ServerAddress,
  path: string,
  body: object | undefined,
  signal: AbortSignal,
  timeoutMs = ASK_MS_MAX,
): Promise<Asked> {
  try {
    const { status, text } = await within(timeoutMs, signal, (limited) =>
      askServer({ server, path, body, signal: limited }),
    );
    const shown = server.hide(text).slice(0, SHOWN_CHARS_MAX);
    if (status !== 200) return { status, body: undefined, what: `status ${status}` };
    return { status, body: jsonOf(text), what: shown };
  } catch (error) {
    // Of the environment, and not of this server.
    if (error instanceof OptionError) throw error;
    const what = server.hide(connectionFailure(error));
    return { status: undefined, body: undefined, what };
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
