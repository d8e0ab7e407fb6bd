#!/bin/sh
# `chat.completions.stream()` of OpenAI's client for Python joins what should be told once. Where every
# chunk has its role, as LMDeploy's have and the API's reference allows, the answer's role comes out as
# "assistantassistant…", which its type (Literal["assistant"]) rules out, and goes so into the next
# request's messages. A tool call that is named in each of its chunks is of "nownow"; numbers beside them
# are summed, and so are booleans. Beside the delta the first chunk counts: of vLLM's token_ids
# (`return_token_ids`) the first are the answer's, and its stop_reason isn't there. The client for
# JavaScript has role and name once, but of numbers and token_ids the last chunk's.
# Seen with openai 3.57.0 for Python and 6.49.0 for JavaScript before one server: the output below. The
# chunks of `create(stream=True)` are whole in both.
set -eu
folder=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || :; rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit openai@6.49.0 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4

cat >server.mjs <<'JS'
import { createServer } from "node:http";
const call = (text) => [{ index: 0, id: "c1", type: "function", function: { name: "now", arguments: text } }];
const choices = [
  { delta: { content: "Let me" }, token_ids: [7, 8] },
  { delta: { content: " see.", drafts: 2, last: false }, token_ids: [9] },
  { delta: { tool_calls: call("{"), drafts: 3, last: true }, token_ids: [10] },
  { delta: { tool_calls: call("}") }, token_ids: [11], finish_reason: "tool_calls", stop_reason: 5 },
];
const server = createServer((request, response) => {
  request.resume();
  response.setHeader("content-type", "text/event-stream");
  const common = { id: "1", object: "chat.completion.chunk", created: 1, model: "m" };
  for (const { delta, ...more } of choices) {
    const choice = { index: 0, finish_reason: null, ...more, delta: { role: "assistant", ...delta } };
    response.write(`data: ${JSON.stringify({ ...common, choices: [choice] })}\n\n`);
  }
  response.end("data: [DONE]\n\n");
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/v1`));
JS
cat >ask.mjs <<'JS'
import OpenAI from "openai";
const client = new OpenAI({ apiKey: "k", baseURL: process.argv[2] });
const answer = await client.chat.completions.stream({ model: "m", messages: [] }).finalChatCompletion();
const { message, token_ids, stop_reason } = answer.choices[0];
const { role, content, tool_calls, drafts, last } = message;
console.log("JavaScript:", role, content, tool_calls[0].function.name, drafts, last, token_ids, stop_reason);
JS
cat >ask.py <<'PY'
import sys

import openai

client = openai.OpenAI(api_key="k", base_url=sys.argv[1])
with client.chat.completions.stream(model="m", messages=[]) as stream:
    choice = stream.get_final_completion().choices[0]
told = choice.message
print("Python:", told.role, told.content, told.tool_calls[0].function.name, told.drafts, told.last)
print("Python, beside it:", choice.model_extra)
PY
node server.mjs >url &
server=$!
for _ in $(seq 100); do [ -s url ] && break || sleep 0.1; done
{
  node ask.mjs "$(cat url)"
  python/bin/python ask.py "$(cat url)"
} | tee output
cat >expected <<'TXT'
JavaScript: assistant Let me see. now 3 true [ 11 ] 5
Python: assistantassistantassistantassistant Let me see. nownow 5 1
Python, beside it: {'token_ids': [7, 8]}
TXT
cmp expected output
