/** What is content and what is none. */

import { late, type Shape, two } from "./shape.ts";
import {
  call,
  chat,
  counts,
  done,
  event,
  role,
  stop,
  tail,
  text,
  tokens,
  usage,
} from "./shape-parts.ts";

export const CONTENT: readonly Shape[] = [
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
];
