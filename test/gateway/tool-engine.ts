/** An upstream that answers with a call of a tool, whole or in pieces, as vLLM words it. */

import { text as textOf } from "node:stream/consumers";
import { startStub } from "./helpers.ts";

export interface ToolEngine {
  readonly url: string;
  /** The tools of each request, in order of arrival. */
  readonly seen: unknown[];
}

/** It always calls `weather` with `{"city":"Zürich"}`. */
export async function startToolEngine(): Promise<ToolEngine> {
  const call = { id: "call-1", type: "function", function: { name: "weather", arguments: "" } };
  const pieces = ['{"ci', 'ty":"Zürich"}'];
  const head = { id: "chatcmpl-1", created: 1, model: "sim" };
  const seen: unknown[] = [];
  const { url } = await startStub(async (request, response) => {
    const body = JSON.parse(await textOf(request)) as { stream?: boolean; tools?: unknown };
    seen.push(body.tools);
    if (body.stream !== true) {
      const whole = { ...call, function: { ...call.function, arguments: pieces.join("") } };
      const message = { role: "assistant", content: null, tool_calls: [whole] };
      const choice = { index: 0, message, finish_reason: "tool_calls" };
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ ...head, object: "chat.completion", choices: [choice] }));
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const send = (delta: object, finish_reason: string | null) => {
      const choices = [{ index: 0, delta, finish_reason }];
      const chunk = { ...head, object: "chat.completion.chunk", choices };
      response.write(`data: ${JSON.stringify(chunk)}\n\n`);
    };
    send({ role: "assistant", tool_calls: [{ index: 0, ...call }] }, null);
    for (const piece of pieces) {
      send({ tool_calls: [{ index: 0, function: { arguments: piece } }] }, null);
    }
    send({}, "tool_calls");
    response.end("data: [DONE]\n\n");
  });
  return { url, seen };
}
