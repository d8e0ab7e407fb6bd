import type { IncomingMessage } from "node:http";

export const BODY_BYTES_MAX: number = 32 << 20;
/** For what comes after a refusal: more than clients send, but an end. */
const REST_BYTES_MAX = 128 << 20;
const REST_SECONDS_MAX = 10;

/**
 * The whole body, to be sent again if an engine doesn't answer; undefined when it is too large.
 * What `hold` throws at the bytes of a piece, it throws.
 */
export async function bodyOf(
  incoming: IncomingMessage,
  hold: (bytes: number) => void,
): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const pieces: AsyncIterable<Buffer> = incoming.iterator({ destroyOnReturn: false });
  for await (const chunk of pieces) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    hold(chunk.length);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * Of a body that nobody wants any more the rest is read and dropped, because a connection that ends
 * while the client still sends can cost it the answer; but only so much of it.
 */
export function dropRest(incoming: IncomingMessage): void {
  if (incoming.complete || incoming.destroyed) return;
  let bytes = 0;
  const limit = setTimeout(() => incoming.destroy(), REST_SECONDS_MAX * 1000);
  incoming.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > REST_BYTES_MAX) incoming.destroy();
  });
  incoming.once("close", () => clearTimeout(limit));
  incoming.resume();
}
