#!/bin/sh
# Who breaks out of a stream of Vercel's AI SDK goes on being sent the answer, and an engine computes it to
# its end; with OpenAI's client the break ends it. The SDK divides its stream, and one half is left.
# Seen with ai 7.0.173 and openai 7.55.0, of ten events in 2 s: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit ai@7.0.173 @ai-sdk/openai-compatible@3.0.92 \
  openai@7.55.0 >>npm.log 2>&1

cat >leave.mjs <<'JS'
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";
import OpenAI from "openai";
let sent;
const server = http.createServer(async (_, answer) => {
  for (sent = 0; sent < 10 && !answer.destroyed; sent++) {
    answer.write('data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n');
    await sleep(200);
  }
  answer.end();
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const baseURL = `http://127.0.0.1:${server.address().port}`;
const model = createOpenAICompatible({ name: "m", baseURL })("m");
const client = new OpenAI({ apiKey: "none", baseURL });
const stop = new AbortController();
const streams = {
  ai: () => streamText({ model, prompt: "a" }).textStream,
  "ai, aborted": () => streamText({ model, prompt: "a", abortSignal: stop.signal }).textStream,
  openai: () => client.chat.completions.create({ model: "m", messages: [], stream: true }),
};
for (const [name, open] of Object.entries(streams)) {
  for await (const _ of await open()) break;
  if (name === "ai, aborted") stop.abort();
  await sleep(2500);
  console.log(`${name}: ${sent < 10 ? "not all" : "all sent"}`);
}
process.exit();
JS
node leave.mjs | tee output
cat >expected <<'TXT'
ai: all sent
ai, aborted: not all
openai: not all
TXT
cmp expected output
