/**
 * What one event of a generating server says: content, how it ended, an error, counts. Pure.
 *
 * One definition for the benchmark, the recorder and gateways. Content is text, reasoning and
 * arguments of tool calls that are not empty; a role, an empty delta, an empty text, a tool's name
 * and usage are none. Chat and text completions, responses and messages are known.
 */

import { isObject } from "../base/is-object.ts";

export interface Reading {
  /** The first content in it, where there is any. */
  readonly content?: string;
  /** Why the answer ended, in the server's word. */
  readonly finish?: string;
  /** The server's own words for what went wrong. */
  readonly error?: string;
  readonly promptTokens?: number;
  readonly outputTokens?: number;
  /** The answer is over: nothing has to follow. */
  readonly done?: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

const DONE = "[DONE]";
/** More than is ever shown: what is cut later is looked through for secrets before. */
const ERROR_CHARS_MAX = 4096;
const NOTHING: Reading = {};

/**
 * @param data of one event
 * @param name of the event, where it has one
 * @throws SyntaxError for data that is neither JSON nor an end mark
 */
export function readEvent(data: string, name?: string): Reading {
  const text = data.trim();
  // Some servers keep a connection alive by events without data.
  if (text === "") return NOTHING;
  if (text === DONE) return { done: true };
  if (name === "error") return { error: errorText(parsedOr(text, text)) };
  const value: unknown = JSON.parse(text);
  if (isObject(value)) return readDocument(value);
  throw new SyntaxError(`Expected an event to be a JSON object, got ${text.slice(0, 100)}.`);
}

/**
 * A line of a stream that is no field. llama.cpp wrote errors as a field `error:`, and proxies
 * write bare JSON; anything else is no more than a comment.
 */
export function readStrayLine(line: string): Reading {
  const [, field] = /^error:(.*)$/s.exec(line) ?? [];
  if (field !== undefined) return { error: errorText(parsedOr(field.trim(), field.trim())) };
  const value = line.trimStart().startsWith("{") ? parsedOr(line, undefined) : undefined;
  return isObject(value) ? readDocument(value) : NOTHING;
}

/** An event's JSON, or a whole answer that was not streamed. */
export function readDocument(value: Fields): Reading {
  const error = errorOf(value);
  if (error !== undefined) return { error };
  if (typeof value["type"] === "string") {
    const typed =
      readResponsesEvent(value, value["type"]) ?? readMessagesEvent(value, value["type"]);
    if (typed !== undefined) return typed;
  }
  if (value["object"] === "response") return readResponse(value);
  return withCounts(readChoices(value["choices"]), countsOf(value["usage"]));
}

function errorOf(value: Fields): string | undefined {
  const { error } = value;
  if (error !== undefined && error !== null && error !== false && error !== "") {
    return errorText(error);
  }
  const isError = value["object"] === "error" || value["type"] === "error";
  return isError ? errorText(value) : undefined;
}

function errorText(error: unknown): string {
  const { message } = isObject(error) ? error : { message: error };
  const said = typeof message === "string" && message !== "" ? message : JSON.stringify(error);
  return String(said).slice(0, ERROR_CHARS_MAX);
}

/** Of completions and chat; each of several choices may carry content. */
function readChoices(choices: unknown): Reading {
  let reading: Reading = NOTHING;
  for (const choice of Array.isArray(choices) ? choices : []) {
    if (!isObject(choice)) continue;
    const error = errorOf(choice);
    if (error !== undefined) return { error };
    const content = reading.content ?? contentOf(choice);
    // What fails a request is kept when several choices end in one event.
    const finish = worse(reading.finish, finishOf(choice["finish_reason"]));
    reading = {
      ...(content === undefined ? {} : { content }),
      ...(finish === undefined ? {} : { finish }),
    };
  }
  return reading;
}

function worse(one: string | undefined, other: string | undefined): string | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return isCompletion(one) ? other : one;
}

function contentOf(choice: Fields): string | undefined {
  const text = textOf(choice["text"]);
  if (text !== undefined) return text;
  const delta = choice["delta"] ?? choice["message"];
  if (!isObject(delta)) return undefined;
  return (
    textOf(delta["content"]) ??
    textOf(delta["reasoning_content"]) ??
    textOf(delta["reasoning"]) ??
    textOf(delta["refusal"]) ??
    argumentsOf(delta["function_call"]) ??
    first(delta["tool_calls"], (call) => argumentsOf(isObject(call) ? call["function"] : undefined))
  );
}

function argumentsOf(call: unknown): string | undefined {
  return isObject(call) ? textOf(call["arguments"]) : undefined;
}

/** A text, or that of the first part of a list that has one. */
function textOf(value: unknown): string | undefined {
  if (typeof value === "string") return value === "" ? undefined : value;
  return first(value, (part) => (isObject(part) ? textOf(part["text"]) : undefined));
}

function first(values: unknown, read: (value: unknown) => string | undefined): string | undefined {
  if (!Array.isArray(values)) return undefined;
  for (const value of values) {
    const found = read(value);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A word, or an object with one in `type`; an empty word is none. */
function finishOf(value: unknown): string | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  if (isObject(value) && typeof value["type"] === "string") return value["type"];
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Words for an answer that ended by itself or by its limit; TGI has its own for the two. */
const COMPLETIONS: ReadonlySet<string> = new Set([
  "stop",
  "length",
  "tool_calls",
  "function_call",
  "eos_token",
  "stop_sequence",
  "end_turn",
  "max_tokens",
  "tool_use",
  "completed",
  "max_output_tokens",
]);

/** Whether an answer that ended for this reason is a completion; an abort or a filter is none. */
export function isCompletion(finish: string): boolean {
  return COMPLETIONS.has(finish);
}

function readResponsesEvent(value: Fields, type: string): Reading | undefined {
  if (!type.startsWith("response.")) return undefined;
  if (type.endsWith(".delta")) {
    const content = textOf(value["delta"]);
    return content === undefined ? NOTHING : { content };
  }
  if (!/^response\.(completed|incomplete|failed|cancelled)$/.test(type)) return NOTHING;
  const response = isObject(value["response"]) ? value["response"] : {};
  return { ...readResponse({ status: type.slice("response.".length), ...response }), done: true };
}

function readResponse(response: Fields): Reading {
  const error = errorOf(response);
  if (error !== undefined) return { error };
  const details = response["incomplete_details"];
  const reason = isObject(details) ? finishOf(details["reason"]) : undefined;
  const finish = reason ?? finishOf(response["status"]);
  const content = first(response["output"], (item) => {
    if (!isObject(item)) return undefined;
    return textOf(item["content"]) ?? textOf(item["arguments"]) ?? textOf(item["summary"]);
  });
  const said = {
    ...(content === undefined ? {} : { content }),
    ...(finish === undefined ? {} : { finish }),
  };
  return withCounts(said, countsOf(response["usage"]));
}

function readMessagesEvent(value: Fields, type: string): Reading | undefined {
  switch (type) {
    case "message_start":
      return isObject(value["message"]) ? countsOf(value["message"]["usage"]) : NOTHING;
    case "message":
    case "message_delta": {
      const delta = isObject(value["delta"]) ? value["delta"] : value;
      const finish = finishOf(delta["stop_reason"]);
      const content = first(value["content"], blockText);
      const said = {
        ...(content === undefined ? {} : { content }),
        ...(finish === undefined ? {} : { finish }),
      };
      return withCounts(said, countsOf(value["usage"]));
    }
    case "content_block_delta": {
      const content = blockText(value["delta"]);
      return content === undefined ? NOTHING : { content };
    }
    case "message_stop":
      return { done: true };
    case "content_block_start":
    case "content_block_stop":
    case "ping":
      return NOTHING;
    default:
      return undefined;
  }
}

function blockText(block: unknown): string | undefined {
  if (!isObject(block)) return undefined;
  const { input } = block;
  const used = isObject(input) && Object.keys(input).length > 0 ? JSON.stringify(input) : undefined;
  return (
    textOf(block["text"]) ?? textOf(block["thinking"]) ?? textOf(block["partial_json"]) ?? used
  );
}

/** OpenAI's names and Anthropic's, whose input leaves out what came from a cache. */
function countsOf(usage: unknown): Pick<Reading, "promptTokens" | "outputTokens"> {
  if (!isObject(usage)) return NOTHING;
  const input = countOf(usage["input_tokens"]);
  const cached =
    (countOf(usage["cache_read_input_tokens"]) ?? 0) +
    (countOf(usage["cache_creation_input_tokens"]) ?? 0);
  const prompt =
    countOf(usage["prompt_tokens"]) ?? (input === undefined ? undefined : input + cached);
  const output = countOf(usage["completion_tokens"]) ?? countOf(usage["output_tokens"]);
  return {
    ...(prompt === undefined ? {} : { promptTokens: prompt }),
    ...(output === undefined ? {} : { outputTokens: output }),
  };
}

function countOf(value: unknown): number | undefined {
  return Number.isInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}

function withCounts(reading: Reading, counts: Reading): Reading {
  return { ...reading, ...counts };
}

function parsedOr<T>(text: string, other: T): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return other;
  }
}
