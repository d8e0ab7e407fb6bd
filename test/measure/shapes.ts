/**
 * Streams as servers and proxies send them, each with what is right: one table for the reader, the
 * benchmark, the recorder and the example gateway.
 */

import type { AnswerFailureKind } from "../../src/measure/answer.ts";
import { PACKED } from "./packed-shapes.ts";
import {
  chat,
  done,
  event,
  message,
  named,
  raw,
  responses,
  role,
  stop,
  text,
  usage,
} from "./shape-parts.ts";

export interface Shape {
  readonly name: string;
  /** Which server writes it so, as far as its source or documentation says. */
  readonly from: string;
  /** Sent one after the other; the benchmark waits for each before the next one is sent. */
  readonly pieces: readonly (string | Buffer)[];
  readonly contentType?: string;
  readonly contentEncoding?: string;
  /** The connection is cut after the last piece. */
  readonly cut?: true;
  readonly want: {
    /** Index of the piece with the first content. */
    readonly first?: number;
    /** Events with content. */
    readonly content: number;
    readonly prompt?: number;
    readonly output?: number;
    readonly failure?: AnswerFailureKind;
  };
}

const two = { first: 0, content: 2, prompt: 7, output: 2 } as const;
const late = { ...two, first: 1 } as const;
const fails = (failure: AnswerFailureKind, content = 1) =>
  ({ ...(content > 0 ? { first: 0 } : {}), content, failure }) as const;
const tail = stop("length") + usage(7, 2) + done;
const tokens = [text(" one"), text(" two"), tail] as const;
const call = (index: number, fields: object) => chat({ tool_calls: [{ index, function: fields }] });

export const SHAPES: readonly Shape[] = [
  { name: "text, usage, end mark", from: "vLLM 0.26 completions", pieces: tokens, want: two },
  {
    name: "an empty text before prefill has ended",
    from: "vLLM 0.26 completions behind a proxy that greets",
    pieces: [text(""), ...tokens],
    want: late,
  },
  {
    name: "an empty text between two",
    from: "vLLM, a token that ends inside a character",
    pieces: [text(" one"), text(""), text(" two"), tail],
    want: two,
  },
  {
    name: "usage with every event",
    from: "vLLM with continuous_usage_stats",
    pieces: [
      event({ choices: [{ text: " one", finish_reason: null }], usage: counts(7, 1) }),
      event({ choices: [{ text: " two", finish_reason: null }], usage: counts(7, 2) }),
      stop("stop") + done,
    ],
    want: two,
  },
  {
    name: "the role with the first text in one event",
    from: "the simulated engine of this package",
    pieces: [chat({ role: "assistant", content: " one" }), chat({ content: " two" }), tail],
    want: two,
  },
  {
    name: "a role with empty content first",
    from: "vLLM 0.26 chat",
    pieces: [role(""), chat({ content: "one" }), chat({ content: " two" }), tail],
    want: late,
  },
  {
    name: "a role with null content first",
    from: "llama.cpp b5000 chat",
    pieces: [role(null), chat({ content: "one" }), chat({ content: " two" }), tail],
    want: late,
  },
  {
    name: "an empty delta first",
    from: "TensorRT-LLM 1.0 trtllm-serve",
    pieces: [chat({}), chat({ content: "one" }), chat({ content: " two" }), tail],
    want: late,
  },
  {
    name: "a delta that is null",
    from: "LiteLLM, an upstream's delta lost on the way",
    pieces: [event({ choices: [{ delta: null }] }), ...tokens],
    want: late,
  },
  {
    name: "choices that are null",
    from: "LiteLLM, heartbeat of an upstream",
    pieces: [event({ choices: null }), ...tokens],
    want: late,
  },
  {
    name: "choices that are empty, with filter results",
    from: "Azure OpenAI 2024-10",
    pieces: [event({ choices: [], prompt_filter_results: [{ prompt_index: 0 }] }), ...tokens],
    want: late,
  },
  {
    name: "reasoning_content",
    from: "vLLM 0.9, SGLang 0.5 with a reasoning parser",
    pieces: [role(""), chat({ reasoning_content: "hm" }), chat({ content: "hi" }), tail],
    want: late,
  },
  {
    name: "reasoning",
    from: "vLLM 0.26, OpenRouter",
    pieces: [role(""), chat({ reasoning: "hm" }), chat({ reasoning: null, content: "hi" }), tail],
    want: late,
  },
  {
    name: "empty reasoning beside empty content",
    from: "SGLang 0.5",
    pieces: [
      chat({ reasoning_content: "", content: "" }),
      chat({ content: "a" }),
      chat({ content: "b" }),
      tail,
    ],
    want: late,
  },
  {
    name: "a list of parts as content",
    from: "Mistral's API, thinking models",
    pieces: [
      chat({ content: [] }),
      chat({ content: [{ type: "text", text: "one" }] }),
      chat({ content: [{ type: "text", text: "two" }] }),
      tail,
    ],
    want: late,
  },
  {
    name: "a tool's name is no content, its arguments are",
    from: "vLLM 0.26 with a tool parser",
    pieces: [
      call(0, { name: "look_up", arguments: "" }),
      call(0, { arguments: '{"a"' }),
      call(0, { arguments: ":1}" }),
      stop("tool_calls") + usage(7, 2) + done,
    ],
    want: late,
  },
  {
    name: "arguments of a second call",
    from: "SGLang 0.5, parallel tool calls",
    pieces: [
      chat({ tool_calls: [{ index: 0, function: { name: "a" } }] }),
      chat({ tool_calls: [{ function: { arguments: "" } }, { function: { arguments: "{}" } }] }),
      chat({ content: "x" }),
      tail,
    ],
    want: late,
  },
  {
    name: "an empty list of calls",
    from: "llama.cpp b5000",
    pieces: [chat({ tool_calls: [] }), chat({ content: "a" }), chat({ content: "b" }), tail],
    want: late,
  },
  {
    name: "the older function_call",
    from: "LiteLLM for older clients",
    pieces: [
      chat({ function_call: { name: "f", arguments: "" } }),
      chat({ function_call: { arguments: "{" } }),
      chat({ function_call: { arguments: "}" } }),
      stop("function_call") + usage(7, 2) + done,
    ],
    want: late,
  },
  {
    name: "a refusal in words",
    from: "OpenAI's API",
    pieces: [role(""), chat({ refusal: "I" }), chat({ refusal: " can't" }), tail],
    want: late,
  },
  {
    name: "two choices in turns",
    from: "vLLM with n = 2",
    pieces: [
      event({ choices: [{ index: 0, text: "a" }] }),
      event({ choices: [{ index: 1, text: "b" }] }),
      tail,
    ],
    want: two,
  },
  {
    name: "finish reason in the event of the last text",
    from: "vLLM 0.26",
    pieces: [
      text(" one"),
      event({ choices: [{ text: " two", finish_reason: "length" }] }) + usage(7, 2) + done,
    ],
    want: two,
  },
  {
    name: "error null in every event",
    from: "TensorRT-LLM 1.0, several gateways",
    pieces: [
      event({ error: null, choices: [{ text: " one" }] }),
      event({ error: null, choices: [{ text: " two" }] }),
      tail,
    ],
    want: two,
  },
  {
    name: "an empty finish reason",
    from: "TensorRT-LLM 0.16",
    pieces: [
      event({ choices: [{ text: " one", finish_reason: "" }] }),
      event({ choices: [{ text: " two", finish_reason: "" }] }),
      tail,
    ],
    want: two,
  },
  {
    name: "TGI's word for the end of a sequence",
    from: "TGI 1.4",
    pieces: [text(" one"), text(" two"), stop("eos_token") + usage(7, 2) + done],
    want: two,
  },
  {
    name: "timings beside the last event",
    from: "llama.cpp b5000",
    pieces: [
      text(" one"),
      text(" two"),
      event({ choices: [{ finish_reason: "stop", delta: {} }], usage: counts(7, 2), timings: {} }) +
        done,
    ],
    want: two,
  },
  // The spelling of events.
  {
    name: "no blank after the colon",
    from: "TGI 3",
    pieces: tokens.map((piece) => piece.replaceAll("data: ", "data:")),
    want: two,
  },
  {
    name: "CR LF",
    from: "sse-starlette, in SGLang and older vLLM front ends",
    pieces: tokens.map((piece) => piece.replaceAll("\n", "\r\n")),
    want: two,
  },
  {
    name: "CR alone",
    from: "allowed by the standard",
    pieces: tokens.map((piece) => piece.replaceAll("\n", "\r")),
    want: two,
  },
  {
    name: "CR LF cut between the two",
    from: "sse-starlette behind a proxy with small buffers",
    pieces: [
      text(" one").replaceAll("\n", "\r\n").slice(0, -1),
      `\n${text(" two").replaceAll("\n", "\r\n")}`,
      tail,
    ],
    want: two,
  },
  {
    name: "comments to keep the connection",
    from: "OpenRouter; sse-starlette's ping",
    pieces: [": OPENROUTER PROCESSING\n\n: ping - 2026-01-01\r\n\r\n", ...tokens],
    want: late,
  },
  {
    name: "a comment inside an event",
    from: "allowed by the standard",
    pieces: [`: ping\n${text(" one")}`, text(" two"), tail],
    want: two,
  },
  {
    name: "an empty data line",
    from: "proxies that keep a stream alive",
    pieces: [raw(""), ...tokens],
    want: late,
  },
  {
    name: "a data line of blanks",
    from: "proxies that keep a stream alive",
    pieces: ["data:   \n\n", ...tokens],
    want: late,
  },
  {
    name: "data without a colon",
    from: "allowed by the standard",
    pieces: ["data\n\n", ...tokens],
    want: late,
  },
  {
    name: "id, retry and event fields",
    from: "LiteLLM behind an SSE proxy",
    pieces: [`id: 1\nretry: 3000\nevent: message\n${text(" one")}`, text(" two"), tail],
    want: two,
  },
  {
    name: "an event named ping",
    from: "Anthropic's format behind a translating proxy",
    pieces: [named("ping", { type: "ping" }), ...tokens],
    want: late,
  },
  {
    name: "a byte order mark",
    from: "allowed by the standard",
    pieces: [`\uFEFF${text(" one")}`, text(" two"), tail],
    want: two,
  },
  {
    name: "one event over several data lines",
    from: "allowed by the standard: pretty-printed JSON",
    pieces: ['data: {"choices":\ndata: [{"text":" one"}]}\n\n', text(" two"), tail],
    want: two,
  },
  {
    name: "all in one piece",
    from: "a proxy that buffers",
    pieces: [text("") + text(" one") + text(" two") + tail],
    want: two,
  },
  {
    name: "cut inside an event",
    from: "a proxy with small buffers",
    pieces: [text(" one").slice(0, 12), text(" one").slice(12) + text(" two"), tail],
    want: late,
  },
  {
    name: "cut inside a character",
    from: "a proxy with small buffers",
    pieces: [
      Buffer.from(text("語")).subarray(0, Buffer.from(text("語")).indexOf(0xe8) + 2),
      Buffer.from(text("語")).subarray(Buffer.from(text("語")).indexOf(0xe8) + 2),
      text(" two") + tail,
    ],
    want: late,
  },
  {
    name: "text that looks like an event",
    from: "a model that writes about servers",
    pieces: [text('"text":"\n\ndata: [DONE]"'), text("}\\"), tail],
    want: two,
  },
  {
    name: "text that equals a field's name",
    from: "a model that writes JSON",
    pieces: [text("text"), text("choices"), tail],
    want: two,
  },
  {
    name: "a content type with capitals and a charset",
    from: "ASP.NET front ends",
    contentType: "Text/Event-Stream;charset=UTF-8",
    pieces: tokens,
    want: two,
  },
  // The end.
  {
    name: "the end mark with a blank behind it",
    from: "a gateway written by hand",
    pieces: [text(" one"), text(" two"), `${stop("stop") + usage(7, 2)}data: [DONE] \n\n`],
    want: two,
  },
  {
    name: "the end mark without a blank line",
    from: "llama.cpp b2000",
    pieces: [text(" one"), text(" two"), `${stop("stop") + usage(7, 2)}data: [DONE]\n`],
    want: two,
  },
  {
    name: "the end mark without a line's end",
    from: "a gateway written by hand",
    pieces: [text(" one"), text(" two"), `${stop("stop") + usage(7, 2)}data: [DONE]`],
    want: two,
  },
  {
    name: "the end mark, and the connection cut",
    from: "a server that closes without the last chunk",
    pieces: tokens,
    cut: true,
    want: two,
  },
  {
    name: "no end mark after finish reason and usage",
    from: "TGI 1.4, Azure's inference API",
    pieces: [text(" one"), text(" two"), stop("stop") + usage(7, 2)],
    want: two,
  },
  {
    name: "usage before the finish reason",
    from: "LiteLLM over Anthropic",
    pieces: [text(" one"), usage(7, 2) + text(" two"), stop("stop")],
    want: two,
  },
  {
    name: "events after the end mark",
    from: "a proxy that appends its own usage",
    pieces: [...tokens, text(" three") + usage(1, 1)],
    want: two,
  },
  // What is no completion.
  {
    name: "a finish reason abort, then usage and the end mark",
    from: "vLLM 0.26, SGLang 0.5: aborted by the server",
    pieces: [text(" one"), stop("abort") + usage(7, 1) + done],
    want: fails("bad_finish"),
  },
  {
    name: "a finish reason error",
    from: "vLLM 0.33",
    pieces: [text(" one"), stop("error") + usage(7, 1) + done],
    want: fails("bad_finish"),
  },
  {
    name: "a finish reason content_filter",
    from: "Azure OpenAI",
    pieces: [text(" one"), stop("content_filter") + usage(7, 1) + done],
    want: fails("bad_finish"),
  },
  {
    name: "a finish reason in an object",
    from: "SGLang's own format: type abort",
    pieces: [text(" one"), event({ choices: [{ finish_reason: { type: "abort" } }] }) + done],
    want: fails("bad_finish"),
  },
  {
    name: "an error event, then the end mark",
    from: "vLLM 0.26: the engine died",
    pieces: [text(" one"), event({ error: { message: "EngineCore died.", code: 500 } }) + done],
    want: fails("server_error"),
  },
  {
    name: "an error beside choices",
    from: "OpenRouter",
    pieces: [
      text(" one"),
      event({ error: { code: 502, message: "Upstream" }, choices: [{ finish_reason: "error" }] }) +
        done,
    ],
    want: fails("server_error"),
  },
  {
    name: "an error inside a choice",
    from: "OpenRouter",
    pieces: [text(" one"), event({ choices: [{ error: { message: "Upstream" } }] }) + done],
    want: fails("server_error"),
  },
  {
    name: "an object of kind error",
    from: "vLLM before 0.10",
    pieces: [text(" one"), event({ object: "error", message: "Too long.", code: 400 }) + done],
    want: fails("server_error"),
  },
  {
    name: "an event named error",
    from: "Anthropic's format; a proxy's timeout",
    pieces: [text(" one"), `event: error\n${raw("upstream timed out")}${done}`],
    want: fails("server_error"),
  },
  {
    name: "a field named error",
    from: "llama.cpp b2000",
    pieces: [text(" one"), 'error: {"code":500,"message":"slot unavailable"}\n\n'],
    want: fails("server_error"),
  },
  {
    name: "a field named error, cut in two",
    from: "llama.cpp b2000 behind a proxy with small buffers",
    pieces: [text(" one"), "err", 'or: {"code":500,"message":"slot unavailable"}\n\n'],
    want: fails("server_error"),
  },
  {
    name: "bare JSON with an error",
    from: "a proxy that answers in the middle of a stream",
    pieces: [text(" one"), '{"error":{"message":"upstream reset"}}\n\n'],
    want: fails("server_error"),
  },
  {
    name: "an error as the first event",
    from: "SGLang 0.5: the prompt is too long",
    pieces: [event({ error: { message: "The input is too long." } }) + done],
    want: fails("server_error", 0),
  },
  {
    name: "an error after the finish reason",
    from: "LiteLLM: the callback failed",
    pieces: [text(" one"), stop("stop") + usage(7, 1) + event({ error: "late" })],
    want: { ...fails("server_error"), prompt: 7, output: 1 },
  },
  {
    name: "cut after a token",
    from: "an engine that was killed",
    pieces: [text(" one")],
    cut: true,
    want: fails("cut_off"),
  },
  {
    name: "ended politely after a token",
    from: "a proxy whose upstream was killed",
    pieces: [text(" one")],
    want: fails("cut_off"),
  },
  {
    name: "cut after the finish reason, before the usage that was asked for",
    from: "an engine that was killed",
    pieces: [text(" one"), stop("stop")],
    cut: true,
    want: fails("cut_off"),
  },
  {
    name: "an event that is no JSON",
    from: "a proxy that writes HTML",
    pieces: [text(" one"), raw("<html>502</html>") + done],
    want: fails("bad_event"),
  },
  {
    name: "JSON that is no object",
    from: "a gateway written by hand",
    pieces: [text(" one"), raw("42") + done],
    want: fails("bad_event"),
  },
  {
    name: "an event of two million characters",
    from: "nothing sound",
    pieces: [text(" one"), `data: ${"x".repeat(1 << 21)}`],
    cut: true,
    want: fails("bad_event"),
  },
  {
    name: "the end mark alone",
    from: "a server that generated nothing",
    pieces: [done],
    want: fails("no_token", 0),
  },
  {
    name: "a role, a stop and nothing else",
    from: "vLLM: the first token ended the answer",
    pieces: [role(""), stop("stop") + usage(7, 0) + done],
    want: { ...fails("no_token", 0), prompt: 7, output: 0 },
  },
  // Other formats.
  {
    name: "responses: text",
    from: "OpenAI's and vLLM 0.26's /v1/responses",
    pieces: [
      responses("created", { response: { status: "in_progress", error: null } }),
      responses("output_text.delta", { delta: "one" }),
      responses("output_text.delta", { delta: " two" }),
      responses("completed", { response: { status: "completed", error: null, usage: io(7, 2) } }),
    ],
    want: late,
  },
  {
    name: "responses: reasoning and arguments",
    from: "OpenAI's /v1/responses",
    pieces: [
      responses("output_item.added", { item: { type: "reasoning" } }),
      responses("reasoning_summary_text.delta", { delta: "hm" }),
      responses("function_call_arguments.delta", { delta: "{}" }),
      responses("completed", { response: { usage: io(7, 2) } }),
    ],
    want: late,
  },
  {
    name: "responses: ended by its limit",
    from: "OpenAI's /v1/responses",
    pieces: [
      responses("output_text.delta", { delta: "one" }),
      responses("output_text.delta", { delta: " two" }),
      responses("incomplete", {
        response: { incomplete_details: { reason: "max_output_tokens" }, usage: io(7, 2) },
      }),
    ],
    want: two,
  },
  {
    name: "responses: filtered",
    from: "OpenAI's /v1/responses",
    pieces: [
      responses("output_text.delta", { delta: "one" }),
      responses("incomplete", { response: { incomplete_details: { reason: "content_filter" } } }),
    ],
    want: fails("bad_finish"),
  },
  {
    name: "responses: failed",
    from: "OpenAI's /v1/responses",
    pieces: [
      responses("output_text.delta", { delta: "one" }),
      responses("failed", { response: { status: "failed", error: { message: "overloaded" } } }),
    ],
    want: fails("server_error"),
  },
  {
    name: "messages: text",
    from: "Anthropic's and vLLM 0.26's /v1/messages",
    pieces: [
      message("message_start", {
        message: { usage: { input_tokens: 4, cache_read_input_tokens: 3 } },
      }),
      message("content_block_start", { content_block: { type: "text", text: "" } }) +
        message("ping", {}) +
        message("content_block_delta", { delta: { type: "text_delta", text: "one" } }),
      message("content_block_delta", { delta: { type: "text_delta", text: " two" } }),
      message("message_delta", {
        delta: { stop_reason: "max_tokens" },
        usage: { output_tokens: 2 },
      }) + message("message_stop", {}),
    ],
    want: late,
  },
  {
    name: "messages: thinking, then a tool's input",
    from: "Anthropic's /v1/messages",
    pieces: [
      message("content_block_delta", { delta: { type: "thinking_delta", thinking: "hm" } }),
      message("content_block_delta", { delta: { type: "input_json_delta", partial_json: "" } }) +
        message("content_block_delta", { delta: { type: "input_json_delta", partial_json: "{}" } }),
      message("message_delta", { delta: { stop_reason: "tool_use" }, usage: io(7, 2) }) +
        message("message_stop", {}),
    ],
    want: two,
  },
  {
    name: "messages: overloaded",
    from: "Anthropic's /v1/messages",
    pieces: [
      message("content_block_delta", { delta: { type: "text_delta", text: "one" } }),
      message("error", { error: { type: "overloaded_error", message: "Overloaded" } }),
    ],
    want: fails("server_error"),
  },
  ...PACKED,
];

function counts(prompt: number, completion: number): object {
  return { prompt_tokens: prompt, completion_tokens: completion };
}

function io(input: number, output: number): object {
  return { input_tokens: input, output_tokens: output };
}
