/** How answers end that are completions. */

import { type Shape, two } from "./shape.ts";
import { stop, text, tokens, usage } from "./shape-parts.ts";

export const ENDINGS: readonly Shape[] = [
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
];
