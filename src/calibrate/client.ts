/** The OpenAI side of the engine under calibration: completions of given lengths, nothing else. */

import { setTimeout as sleep } from "node:timers/promises";
import { within } from "../base/deadline.ts";
import { LazygraphError } from "../base/errors.ts";
import { createAnswerReader } from "../measure/answer-reader.ts";
import { askServer, connectionFailure } from "../measure/http-client.ts";
import type { ServerAddress } from "../measure/server-address.ts";

export interface CompletionsOptions {
  readonly server: ServerAddress;
  readonly model: string;
  readonly signal: AbortSignal;
}

export interface CompletionOptions {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** A wave that takes longer has met an engine that hangs; below the HTTP client's own limit. */
const REQUEST_MS_MAX = 280_000;
const CHECK_MS_MAX = 30_000;
const CHECK_INTERVAL_MS = 250;
const MODELS_SHOWN = 3;
/** Token ids that every vocabulary has, beyond its first special ones. */
const TOKEN_MIN = 100;
const TOKENS = 20_000;

/** An engine that does not take this request, and says so. */
export class RefusedRequest extends LazygraphError {
  constructor(message: string) {
    super("ERR_LAZYGRAPH_CALIBRATE", message);
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

export class Completions {
  readonly #options: CompletionsOptions;
  #sent = 0;

  constructor(options: CompletionsOptions) {
    this.#options = options;
  }

  /**
   * Waits until the endpoint answers: an API server comes up after its engine.
   *
   * @throws LazygraphError ERR_LAZYGRAPH_CALIBRATE unless it then serves the model
   */
  async check(withinSeconds: number): Promise<void> {
    const { model, signal } = this.#options;
    const endMs = performance.now() + withinSeconds * 1000;
    let answer = await this.#models();
    while ((answer instanceof Error || answer.status === 503) && performance.now() < endMs) {
      await sleep(CHECK_INTERVAL_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
      answer = await this.#models();
    }
    if (answer instanceof Error) throw answer;
    const { status, text } = answer;
    const names = status === 200 ? modelNames(text) : undefined;
    if (names === undefined) {
      throw this.#fault(`a list of models, got HTTP status ${status}`);
    }
    if (names.includes(model)) return;
    const known = names.slice(0, MODELS_SHOWN).join(", ") || "none";
    throw this.#fault(`the model ${JSON.stringify(model)}, got ${known}`);
  }

  #models(): Promise<Answer | LazygraphError> {
    return this.#ask("/v1/models", undefined, CHECK_MS_MAX).catch((error: unknown) => {
      if (error instanceof LazygraphError) return error;
      throw error;
    });
  }

  /**
   * One completion to its end. Not streamed: the engine's own telemetry says what its steps took,
   * and hundreds of streams would keep the API server from feeding it.
   *
   * @throws RefusedRequest for an answer of HTTP status 400; LazygraphError otherwise
   */
  async complete({ promptTokens, outputTokens }: CompletionOptions): Promise<void> {
    this.#sent++;
    const body = {
      model: this.#options.model,
      prompt: promptOf(promptTokens, this.#sent),
      max_tokens: outputTokens,
      min_tokens: outputTokens,
      ignore_eos: true,
      temperature: 0,
    };
    const { status, text } = await this.#ask("/v1/completions", body, REQUEST_MS_MAX);
    const failure = status === 200 ? failureOf(text) : undefined;
    if (status === 200 && failure === undefined) return;
    const what = `completions of ${promptTokens} + ${outputTokens} tokens`;
    const got = failure ?? `HTTP status ${status}: ${shortened(text)}`;
    if (status === 400) throw new RefusedRequest(this.#fault(`${what}, got ${got}`).message);
    throw this.#fault(`${what}, got ${got}`);
  }

  async #ask(path: string, body: object | undefined, timeoutMs: number): Promise<Answer> {
    const { server, signal } = this.#options;
    try {
      const { status, text } = await within(timeoutMs, signal, (limited) =>
        askServer({ server, path, body, signal: limited }),
      );
      return { status, text: server.hide(text) };
    } catch (cause) {
      signal.throwIfAborted();
      const got = server.hide(connectionFailure(cause));
      throw this.#fault(`an answer to ${path}, got ${shortened(got)}`, cause);
    }
  }

  #fault(what: string, cause?: unknown): LazygraphError {
    return new LazygraphError(
      "ERR_LAZYGRAPH_CALIBRATE",
      `Expected ${this.#options.server.shown} to give ${what}.`,
      { cause },
    );
  }
}

/** Why a whole answer is no completion, by the same rules as a streamed one. */
function failureOf(text: string): string | undefined {
  let found: string | undefined;
  const reader = createAnswerReader({ contentType: "application/json", keepTimes: false });
  reader?.push(Buffer.from(text), 0);
  reader?.end(({ failure }) => {
    // Tokens without text take steps as any other.
    if (failure?.kind !== "no_token") found = failure?.detail;
  });
  return found;
}

/** Different for each request: a prompt seen before would come out of the prefix cache. */
function promptOf(tokens: number, seed: number): number[] {
  let state = (seed * 2_654_435_761) >>> 0;
  return Array.from({ length: tokens }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return TOKEN_MIN + Math.floor((state / 2 ** 32) * TOKENS);
  });
}

function modelNames(text: string): string[] | undefined {
  try {
    const { data } = JSON.parse(text) as { data?: { id?: unknown }[] };
    return Array.isArray(data) ? data.map(({ id }) => String(id)) : undefined;
  } catch {
    return undefined;
  }
}

function shortened(text: string): string {
  const line = text.replaceAll(/[\p{Cc}\s]+/gu, " ").trim();
  return line.length > 160 ? `${line.slice(0, 157)}...` : line;
}
