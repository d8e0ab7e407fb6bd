/**
 * The OpenAI side of a simulated engine, without I/O: requests in, checked; documents out.
 *
 * Its tokenizer counts words: every run of characters between white space is one token. Prompts
 * given as token ids count as what they are.
 */

import { isObject } from "../../base/is-object.ts";
import { shownWhole } from "../../base/shown.ts";

export type Endpoint = "completions" | "chat";

/** What a request comes to for the engine. */
export interface Generation {
  readonly endpoint: Endpoint;
  readonly model: string;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

/** An answer that isn't the expected one; `status` is HTTP's. */
export class OpenAiError extends Error {
  override readonly name = "OpenAiError";
  readonly status: number;
  readonly type: string;

  constructor(status: number, type: string, message: string) {
    super(message);
    this.status = status;
    this.type = type;
  }

  /** As vLLM words its errors. */
  document(): object {
    const { message, type, status } = this;
    return { error: { message, type, param: null, code: status } };
  }
}

/** What `max_tokens` is when a completions request leaves it out, as OpenAI has it. */
const COMPLETION_TOKENS = 16;
/** Tokens of a chat template around each message. */
const MESSAGE_TOKENS = 4;

export interface Limits {
  readonly model: string;
  readonly contextTokensMax: number;
}

/** @throws OpenAiError with the status that vLLM would answer */
export function parseGeneration(endpoint: Endpoint, body: unknown, limits: Limits): Generation {
  const fields = record(body, "the body");
  const model = requireModel(fields, limits);
  const promptTokens =
    endpoint === "chat" ? messagesTokens(fields["messages"]) : promptLength(fields["prompt"]);
  const asked = fields["max_completion_tokens"] ?? fields["max_tokens"];
  const room = limits.contextTokensMax - promptTokens;
  const fallback = endpoint === "chat" ? Math.min(room, 256) : COMPLETION_TOKENS;
  const outputTokens = asked === undefined || asked === null ? fallback : asked;
  if (!Number.isInteger(outputTokens) || (outputTokens as number) < 1) {
    throw badRequest(`Expected max_tokens to be a whole number from 1, got ${shownWhole(asked)}.`);
  }
  if (promptTokens < 1) throw badRequest("Expected a prompt of at least one token, got none.");
  if ((outputTokens as number) > room) {
    throw badRequest(
      `Expected at most ${limits.contextTokensMax} tokens in all, got ${promptTokens} in the ` +
        `prompt and ${outputTokens} to generate.`,
    );
  }
  const options = fields["stream_options"];
  return {
    endpoint,
    model,
    promptTokens,
    outputTokens: outputTokens as number,
    stream: fields["stream"] === true,
    includeUsage: isObject(options) && options["include_usage"] === true,
  };
}

/** Token ids of a text, or of messages with their template: as many as words. */
export function parseTokenize(body: unknown, limits: Limits): number[] {
  const fields = record(body, "the body");
  if (fields["model"] !== undefined) requireModel(fields, limits);
  if (fields["messages"] !== undefined) {
    return Array.from({ length: messagesTokens(fields["messages"]) }, (_, index) => index + 1);
  }
  const { prompt } = fields;
  if (typeof prompt !== "string") throw badRequest(`Expected a prompt, got ${shownWhole(prompt)}.`);
  return words(prompt).map(wordId);
}

interface Frame {
  readonly id: string;
  readonly created: number;
}

/** One event of a stream with one token, the last one with its reason to finish. */
export function chunkDocument(request: Generation, frame: Frame, index: number): object {
  const finish = index === request.outputTokens - 1 ? "length" : null;
  if (request.endpoint === "completions") {
    return {
      ...head(request, frame, "text_completion"),
      choices: [{ index: 0, text: tokenText(index), logprobs: null, finish_reason: finish }],
    };
  }
  const role = index === 0 ? { role: "assistant" } : {};
  return {
    ...head(request, frame, "chat.completion.chunk"),
    choices: [
      {
        index: 0,
        delta: { ...role, content: tokenText(index) },
        logprobs: null,
        finish_reason: finish,
      },
    ],
  };
}

/** The last event before `[DONE]` where usage was asked for. */
export function usageChunk(request: Generation, frame: Frame): object {
  const object = request.endpoint === "chat" ? "chat.completion.chunk" : "text_completion";
  return { ...head(request, frame, object), choices: [], usage: usage(request) };
}

/** The whole answer to a request without `stream`. */
export function wholeDocument(request: Generation, frame: Frame): object {
  const text = Array.from({ length: request.outputTokens }, (_, i) => tokenText(i)).join("");
  const chat = request.endpoint === "chat";
  const body = chat ? { message: { role: "assistant", content: text } } : { text };
  return {
    ...head(request, frame, chat ? "chat.completion" : "text_completion"),
    choices: [{ index: 0, ...body, logprobs: null, finish_reason: "length" }],
    usage: usage(request),
  };
}

function head({ model }: Generation, { id, created }: Frame, object: string): object {
  return { id, object, created, model };
}

function usage({ promptTokens, outputTokens }: Generation): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: outputTokens,
    total_tokens: promptTokens + outputTokens,
  };
}

/** The engine computes nothing: its tokens are numbers, as words. */
function tokenText(index: number): string {
  return ` ${index + 1}`;
}

function requireModel(fields: Readonly<Record<string, unknown>>, { model }: Limits): string {
  if (fields["model"] === undefined || fields["model"] === model) return model;
  throw new OpenAiError(
    404,
    "NotFoundError",
    `The model ${shownWhole(fields["model"])} does not exist; this server has ${shownWhole(model)}.`,
  );
}

function promptLength(prompt: unknown): number {
  if (typeof prompt === "string") return words(prompt).length;
  const isIds = Array.isArray(prompt) && prompt.every((id) => Number.isInteger(id) && id >= 0);
  if (isIds) return prompt.length;
  throw badRequest(
    `Expected a prompt as one text or one list of token ids, got ${shownWhole(prompt)}.`,
  );
}

function messagesTokens(messages: unknown): number {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw badRequest(
      `Expected messages to be a list with at least one, got ${shownWhole(messages)}.`,
    );
  }
  return messages.reduce<number>((sum, message) => {
    const { content } = record(message, "a message");
    return sum + MESSAGE_TOKENS + contentTokens(content);
  }, 0);
}

function contentTokens(content: unknown): number {
  if (typeof content === "string") return words(content).length;
  // The answer to a tool call, or a call itself, may come without content.
  if (content === undefined || content === null) return 0;
  if (!Array.isArray(content))
    throw badRequest(`Expected content as text, got ${shownWhole(content)}.`);
  return content.reduce<number>((sum, part) => {
    const { text } = record(part, "a part of content");
    return sum + (typeof text === "string" ? words(text).length : 0);
  }, 0);
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

/** FNV-1a, cut to a vocabulary of 2^16: the same word has the same id everywhere. */
function wordId(word: string): number {
  let hash = 0x811c9dc5;
  for (const char of word) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  return hash & 0xffff;
}

function record(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (isObject(value)) return value;
  throw badRequest(`Expected ${what} to be a JSON object, got ${shownWhole(value)}.`);
}

function badRequest(message: string): OpenAiError {
  return new OpenAiError(400, "BadRequestError", message);
}
