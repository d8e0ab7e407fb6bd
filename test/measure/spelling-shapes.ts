/** How events are spelt, and cut on their way. */

import { late, type Shape, two } from "./shape.ts";
import { named, raw, tail, text, tokens } from "./shape-parts.ts";

export const SPELLING: readonly Shape[] = [
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
];
