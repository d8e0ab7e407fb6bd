/** The responses and messages formats. */

import { fails, late, type Shape, two } from "./shape.ts";
import { io, message, responses } from "./shape-parts.ts";

export const FORMATS: readonly Shape[] = [
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
];
