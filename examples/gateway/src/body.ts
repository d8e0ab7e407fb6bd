import type { IncomingMessage } from "node:http";

export const BODY_BYTES_MAX: number = 32 << 20;

/** The whole body, to be sent again if an engine doesn't answer; undefined when it is too large. */
export async function bodyOf(incoming: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
