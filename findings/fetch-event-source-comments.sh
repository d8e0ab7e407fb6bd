#!/bin/sh
# @microsoft/fetch-event-source and its forks call `onmessage` with empty data for comments, as vLLM sends
# them by --sse-keep-alive-interval and SMG by default. Where it parses JSON it throws, and that has the
# request sent again, every second for good: engines compute one answer after another, and none is shown.
# Seen with versions 2.0.1, 2.1.4 (@ai-zen/node-) and 3.0.6 (@fortaine/), in 2.5 s: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @microsoft/fetch-event-source@2.0.1 \
  @ai-zen/node-fetch-event-source@2.1.4 @fortaine/fetch-event-source@3.0.6 >>npm.log 2>&1

cat >chat.mjs <<'JS'
import http from "node:http";
let asked = 0;
const server = http.createServer((_, answer) => {
  asked++;
  answer.setHeader("content-type", "text/event-stream");
  answer.end(': keep-alive\n\ndata: {"choices": []}\n\n');
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${server.address().port}`;
globalThis.window = globalThis;
globalThis.document = { addEventListener() {}, removeEventListener() {} };
for (const scope of ["@microsoft/", "@ai-zen/node-", "@fortaine/"]) {
  const { fetchEventSource } = await import(`${scope}fetch-event-source`);
  for (const read of [String, JSON.parse]) {
    asked = 0;
    let got = 0;
    await fetchEventSource(url, {
      method: "POST",
      signal: AbortSignal.timeout(2500),
      onmessage({ data }) {
        read(data);
        got++;
      },
    });
    console.log(`${scope} ${read.name}: asked ${asked}, got ${got}`);
  }
}
process.exit();
JS
node chat.mjs | tee output
cat >expected <<'TXT'
@microsoft/ String: asked 1, got 2
@microsoft/ parse: asked 3, got 0
@ai-zen/node- String: asked 1, got 2
@ai-zen/node- parse: asked 3, got 0
@fortaine/ String: asked 1, got 2
@fortaine/ parse: asked 3, got 0
TXT
cmp expected output
