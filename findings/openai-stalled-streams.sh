#!/bin/sh
# `timeout` of OpenAI's and Anthropic's clients for Node ends with an answer's head. For a stream that
# stalls later, as before an engine that hangs, they wait until fetch gives up, 300 s without a byte. And
# a signal of one's own that aborts ends it without an error: half an answer looks like a whole one.
# Seen with openai 7.55.0 and @anthropic-ai/sdk 1.10.0, of two events 3 s apart by 1 s: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit openai@7.55.0 @anthropic-ai/sdk@1.10.0 >>npm.log 2>&1

cat >read.mjs <<'JS'
import http from "node:http";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
const event = 'event: message_stop\ndata: {"type": "message_stop"}\n\n';
const server = http.createServer((_, answer) => {
  answer.write(event);
  setTimeout(() => answer.end(event), 3000);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const baseURL = `http://127.0.0.1:${server.address().port}`;
const options = { apiKey: "none", baseURL, maxRetries: 0 };
const body = { model: "m", messages: [], max_tokens: 9, stream: true };
for (const api of [new OpenAI(options).chat.completions, new Anthropic(options).messages]) {
  for (const name of ["timeout", "signal"]) {
    const own = { [name]: name === "signal" ? AbortSignal.timeout(1000) : 1000 };
    let read = 0;
    for await (const _ of await api.create(body, own)) read++;
    console.log(`${api.constructor.name}, ${name}: ${read} of 2 events`);
  }
}
process.exit();
JS
node read.mjs | tee output
cat >expected <<'TXT'
Completions, timeout: 2 of 2 events
Completions, signal: 1 of 2 events
Messages, timeout: 2 of 2 events
Messages, signal: 1 of 2 events
TXT
cmp expected output
