/** An OpenAI-compatible server with one answer. */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

const WHOLE = JSON.stringify({ id: "1", choices: [{ text: "x" }], usage: { prompt_tokens: 1 } });
const EVENT = `data: ${JSON.stringify({ id: "1", choices: [{ delta: { content: "x" } }] })}\n\n`;

const server = createServer((request, response) => {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (text: string) => {
    body += text;
  });
  request.on("end", () => {
    if (!body.includes('"stream":true')) {
      response.writeHead(200, { "content-type": "application/json" }).end(WHOLE);
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let index = 0; index < 16; index++) response.write(EVENT);
    response.end("data: [DONE]\n\n");
  });
});
server.listen(0, "127.0.0.1", () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.once("disconnect", () => process.exit());
