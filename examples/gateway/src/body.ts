import type { IncomingMessage } from "node:http";

export const BODY_BYTES_MAX: number = 32 << 20;

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
  try {
    for await (const chunk of pieces) {
      bytes += chunk.length;
      if (bytes > BODY_BYTES_MAX) return undefined;
      hold(chunk.length);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } finally {
    // Of one that was refused the rest is read and dropped: a connection that ends while the
    // client still sends can cost it the answer.
    incoming.resume();
  }
}
