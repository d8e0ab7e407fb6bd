/**
 * An OpenAI-compatible server that streams: each answer so many tokens a second, each token in a
 * chunk of its own, as vLLM writes them. A process of its own, so that clients alone are measured.
 */

import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const TOKENS_PER_SECOND = 100;
const PERIOD_MS = 1000 / TOKENS_PER_SECOND;

interface Stream {
  readonly response: ServerResponse;
  readonly tokens: number;
  readonly phase: number;
  left: number;
}

function event(text: string, finish: string | null): string {
  const choice = {
    index: 0,
    text,
    logprobs: null,
    finish_reason: finish,
    stop_reason: null,
    prompt_token_ids: null,
    token_ids: null,
  };
  const head = { id: "cmpl-8f3b6c1d2e4a", object: "text_completion", created: 1_790_000_000 };
  const fields = { ...head, model: "m", choices: [choice], usage: null };
  return `data: ${JSON.stringify(fields)}\n\n`;
}

const TOKEN = event(" hello", null);

function last({ tokens }: Stream): string {
  const usage = { prompt_tokens: 16, completion_tokens: tokens, total_tokens: tokens + 16 };
  const told = `data: ${JSON.stringify({ choices: [], usage })}\n\n`;
  return `${event("", "length")}${told}data: [DONE]\n\n`;
}

const streams = new Set<Stream>();
let started = 0;

const server = createServer((request, response) => {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (text: string) => {
    body += text;
  });
  request.on("end", () => {
    if (request.method !== "POST" || body === "") {
      const document = JSON.stringify({ object: "list", data: [{ id: "m", object: "model" }] });
      response.writeHead(200, { "content-type": "application/json" }).end(document);
      return;
    }
    const { max_tokens: tokens = 1, stream } = JSON.parse(body) as {
      max_tokens?: number;
      stream?: boolean;
    };
    if (stream !== true) {
      response.writeHead(404, { "content-type": "application/json" }).end("{}");
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    // Streams are spread over the period: what comes for several at once would cost less.
    const own = { response, tokens, left: tokens, phase: started++ % PERIOD_MS };
    streams.add(own);
    response.on("close", () => streams.delete(own));
  });
});

let tick = 0;
// One turn a millisecond at most: a host that holds this process up makes its streams slower, not
// their tokens come in heaps, which cost a client less than they do one by one.
setInterval(() => {
  tick++;
  for (const stream of streams) {
    if (tick % PERIOD_MS !== stream.phase) continue;
    if (stream.left-- > 0) stream.response.write(TOKEN);
    else {
      stream.response.end(last(stream));
      streams.delete(stream);
    }
  }
}, 1);

server.listen(0, "127.0.0.1", () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.once("disconnect", () => process.exit());
