import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** An HTTP server of the test's own, gone with it. */
export async function serve(listener: RequestListener): Promise<URL> {
  const server = createServer(listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
}

/** A port that was free a moment ago, and has no server. */
export async function nowhere(): Promise<URL> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return new URL(`http://127.0.0.1:${port}`);
}

export const token = (text: string): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, text }] })}\n\n`;

export const usage = (prompt: number, completion: number): string =>
  `data: ${JSON.stringify({
    choices: [],
    usage: { prompt_tokens: prompt, completion_tokens: completion },
  })}\n\n`;

export const STREAM = { "content-type": "text/event-stream" };
export const DONE = "data: [DONE]\n\n";
