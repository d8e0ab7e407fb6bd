/** Answers that are no completions, whatever their status. */

import { fails, type Shape } from "./shape.ts";
import { done, event, raw, role, stop, text, usage } from "./shape-parts.ts";

export const FAILURES: readonly Shape[] = [
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
    name: "a cut within an event",
    from: "vLLM 0.33, killed",
    pieces: [text(" one"), text(" two").slice(0, 20)],
    cut: true,
    want: fails("cut_off"),
  },
  {
    name: "an end within an event, politely",
    from: "a proxy whose upstream is gone",
    pieces: [text(" one"), text(" two").slice(0, 20)],
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
];
