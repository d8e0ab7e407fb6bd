/**
 * The least that a client can do: sockets that are read to their end, and nothing of it looked at
 * but the end mark.
 *
 *   node bare-client.ts PORT STREAMS TOKENS
 */

import { connect } from "node:net";

const [port = 0, streams = 0, tokens = 0] = process.argv.slice(2).map(Number);
const body = JSON.stringify({ model: "m", prompt: "a", max_tokens: tokens, stream: true });
const request =
  "POST /v1/completions HTTP/1.1\r\nhost: bare\r\ncontent-type: application/json\r\n" +
  `content-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`;

for (let index = 0; index < streams; index++) {
  const socket = connect(port, "127.0.0.1", () => socket.write(request));
  socket.on("data", () => {});
}
