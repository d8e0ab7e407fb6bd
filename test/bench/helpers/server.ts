import { createServer, type RequestListener } from "node:http";
import { listening } from "../../helpers/listening.ts";

/** An HTTP server of the test's own, gone with it. */
export async function serve(listener: RequestListener): Promise<URL> {
  return new URL(await listening(createServer(listener)));
}

/** A port that no server has. */
export const NOWHERE = new URL("http://127.0.0.1:1");

export const token = (text: string): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, text }] })}\n\n`;

export const usage = (prompt: number, completion: number): string =>
  `data: ${JSON.stringify({
    choices: [],
    usage: { prompt_tokens: prompt, completion_tokens: completion },
  })}\n\n`;

export const STREAM = { "content-type": "text/event-stream" };
export const DONE = "data: [DONE]\n\n";
